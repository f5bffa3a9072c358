"""Tensor train, as plans and devices see it."""

from keras_embcomp.layers.method import Method
from keras_embcomp.layers.tensor_train.layers import TTEmbedding, TTSoftmax
from keras_embcomp.numerics.tensor_train.shapes import tensor_train_rank


def _sizes(table, parameters, weights):
    vocabulary, width = table.shape
    rank = tensor_train_rank(vocabulary, width, parameters, num_cores=2)
    return {"tt_ranks": rank, "num_cores": 2}


def _operations(arguments, shape, output):
    row = 2 * arguments["tt_ranks"] * shape[1]
    return shape[0] * (row + 2 * shape[1]) if output else row


TENSOR_TRAIN = Method(
    name="tensor_train",
    embedding=TTEmbedding,
    softmax=TTSoftmax,
    sizes=_sizes,
    smallest=lambda shape: {"tt_ranks": 1, "num_cores": 2},
    operations=_operations,
    # Ranks: the product of an odd core and the next is a sum over devices.
    device_axes={r"core_[135]": 3, r"core_[24]": 1},
)
