"""Low rank, as plans and devices see it."""

from keras_embcomp.layers.low_rank.layers import (
    LowRankEmbedding,
    LowRankSoftmax,
)
from keras_embcomp.layers.method import Method
from keras_embcomp.numerics.low_rank import low_rank_from_fraction


def _sizes(table, parameters, weights):
    fraction = min(max(parameters / table.size, 1e-9), 1)
    vocabulary, width = table.shape
    return {"rank": low_rank_from_fraction(vocabulary, width, fraction)}


def _operations(arguments, shape, output):
    return 2 * arguments["rank"] * (shape[1] + output * shape[0])


LOW_RANK = Method(
    name="low_rank",
    embedding=LowRankEmbedding,
    softmax=LowRankSoftmax,
    sizes=_sizes,
    smallest=lambda shape: {"rank": 1},
    operations=_operations,
    device_axes={"embeddings": 0},
    formats_of_auto=("int8", "int4"),
)
