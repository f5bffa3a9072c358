"""GroupReduce: frequent words in groups of a higher rank than rare ones."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_embcomp.layers.base import CompressedEmbedding
from keras_embcomp.layers.group_reduce.table import GroupReduceTable
from keras_embcomp.layers.softmax import CompressedSoftmax


@keras.saving.register_keras_serializable(package="keras_embcomp")
class GroupReduceEmbedding(GroupReduceTable, CompressedEmbedding):
    """Embeds ids by low-rank factors of the group that a word is in.

    Words are in groups by frequency. A group of `n` words and rank `k` is the
    product of a matrix of shape `(n, k)` and one of shape `(k, output_dim)`;
    where these would be no smaller than `(n, output_dim)`, it is stored dense.
    Frequent words get high ranks, the many rare ones a low one.

    Called with `reverse=True` it returns `hidden @ table.T`.

    Args:
        input_dim: Integer. Size of the vocabulary.
        output_dim: Integer. Width of an embedding.
        group_sizes: Integers that sum to `input_dim`: the first group holds
            the ids from 0, and so on.
        group_ranks: A rank for each group, at most its size and `output_dim`.
            `keras_embcomp.budgets` turns a budget into both.
        permuted: Boolean. Whether the groups hold any ids, not ranges of
            them: the place of each id is then stored, as int32.
        embeddings_initializer: Initializer of the matrices of words.
        projections_initializer: Initializer of the projections.
        embeddings_regularizer: Regularizer of the matrices of words.
        projections_regularizer: Regularizer of the projections.
        embeddings_constraint: Constraint of the matrices of words.
        projections_constraint: Constraint of the projections.
        mask_zero: Boolean. Whether id 0 is padding, to be masked.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Integer ids, or hidden states if `reverse`.
        reverse: Boolean. Whether to project hidden states to the vocabulary.

    Input shape:
        Integer tensor of any shape; with `reverse=True`, a float tensor of
        shape `(..., output_dim)`.

    Output shape:
        The input shape with `output_dim` appended; with `reverse=True`,
        `(..., input_dim)`.

    Example:

    >>> layer = GroupReduceEmbedding(
    ...     10_000, 256, group_sizes=(1_000, 9_000), group_ranks=(100, 10)
    ... )
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 256)
    >>> round(layer.compression_ratio, 1)
    11.7

    Reference:
    - [Chen et al., 2018](https://arxiv.org/abs/1806.06950)
    """

    _words = "embeddings"

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        group_sizes: Sequence[int],
        group_ranks: Sequence[int],
        permuted: bool = False,
        embeddings_initializer: Any = "uniform",
        projections_initializer: Any = "lecun_normal",
        embeddings_regularizer: Any = None,
        projections_regularizer: Any = None,
        embeddings_constraint: Any = None,
        projections_constraint: Any = None,
        mask_zero: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, mask_zero=mask_zero, **kwargs)
        self._set_structure(
            group_sizes,
            group_ranks,
            permuted,
            embeddings_initializer=embeddings_initializer,
            projections_initializer=projections_initializer,
            embeddings_regularizer=embeddings_regularizer,
            projections_regularizer=projections_regularizer,
            embeddings_constraint=embeddings_constraint,
            projections_constraint=projections_constraint,
        )
        self._check_width("output_dim", self.output_dim)


@keras.saving.register_keras_serializable(package="keras_embcomp")
class GroupReduceSoftmax(GroupReduceTable, CompressedSoftmax):
    """A softmax over the vocabulary whose groups of units have low ranks.

    A group's logits cost two thin products. `top_k` and `log_prob` need not
    even put the groups' logits together.

    Args:
        units: Integer. Size of the vocabulary.
        group_sizes: Integers that sum to `units`, the most frequent first.
        group_ranks: A rank for each group, at most its size and the width of
            the input. See `GroupReduceEmbedding`.
        permuted: Boolean. Whether the groups hold any units, not ranges of
            them. To put the logits back in order makes them slower.
        activation: Activation function. `None` gives logits.
        use_bias: Boolean. Whether each unit has a bias.
        kernels_initializer: Initializer of the matrices of units.
        projections_initializer: Initializer of the projections.
        kernels_regularizer: Regularizer of the matrices of units.
        projections_regularizer: Regularizer of the projections.
        kernels_constraint: Constraint of the matrices of units.
        projections_constraint: Constraint of the projections.
        **kwargs: `bias_initializer`, `bias_regularizer` and `bias_constraint`
            as for `keras.layers.Dense`, and base layer keyword arguments, such
            as `name` and `dtype`.

    Input shape:
        Float tensor of shape `(batch, ..., width)`.

    Output shape:
        `(batch, ..., units)`.

    Example:

    >>> layer = GroupReduceSoftmax(
    ...     10_000, group_sizes=(1_000, 9_000), group_ranks=(100, 10)
    ... )
    >>> layer(np.zeros((2, 256), "float32")).shape
    (2, 10000)
    >>> scores, ids = layer.top_k(np.zeros((2, 256), "float32"), 5)

    Reference:
    - [Chen et al., 2018](https://arxiv.org/abs/1806.06950)
    """

    _words = "kernels"

    def __init__(
        self,
        units: int,
        group_sizes: Sequence[int],
        group_ranks: Sequence[int],
        permuted: bool = False,
        activation: Any = "softmax",
        use_bias: bool = True,
        kernels_initializer: Any = "glorot_uniform",
        projections_initializer: Any = "lecun_normal",
        kernels_regularizer: Any = None,
        projections_regularizer: Any = None,
        kernels_constraint: Any = None,
        projections_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation=activation, use_bias=use_bias, **kwargs
        )
        self._set_structure(
            group_sizes,
            group_ranks,
            permuted,
            kernels_initializer=kernels_initializer,
            projections_initializer=projections_initializer,
            kernels_regularizer=kernels_regularizer,
            projections_regularizer=projections_regularizer,
            kernels_constraint=kernels_constraint,
            projections_constraint=projections_constraint,
        )
