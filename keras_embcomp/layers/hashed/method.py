"""Shared sub-vectors, as plans and devices see them."""

from keras_embcomp.layers.hashed.layers import HashedEmbedding, HashedSoftmax
from keras_embcomp.layers.method import Method

_PARTS = (8, 10, 6, 4, 5, 3, 2, 1)  # the first that divides the width


def _sizes(table, parameters, weights):
    smallest = _smallest(table.shape)
    parts = smallest["num_parts"]
    subvectors = int(parameters * parts / table.shape[1])
    most = len(table) * parts
    return {**smallest, "num_subvectors": min(max(subvectors, parts), most)}


def _smallest(shape):
    parts = next(parts for parts in _PARTS if shape[1] % parts == 0)
    return {"num_subvectors": parts, "num_parts": parts}


def _operations(arguments, shape, output):
    parts, pool = arguments["num_parts"], arguments["num_subvectors"]
    products = 2 * pool * shape[1] // parts
    return output * (products + shape[0] * parts)


HASHED = Method(
    name="hashed",
    embedding=HashedEmbedding,
    softmax=HashedSoftmax,
    sizes=_sizes,
    smallest=_smallest,
    operations=_operations,
    # A word's pieces are anywhere in the pool: each device holds a part of all.
    device_axes={"subvectors": 1},
)
