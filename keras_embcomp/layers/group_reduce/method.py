"""GroupReduce, as plans and devices see it."""

import numpy as np

from keras_embcomp.layers.group_reduce.layers import (
    GroupReduceEmbedding,
    GroupReduceSoftmax,
)
from keras_embcomp.layers.method import FromScratch, Method
from keras_embcomp.numerics.group_reduce.budgets import (
    group_ranks_by_error,
    group_ranks_by_frequency,
    growing_groups,
)
from keras_embcomp.numerics.group_reduce.groups import stored_dense

_GROUPS, _GROUPS_FROM_SCRATCH = 8, 4


def _sizes(table, parameters, weights):
    sizes = growing_groups(len(table), min(_GROUPS, len(table)))
    ranks = group_ranks_by_error(table, sizes, int(parameters), weights)
    return {
        "group_sizes": sizes,
        "group_ranks": ranks,
        "permuted": bool((np.diff(weights) > 0).any()),  # stores places
    }


def _sizes_from_scratch(shape, parameters, counts, side):
    vocabulary, width = shape
    for number in range(min(_GROUPS_FROM_SCRATCH, vocabulary), 0, -1):
        sizes = growing_groups(vocabulary, number)
        try:
            # No counts are stored, so groups are ranges of ids.
            ranks = group_ranks_by_frequency(
                sizes, width, int(parameters), counts, sort=False
            )
        except ValueError:  # rank 1 in each group is too much
            ranks = (1,) * number
        else:
            break
    return {"group_sizes": sizes, "group_ranks": ranks}


def _operations(arguments, shape, output):
    sizes, ranks = arguments["group_sizes"], arguments["group_ranks"]
    total = 0
    for size, rank in zip(sizes, ranks, strict=True):
        if stored_dense(size, rank, shape[1]):
            total += output * 2 * size * shape[1]
        else:
            total += 2 * rank * (shape[1] + output * size)
    return total


GROUP_REDUCE = Method(
    name="group_reduce",
    embedding=GroupReduceEmbedding,
    softmax=GroupReduceSoftmax,
    sizes=_sizes,
    smallest=lambda shape: {"group_sizes": (shape[0],), "group_ranks": (1,)},
    operations=_operations,
    device_axes={r"embeddings_\d+": 0, r"kernels_\d+": 0},
    formats_of_auto=("int8",),
    from_scratch=(
        FromScratch(
            sizes=_sizes_from_scratch,
            known={
                "embedding": "From scratch, 30 times smaller: RMSE 0.957 on "
                "MovieLens, dense 0.927; 81.3 % on SST-2, dense 82.1 "
                "(docs/from_scratch.md).",
                "softmax": "From scratch, an eighth of both tables: "
                "perplexity 198.8, dense 201.6, after one epoch of BBC News "
                "(docs/group_reduce.md).",
                "tied": "Not measured from scratch. An eighth of a trained "
                "table, trained further: 27.4 BLEU, dense 34.4 "
                "(docs/distilled.md).",
            },
        ),
    ),
)
