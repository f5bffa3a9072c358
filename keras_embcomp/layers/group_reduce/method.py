"""GroupReduce, as plans and devices see it."""

import numpy as np

from keras_embcomp.layers.group_reduce.layers import (
    GroupReduceEmbedding,
    GroupReduceSoftmax,
)
from keras_embcomp.layers.method import Method
from keras_embcomp.numerics.group_reduce.budgets import (
    group_ranks_by_error,
    growing_groups,
)

_GROUPS = 8


def _sizes(table, parameters, weights):
    sizes = growing_groups(len(table), min(_GROUPS, len(table)))
    ranks = group_ranks_by_error(table, sizes, int(parameters), weights)
    return {
        "group_sizes": sizes,
        "group_ranks": ranks,
        "permuted": bool((np.diff(weights) > 0).any()),  # stores places
    }


def _operations(arguments, shape, output):
    sizes, ranks = arguments["group_sizes"], arguments["group_ranks"]
    return sum(
        2 * rank * (shape[1] + output * size)
        for size, rank in zip(sizes, ranks, strict=True)
    )


GROUP_REDUCE = Method(
    name="group_reduce",
    embedding=GroupReduceEmbedding,
    softmax=GroupReduceSoftmax,
    sizes=_sizes,
    smallest=lambda shape: {"group_sizes": (shape[0],), "group_ranks": (1,)},
    operations=_operations,
    device_axes={r"embeddings_\d+": 0, r"kernels_\d+": 0},
    formats_of_auto=("int8",),
)
