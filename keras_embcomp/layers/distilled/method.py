"""Distilled tables, as plans and devices see them."""

from keras_embcomp.layers.distilled.layers import (
    DistilledEmbedding,
    DistilledSoftmax,
)
from keras_embcomp.layers.method import Method
from keras_embcomp.numerics.distilled import distilled_rank

_HIDDEN = 512


def _sizes(table, parameters, weights):
    vocabulary, width = table.shape
    hidden = max(min(_HIDDEN, int(parameters / (8 * width))), 1)
    rank = distilled_rank(vocabulary, width, parameters, hidden)
    return {"rank": min(rank, width), "hidden_dim": hidden}


def _operations(arguments, shape, output):
    rank, hidden = arguments["rank"], arguments["hidden_dim"]
    row = 2 * (rank * hidden + hidden * shape[1] + rank * shape[1])
    return shape[0] * (row + 2 * shape[1]) if output else row


DISTILLED = Method(
    name="distilled",
    embedding=DistilledEmbedding,
    softmax=DistilledSoftmax,
    sizes=_sizes,
    smallest=lambda shape: {"rank": 1, "hidden_dim": 1},
    operations=_operations,
    device_axes={"embeddings": 0},
    slow_fit=True,
)
