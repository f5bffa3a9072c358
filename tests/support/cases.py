"""Every public layer once, as data. A new layer is a new line here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import oracles
import refusals

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
        wrong: Arguments that must be refusals, each with the message.
        lost: The largest error of an entry at full size.
        note: What tells two cases of a layer apart.
    """

    layer: type
    structure: dict
    full: dict
    growing: tuple
    huge: dict
    table: Callable
    wrong: tuple = ()
    lost: float = 1e-6
    note: str = ""

    def __str__(self):
        return self.layer.__name__ + self.note


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
_PRIVATE = dict(
    structure={"num_subvectors": 100, "num_parts": 3, "num_private": 20},
    full={
        "num_subvectors": 3 * (VOCABULARY - 20),
        "num_parts": 3,
        "num_private": 20,
    },
    growing=tuple(
        {"num_subvectors": 50, "num_parts": 3, "num_private": size}
        for size in (1, 100, 250)
    ),
    note="-private",
)
_GROUP_REDUCE = dict(
    structure={"group_sizes": _GROUPS, "group_ranks": (12, 5, 2)},
    full={"group_sizes": _GROUPS, "group_ranks": (12, 12, 12)},
    growing=tuple(
        {"group_sizes": _GROUPS, "group_ranks": ranks}
        for ranks in ((1, 1, 1), (5, 2, 1), (12, 6, 3))
    ),
)
_DISTILLED = dict(
    structure={"rank": 4},
    full={"rank": WIDTH},
    growing=({"rank": 1}, {"rank": 3}, {"rank": 8}),
    table=oracles.decoded_table,
)
_DECODED = dict(
    structure={"rank": 4, "hidden_dim": 7},
    full={"rank": WIDTH, "hidden_dim": 7},
    growing=tuple(
        {"rank": rank, "hidden_dim": 7, "epochs": 3} for rank in (1, 3, 8)
    ),
    table=oracles.decoded_table,
    note="-hidden",
)
_CODED = dict(
    structure={"num_parts": 3, "part_width": 4, "codebook_size": 100},
    full={"num_parts": 1, "part_width": 12, "codebook_size": VOCABULARY},
    growing=tuple(
        {"num_parts": 2, "part_width": 6, "codebook_size": size}
        for size in (4, 16, 64)
    ),
)
_KEPT = dict(
    structure={
        "num_parts": 3,
        "part_width": 4,
        "codebook_size": 30,
        "num_kept": 40,
    },
    full={
        "num_parts": 2,
        "part_width": 6,
        "codebook_size": VOCABULARY,
        "num_kept": VOCABULARY - 1,
    },
    growing=tuple(
        {"num_parts": 3, "part_width": 4, "codebook_size": 32, "num_kept": kept}
        for kept in (1, 100, 250)
    ),
    table=partial(oracles.kept_table, 3),
    note="-kept",
)
_STRINGS = dict(
    lost=1e-5,  # 14 and 15 bits a number
    structure={"group_bytes": 3, "state_bits": 8},
    full={"group_bytes": 22, "state_bits": 15},
    growing=tuple({"group_bytes": size, "state_bits": 8} for size in (1, 3, 8)),
)
_SHORT_STRINGS = {
    **_STRINGS,
    "lost": 1e-4,  # 12 bits a number: an eighth of the states of 15
    "full": {"group_bytes": 18, "state_bits": 12},
}
_GROUPED_STRINGS = dict(
    lost=1e-4,  # 11 and 12 bits a number
    structure={
        "group_bytes": (4, 3, 2),
        "group_sizes": _GROUPS,
        "num_parts": 4,
        "part_width": 3,
        "step_bits": 8,
        "state_bits": 10,
    },
    full={
        "group_bytes": (18, 17),
        "group_sizes": (300, 7),
        "state_bits": 12,
    },
    growing=tuple(
        {"group_bytes": sizes, "group_sizes": _GROUPS, "state_bits": 8}
        for sizes in ((3, 2, 1), (4, 3, 2), (10, 8, 6))
    ),
    table=partial(oracles.trellis_table, (4, 3, 2), 10),
    note="-groups",
)

