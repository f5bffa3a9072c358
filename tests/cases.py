"""Every public layer once, as data. A new layer is a new line here."""

from collections.abc import Callable
from dataclasses import dataclass

import oracles

import keras_embcomp

VOCABULARY, WIDTH = 307, 12  # ids above 256; a prime, to be padded by none


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


EMBEDDINGS = (
    Case(
        layer=keras_embcomp.LowRankEmbedding,
        structure={"rank": 4},
        full={"rank": WIDTH},
        growing=({"rank": 1}, {"rank": 3}, {"rank": 8}),
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
)

SOFTMAXES = (
    Case(
        layer=keras_embcomp.LowRankSoftmax,
        structure={"rank": 4},
        full={"rank": WIDTH},
        growing=({"rank": 1}, {"rank": 3}, {"rank": 8}),
        huge={"units": 2_000_000, "rank": 1},
        table=oracles.low_rank_table,
        wrong=(
            (
                {"rank": 2.5},
                "`rank` must be a positive integer. Received: rank=2.5",
            ),
        ),
    ),
)
