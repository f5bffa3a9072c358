"""Small tables of every method: untrained ones, and ones fitted to a table.

`UNTRAINED` has the layers of both sides of a model that is trained from
scratch. `FITTED` has functions of a trained embedding, a ratio and the counts
of its ids, which return an embedding that is as many times smaller.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from keras import ops

import keras_embcomp
from keras_embcomp import (
    DistilledEmbedding,
    GroupReduceEmbedding,
    LowRankEmbedding,
    TTEmbedding,
)
from keras_embcomp.budgets import (
    distilled_rank,
    group_ranks_by_error,
    group_ranks_by_frequency,
    growing_groups,
    low_rank_from_fraction,
    tensor_train_rank,
)

NUM_GROUPS = 5


class Method(NamedTuple):
    """The classes of a method, and its sizes.

    Attributes:
        name: The start of the names of both classes.
        sizes: A function of the vocabulary, the width and whether it is an
            output layer. It returns the structural arguments.
    """

    name: str
    sizes: Callable

    def embedding(self, size, width):
        layer = getattr(keras_embcomp, f"{self.name}Embedding")
        return layer(size, width, **self.sizes(size, width, False))

    def softmax(self, size, width):
        """Returns an output layer for hidden states of a width."""
        layer = getattr(keras_embcomp, f"{self.name}Softmax")
        return layer(size, **self.sizes(size, width, True))


def zipf_groups(size, width, output=False):
    """Returns four groups at an eighth of the size, for Zipf's law."""
    sizes = growing_groups(size, 4)
    ranks = group_ranks_by_frequency(
        sizes, width, size * width // 8, 1 / np.arange(1, size + 1)
    )
    return {"group_sizes": sizes, "group_ranks": ranks}


UNTRAINED = {
    "low_rank": Method("LowRank", lambda *_: {"rank": 16}),
    "tensor_train": Method("TT", lambda *_: {"tt_ranks": 32}),
    "hashed": Method(
        "Hashed", lambda size, *_: {"num_subvectors": size, "num_parts": 8}
    ),
    "product_codes": Method(
        "ProductQuantized",
        lambda _, width, output: {"num_parts": 16, "part_width": width // 16},
    ),
    "distilled": Method(
        "Distilled",
        lambda _, width, output: {
            "rank": 16,
            "hidden_dim": None if output else width,
        },
    ),
    "group_reduce": Method("GroupReduce", zipf_groups),
}


def distilled(layer, ratio, counts, hidden_dim=None, **kwargs):
    """Returns the paper's form, with its two biases, or a hidden layer."""
    size, width = layer.input_dim, layer.output_dim
    rank = distilled_rank(size, width, size * width / ratio, hidden_dim)
    return DistilledEmbedding.from_layer(
        layer, rank=rank, hidden_dim=hidden_dim, frequencies=counts, **kwargs
    )


def hidden(layer, ratio, counts, **kwargs):
    """Returns rows decoded by a hidden layer.

    Its width is the largest power of two that does not exceed the table's, and
    for which the decoder takes at most a third of the numbers. Square roots of
    the counts give a better model than the counts.
    """
    width = layer.output_dim
    most = min(layer.input_dim / (3 * ratio), width)
    hidden_dim = 2 ** max(int(np.log2(most)), 0)
    return distilled(layer, ratio, np.sqrt(counts), hidden_dim, **kwargs)


def low_rank(layer, ratio, counts):
    """Returns a truncated SVD whose errors are weighted by the counts."""
    rank = low_rank_from_fraction(layer.input_dim, layer.output_dim, 1 / ratio)
    return LowRankEmbedding.from_layer(layer, rank=rank, frequencies=counts)


def group_reduce(layer, ratio, counts):
    """Returns groups by frequency; the permutation is part of the budget.

    Square roots of the counts give a better model than the counts.
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


FITTED = {
    "distilled": distilled,
    "hidden layer": hidden,
    "low rank": low_rank,
    "GroupReduce": group_reduce,
    "tensor train": tensor_train,
}