EMBEDDINGS = (
    Case(
        layer=keras_embcomp.LowRankEmbedding,
        **_LOW_RANK,
        huge={"input_dim": 2_000_000, "output_dim": 8_192, "rank": 1},
        table=oracles.low_rank_table,
        wrong=refusals.LOW_RANK,
    ),
    Case(
        layer=keras_embcomp.TTEmbedding,
        **_TENSOR_TRAIN,
        huge={"input_dim": 2_000_000, "output_dim": 8_192, "tt_ranks": 2},
        table=_TT_TABLE,
        wrong=refusals.TENSOR_TRAIN,
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
        wrong=refusals.HASHED,
    ),
    Case(
        layer=keras_embcomp.HashedEmbedding,
        **_PRIVATE,
        huge={
            "input_dim": 2_000_000,
            "output_dim": 8_192,
            "num_subvectors": 1_000,
            "num_parts": 2,
            "num_private": 10,
        },
        table=partial(
            oracles.hashed_table, VOCABULARY, 3, True, num_private=20
        ),
        wrong=refusals.PRIVATE,
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
        table=partial(oracles.grouped_table, WIDTH),
        wrong=refusals.GROUP_REDUCE,
    ),
    Case(
        layer=keras_embcomp.DistilledEmbedding,
        **_DISTILLED,
        huge={"input_dim": 2_000_000, "output_dim": 8_192, "rank": 1},
        wrong=refusals.DISTILLED,
    ),
    Case(
        layer=keras_embcomp.DistilledEmbedding,
        **_DECODED,
        huge={
            "input_dim": 2_000_000,
            "output_dim": 8_192,
            "rank": 1,
            "hidden_dim": 16,
        },
    ),
    Case(
        layer=keras_embcomp.ProductQuantizedEmbedding,
        **_CODED,
        huge={
            "input_dim": 2_000_000,
            "output_dim": 8_192,
            "num_parts": 2,
            "part_width": 2,
        },
        table=partial(oracles.coded_table, 3),
        wrong=refusals.CODED,
    ),
    Case(
        layer=keras_embcomp.ProductQuantizedEmbedding,
        **_KEPT,
        huge={
            "input_dim": 2_000_000,
            "output_dim": 8_192,
            "num_parts": 2,
            "part_width": 2,
            "num_kept": 10,
        },
    ),
    Case(
        layer=keras_embcomp.TrellisCodedEmbedding,
        **_STRINGS,
        huge={
            "input_dim": 2_000_000,
            "output_dim": 8_192,
            "num_parts": 2,
            "group_bytes": 1,
        },
        table=partial(oracles.trellis_table, (3,), 8),
        wrong=refusals.STRINGS,
    ),
    Case(
        layer=keras_embcomp.TrellisCodedEmbedding,
        **_GROUPED_STRINGS,
        huge={
            "input_dim": 2_000_000,
            "output_dim": 8_192,
            "num_parts": 2,
            "group_bytes": (2, 0),
            "group_sizes": (10, 1_999_990),
        },
    ),
)

# As many, in the same order: the output sides of the same methods.
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
        layer=keras_embcomp.HashedSoftmax,
        **_PRIVATE,
        huge={
            "units": 2_000_000,
            "num_subvectors": 1_000,
            "num_parts": 2,
            "num_private": 10,
        },
        table=partial(
            oracles.hashed_table, VOCABULARY, 3, False, num_private=20
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
        table=partial(oracles.grouped_table, WIDTH),
        wrong=(
            (
                {"group_sizes": (50, 100, 156)},
                "`group_sizes` must sum to `units`. Received: "
                "group_sizes=(50, 100, 156), so 306, units=307",
            ),
        ),
    ),
    Case(
        layer=keras_embcomp.DistilledSoftmax,
        **_DISTILLED,
        huge={"units": 2_000_000, "rank": 1},
    ),
    Case(
        layer=keras_embcomp.DistilledSoftmax,
        **_DECODED,
        huge={"units": 2_000_000, "rank": 1, "hidden_dim": 16},
    ),
    Case(
        layer=keras_embcomp.ProductQuantizedSoftmax,
        **_CODED,
        huge={"units": 2_000_000, "num_parts": 2, "part_width": 2},
        table=partial(oracles.coded_table, 3),
    ),
    Case(
        layer=keras_embcomp.ProductQuantizedSoftmax,
        **_KEPT,
        huge={
            "units": 2_000_000,
            "num_parts": 2,
            "part_width": 2,
            "num_kept": 10,
        },
    ),
    Case(
        layer=keras_embcomp.TrellisCodedSoftmax,
        **_SHORT_STRINGS,
        huge={"units": 2_000_000, "num_parts": 2, "group_bytes": 1},
        table=partial(oracles.trellis_table, (3,), 8),
    ),
    Case(
        layer=keras_embcomp.TrellisCodedSoftmax,
        **_GROUPED_STRINGS,
        huge={
            "units": 2_000_000,
            "num_parts": 2,
            "group_bytes": (2, 0),
            "group_sizes": (10, 1_999_990),
        },
    ),
)
