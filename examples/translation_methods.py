"""Tables of one size for a translation model, by each method."""

import keras
import numpy as np
from keras import ops
from translation_data import PADDING

from keras_embcomp import (
    DistilledEmbedding,
    GroupReduceEmbedding,
    LowRankEmbedding,
    TTEmbedding,
)
from keras_embcomp.numerics.budget import (
    distilled_rank,
    group_ranks_by_error,
    growing_groups,
    low_rank_from_fraction,
)

NUM_GROUPS = 5


def distilled(layer, ratio, counts, **kwargs):
    """Returns the paper's form, with its two biases."""
    size, width = layer.input_dim, layer.output_dim
    rank = distilled_rank(size, width, size * width / ratio)
    return DistilledEmbedding.from_layer(layer, rank=rank, **kwargs)


def low_rank(layer, ratio, counts):
    """Returns a truncated SVD."""
    rank = low_rank_from_fraction(layer.input_dim, layer.output_dim, 1 / ratio)
    return LowRankEmbedding.from_layer(layer, rank=rank)


def group_reduce(layer, ratio, counts):
    """Returns groups by frequency, whose permutation counts too."""
    table = ops.convert_to_numpy(layer.embeddings)
    sizes = growing_groups(len(table), NUM_GROUPS)
    budget = int(table.size / ratio) - len(table)
    return GroupReduceEmbedding.from_layer(
        layer,
        group_sizes=sizes,
        group_ranks=group_ranks_by_error(table, sizes, budget, counts),
        frequencies=counts,
    )


def tensor_train(layer, ratio, counts):
    """Returns an untrained tensor train of three cores, as in the paper."""
    size, width = layer.input_dim, layer.output_dim

    def of_rank(rank):
        train = TTEmbedding(size, width, rank, name=layer.name)
        train.build()
        return train

    low, high = 1, width
    while low < high:
        middle = (low + high + 1) // 2
        fits = of_rank(middle).compression_ratio >= ratio
        low, high = (middle, high) if fits else (low, middle - 1)
    return of_rank(low)


METHODS = {
    "distilled": distilled,
    "low rank": low_rank,
    "GroupReduce": group_reduce,
    "tensor train": tensor_train,
}


def token_counts(data, size):
    """Returns how often each id comes in sources and targets."""
    inputs, targets, _ = data
    counts = np.bincount(inputs["source"].ravel(), minlength=size)
    counts += np.bincount(targets.ravel(), minlength=size)
    counts[PADDING] = counts[counts > 0].min()
    return counts


def dense_tokens(size, width):
    """Returns a tied table to train from scratch."""
    return keras.layers.ReversibleEmbedding(size, width, name="tokens")
