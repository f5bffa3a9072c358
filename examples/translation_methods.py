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
from keras_embcomp.budgets import (
    distilled_rank,
    group_ranks_by_error,
    growing_groups,
    low_rank_from_fraction,
    tensor_train_rank,
)

NUM_GROUPS = 5


def distilled(layer, ratio, counts, hidden_dim=None, **kwargs):
    """Returns the paper's form, with its two biases, or a hidden layer."""
    size, width = layer.input_dim, layer.output_dim
    rank = distilled_rank(size, width, size * width / ratio, hidden_dim)
    return DistilledEmbedding.from_layer(
        layer, rank=rank, hidden_dim=hidden_dim, frequencies=counts, **kwargs
    )


def hidden(layer, ratio, counts, **kwargs):
    """Returns rows decoded by a hidden layer.

    Its width is a power of two, at most that of the table, with which the
    decoder takes no more than a third of the numbers. Square roots of the
    counts leave a model better than the counts do.
    """
    width = layer.output_dim
    most = min(layer.input_dim / (3 * ratio), width)
    hidden_dim = 2 ** max(int(np.log2(most)), 0)
    return distilled(layer, ratio, np.sqrt(counts), hidden_dim, **kwargs)


def low_rank(layer, ratio, counts):
    """Returns a truncated SVD whose errors are weighed by the counts."""
    rank = low_rank_from_fraction(layer.input_dim, layer.output_dim, 1 / ratio)
    return LowRankEmbedding.from_layer(layer, rank=rank, frequencies=counts)


def group_reduce(layer, ratio, counts):
    """Returns groups by frequency, whose permutation counts too.

    Square roots of the counts leave a model better than the counts do.
    """
    counts = np.sqrt(counts)
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
    rank = tensor_train_rank(size, width, size * width / ratio)
    train = TTEmbedding(size, width, rank, name=layer.name)
    train.build()
    return train


METHODS = {
    "distilled": distilled,
    "hidden layer": hidden,
    "low rank": low_rank,
    "GroupReduce": group_reduce,
    "tensor train": tensor_train,
}


def token_counts(data, size):
    """Returns how often each id comes in sources and targets."""
    inputs, targets = data
    counts = np.bincount(inputs["source"].ravel(), minlength=size)
    counts += np.bincount(targets.ravel(), minlength=size)
    counts[PADDING] = counts[counts > 0].min()
    return counts


def dense_tokens(size, width):
    """Returns a tied table to train from scratch."""
    return keras.layers.ReversibleEmbedding(size, width, name="tokens")
