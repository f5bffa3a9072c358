"""Every public layer once, as data. A new layer is a new line here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import oracles

import keras_embcomp

VOCABULARY, WIDTH = 307, 12  # ids above 256; a prime, to be padded by none

_TT_TABLE = partial(oracles.tensor_train_table, VOCABULARY)
_GROUPS = (50, 100, 157)  # with these ranks the first one is dense
_TWO_CORES = ((18, 19), (3, 4))  # 35 rows of padding, more than a slab


@dataclass(frozen=True)
class Case:
    """What the contract suite needs to know of a layer.

    Attributes:
        layer: The class.
        structure: The constructor's structural arguments.
        full: Those with which `from_dense` is exact.
        growing: Those of growing budgets, for which its error must fall.
        huge: Sizes and structure of a layer whose table does not fit into
            memory though its weights do.
        table: The oracle, from the table's weights to the table.
        wrong: Arguments that must be refused, each with the message.
    """

    layer: type
    structure: dict
    full: dict
    growing: tuple
    huge: dict
    table: Callable
    wrong: tuple = ()

    def __str__(self):
        return self.layer.__name__


# What the two sides of a method have in common.
_LOW_RANK = dict(
    structure={"rank": 4},
    full={"rank": WIDTH},
    growing=({"rank": 1}, {"rank": 3}, {"rank": 8}),
)
_TENSOR_TRAIN = dict(
    structure={"tt_ranks": 3},
    full={"tt_shape": _TWO_CORES, "tt_ranks": 54},
    growing=tuple({"num_cores": 4, "tt_ranks": r} for r in (2, 6, 18)),
)
_HASHED = dict(
    structure={"num_subvectors": 100, "num_parts": 3},
    full={"num_subvectors": 3 * VOCABULARY, "num_parts": 3},
    growing=tuple(
        {"num_subvectors": size, "num_parts": 3} for size in (20, 100, 400)
    ),
)
_GROUP_REDUCE = dict(
    structure={"group_sizes": _GROUPS, "group_ranks": (12, 5, 2)},
    full={"group_sizes": _GROUPS, "group_ranks": (12, 12, 12)},
    growing=tuple(
        {"group_sizes": _GROUPS, "group_ranks": ranks}
        for ranks in ((1, 1, 1), (5, 2, 1), (12, 6, 3))
    ),
)

EMBEDDINGS = (
    Case(
        layer=keras_embcomp.LowRankEmbedding,
        **_LOW_RANK,
        huge={"input_dim": 2_000_000, "output_dim": 8_192, "rank": 1},
        table=oracles.low_rank_table,
        wrong=(
            (
                {"rank": 13},
                "`rank` must not exceed `output_dim`. "
                "Received: rank=13, output_dim=12",
            ),
            (
                {"rank": 0},
                "`rank` must be a positive integer. Received: rank=0",
            ),
        ),
    ),
    Case(
        layer=keras_embcomp.TTEmbedding,
        **_TENSOR_TRAIN,
        huge={"input_dim": 2_000_000, "output_dim": 8_192, "tt_ranks": 2},
        table=_TT_TABLE,
        wrong=(
            (
                {"tt_shape": ((17, 18), (3, 4))},
                "The row modes of `tt_shape` must multiply to at least "
                "`input_dim`; `tt_shape=None` picks modes that fit. Received: "
                "tt_shape=((17, 18), (3, 4)), so 306 rows, input_dim=307",
            ),
            (
                {"tt_shape": ((17, 19), (3, 3))},
                "The column modes of `tt_shape` must multiply to the width of "
                "the table; `tt_shape=None` picks modes that fit. Received: "
                "tt_shape=((17, 19), (3, 3)), so 9 columns, width=12",
            ),
            (
                {"tt_shape": (307, 12)},
                "`tt_shape` must be a pair of tuples of positive integers, row "
                "modes and column modes, one of each for 2 to 6 cores. "
                "Received: tt_shape=(307, 12)",
            ),
            (
                {"num_cores": 7},
                "`num_cores` must be from 2 to 6. Received: num_cores=7",
            ),
            (
                {"tt_ranks": [2, 2, 2]},
                "`tt_ranks` must be an integer, or a list with one rank for "
                "each of the 2 places between the 3 cores. "
                "Received: tt_ranks=(2, 2, 2)",
            ),
            (
                {"tt_ranks": 0},
                "`tt_ranks` must be a positive integer. Received: tt_ranks=0",
            ),
        ),
    ),
    Case(
        layer=keras_embcomp.HashedEmbedding,
        **_HASHED,
        huge={
            "input_dim": 2_000_000,
            "output_dim": 8_192,
            "num_subvectors": 1_000,
            "num_parts": 2,
        },
        table=partial(oracles.hashed_table, VOCABULARY, 3, True),
        wrong=(
            (
                {"num_parts": 5},
                "`num_parts` must divide `output_dim`; the nearest that do are "
                "4 and 6. Received: num_parts=5, output_dim=12",
            ),
            (
                {"num_subvectors": 922},
                "`num_subvectors` must not exceed `input_dim * num_parts`. "
                "Received: num_subvectors=922, input_dim * num_parts=921",
            ),
            (
                {"num_parts": 2**24},
                "`input_dim * num_parts` must be below 2**31. "
                "Received: input_dim=307, num_parts=16777216",
            ),
            (
                {"num_subvectors": 2, "shared_pool": False},
                "`num_parts` must not exceed `num_subvectors`. "
                "Received: num_parts=3, num_subvectors=2",
            ),
        ),
    ),
    Case(
        layer=keras_embcomp.GroupReduceEmbedding,
        **_GROUP_REDUCE,
        huge={
            "input_dim": 2_000_000,
            "output_dim": 8_192,
            "group_sizes": (500_000, 1_500_000),
            "group_ranks": (2, 1),
        },
        table=partial(oracles.grouped_table, False, WIDTH),
        wrong=(
            (
                {"group_sizes": (50, 100, 156)},
                "`group_sizes` must sum to `input_dim`. Received: "
                "group_sizes=(50, 100, 156), so 306, input_dim=307",
            ),
            (
                {"group_sizes": (307, 0)},
                "`group_sizes` must be a positive integer. "
                "Received: group_sizes=0",
            ),
            (
                {"group_sizes": 307},
                "`group_sizes` must be a list of positive integers. "
                "Received: group_sizes=307",
            ),
            (
                {"group_ranks": (12, 5)},
                "`group_ranks` must have one rank for each group. Received: "
                "group_ranks=(12, 5), group_sizes=(50, 100, 157)",
            ),
            (
                {"group_ranks": (51, 5, 2)},
                "`group_ranks` must not exceed `group_sizes`. Received: "
                "group_ranks=(51, 5, 2), group_sizes=(50, 100, 157)",
            ),
            (
                {"group_ranks": (13, 5, 2)},
                "`group_ranks` must not exceed `output_dim`. Received: "
                "group_ranks=(13, 5, 2), output_dim=12",
            ),
        ),
    ),
)

SOFTMAXES = (
    Case(
        layer=keras_embcomp.LowRankSoftmax,
        **_LOW_RANK,
        huge={"units": 2_000_000, "rank": 1},
        table=oracles.low_rank_table,
        wrong=(
            (
                {"rank": 2.5},
                "`rank` must be a positive integer. Received: rank=2.5",
            ),
        ),
    ),
    Case(
        layer=keras_embcomp.TTSoftmax,
        **_TENSOR_TRAIN,
        huge={"units": 2_000_000, "tt_ranks": 2},
        table=_TT_TABLE,
        wrong=(
            (
                {"tt_ranks": 2.5},
                "`tt_ranks` must be a positive integer. Received: tt_ranks=2.5",
            ),
        ),
    ),
    Case(
        layer=keras_embcomp.HashedSoftmax,
        **_HASHED,
        huge={"units": 2_000_000, "num_subvectors": 1_000, "num_parts": 2},
        table=partial(oracles.hashed_table, VOCABULARY, 3, False),
        wrong=(
            (
                {"num_subvectors": 0},
                "`num_subvectors` must be a positive integer. "
                "Received: num_subvectors=0",
            ),
        ),
    ),
    Case(
        layer=keras_embcomp.GroupReduceSoftmax,
        **_GROUP_REDUCE,
        huge={
            "units": 2_000_000,
            "group_sizes": (500_000, 1_500_000),
            "group_ranks": (2, 1),
        },
        table=partial(oracles.grouped_table, True, WIDTH),
        wrong=(
            (
                {"group_sizes": (50, 100, 156)},
                "`group_sizes` must sum to `units`. Received: "
                "group_sizes=(50, 100, 156), so 306, units=307",
            ),
        ),
    ),
)
