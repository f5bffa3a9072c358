"""Low rank: the table is the product of two thin matrices."""

from typing import Any

import keras

from keras_embcomp.layers.base import CompressedEmbedding
from keras_embcomp.layers.low_rank.table import LowRankTable
from keras_embcomp.layers.softmax import CompressedSoftmax


@keras.saving.register_keras_serializable(package="keras_embcomp")
class LowRankEmbedding(LowRankTable, CompressedEmbedding):
    """Embeds ids in a narrow space, then projects them to `output_dim`.

    The table is the product of `embeddings`, of shape `(input_dim, rank)`, and
    `projection`, of shape `(rank, output_dim)`: `rank * (input_dim +
    output_dim)` parameters. A lookup gathers narrow rows, then multiplies.

    Called with `reverse=True` it is the tied output layer: it returns
    `hidden @ table.T`.

    Args:
        input_dim: Integer. Size of the vocabulary.
        output_dim: Integer. Width of an embedding.
        rank: Integer. Width of the narrow space, at most `output_dim`.
        embeddings_initializer: Initializer of `embeddings`.
        projection_initializer: Initializer of `projection`. The default gives
            the table's entries the variance that `embeddings_initializer` asks
            for.
        embeddings_regularizer: Regularizer of `embeddings`.
        projection_regularizer: Regularizer of `projection`.
        embeddings_constraint: Constraint of `embeddings`.
        projection_constraint: Constraint of `projection`.
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

    >>> layer = LowRankEmbedding(10_000, 256, rank=32)
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 256)
    >>> round(layer.compression_ratio, 1)
    7.8

    Reference:
    - [Acharya et al., 2019](https://arxiv.org/abs/1811.00641)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        rank: int,
        embeddings_initializer: Any = "uniform",
        projection_initializer: Any = "lecun_normal",
        embeddings_regularizer: Any = None,
        projection_regularizer: Any = None,
        embeddings_constraint: Any = None,
        projection_constraint: Any = None,
        mask_zero: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, mask_zero=mask_zero, **kwargs)
        self._set_structure(
            rank,
            embeddings_initializer=embeddings_initializer,
            projection_initializer=projection_initializer,
            embeddings_regularizer=embeddings_regularizer,
            projection_regularizer=projection_regularizer,
            embeddings_constraint=embeddings_constraint,
            projection_constraint=projection_constraint,
        )
        self._check_width("output_dim", self.output_dim)


@keras.saving.register_keras_serializable(package="keras_embcomp")
class LowRankSoftmax(LowRankTable, CompressedSoftmax):
    """A softmax over the vocabulary through a narrow space.

    The table, a `Dense` kernel transposed, is the product of `embeddings`, of
    shape `(units, rank)`, and `projection`, of shape `(rank, width)`, where
    `width` is the last dimension of the input. A token costs
    `2 * rank * (units + width)` operations in place of `2 * units * width`.

    Args:
        units: Integer. Size of the vocabulary.
        rank: Integer. Width of the narrow space, at most that of the input.
        activation: Activation function. `None` gives logits.
        use_bias: Boolean. Whether each unit has a bias.
        embeddings_initializer: Initializer of `embeddings`.
        projection_initializer: Initializer of `projection`. The default gives
            the table's entries the variance that `embeddings_initializer` asks
            for.
        embeddings_regularizer: Regularizer of `embeddings`.
        projection_regularizer: Regularizer of `projection`.
        embeddings_constraint: Constraint of `embeddings`.
        projection_constraint: Constraint of `projection`.
        **kwargs: `bias_initializer`, `bias_regularizer` and `bias_constraint`
            as for `keras.layers.Dense`, and base layer keyword arguments, such
            as `name` and `dtype`.

    Input shape:
        Float tensor of shape `(batch, ..., width)`.

    Output shape:
        `(batch, ..., units)`.

    Example:

    >>> layer = LowRankSoftmax(10_000, rank=32)
    >>> layer(np.zeros((2, 256), "float32")).shape
    (2, 10000)

    Reference:
    - [Acharya et al., 2019](https://arxiv.org/abs/1811.00641)
    """

    def __init__(
        self,
        units: int,
        rank: int,
        activation: Any = "softmax",
        use_bias: bool = True,
        embeddings_initializer: Any = "glorot_uniform",
        projection_initializer: Any = "lecun_normal",
        embeddings_regularizer: Any = None,
        projection_regularizer: Any = None,
        embeddings_constraint: Any = None,
        projection_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation=activation, use_bias=use_bias, **kwargs
        )
        self._set_structure(
            rank,
            embeddings_initializer=embeddings_initializer,
            projection_initializer=projection_initializer,
            embeddings_regularizer=embeddings_regularizer,
            projection_regularizer=projection_regularizer,
            embeddings_constraint=embeddings_constraint,
            projection_constraint=projection_constraint,
        )
