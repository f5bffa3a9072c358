"""Distilled: rows decoded from narrow ones by a non-linear map."""

from typing import Any

import keras
from keras import activations

from keras_embcomp.layers.base import CompressedEmbedding
from keras_embcomp.layers.distilled.table import DistilledTable
from keras_embcomp.layers.softmax import CompressedSoftmax


@keras.saving.register_keras_serializable(package="keras_embcomp")
class DistilledEmbedding(DistilledTable, CompressedEmbedding):
    """Embeds ids in a narrow space, then decodes them with a non-linear map.

    The table is `activation(embeddings + hidden_bias) @ projection +
    projection_bias`, with `rank * (input_dim + output_dim + 1) + output_dim`
    parameters. It has rank `rank`, and one more with the bias: it can be no
    nearer to a table than a truncated SVD, but trains better, above all with
    `EmbeddingDistiller`.

    With `hidden_dim`, beyond the paper, a row `u` of `embeddings` stands for
    `activation(u @ hidden_kernel + hidden_bias) @ projection + u @ shortcut +
    projection_bias`, of any rank: at equal parameters it is nearer to real
    tables than the SVD.

    Called with `reverse=True` it is the tied output layer: it returns
    `hidden @ table.T`.

    Args:
        input_dim: Integer. Size of the vocabulary.
        output_dim: Integer. Width of an embedding.
        rank: Integer. Width of the narrow space, at most `output_dim`.
        activation: Activation function of the decoder.
        hidden_dim: Integer. Width of the decoder's hidden layer, or `None` for
            the paper's form.
        embeddings_initializer: Initializer of `embeddings`. Without
            `hidden_dim` entries should start above -0.05, where the bias
            lifts them above 0: a row that ReLU starts at 0 never learns.
        projection_initializer: Initializer of `projection`.
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

    >>> layer = DistilledEmbedding(32_000, 512, rank=64)
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 512)
    >>> round(layer.compression_ratio, 2)
    7.87

    Reference:
    - [Lioutas et al., 2020](https://arxiv.org/abs/1910.06720)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        rank: int,
        activation: Any = "relu",
        hidden_dim: int | None = None,
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
            activation,
            hidden_dim,
            embeddings_initializer=embeddings_initializer,
            projection_initializer=projection_initializer,
            embeddings_regularizer=embeddings_regularizer,
            projection_regularizer=projection_regularizer,
            embeddings_constraint=embeddings_constraint,
            projection_constraint=projection_constraint,
        )
        self._check_width("output_dim", self.output_dim)

    @property
    def activation(self):
        """The activation function of the decoder."""
        return self.decoder_activation

    def get_config(self):
        return {
            **super().get_config(),
            "activation": activations.serialize(self.activation),
        }


@keras.saving.register_keras_serializable(package="keras_embcomp")
class DistilledSoftmax(DistilledTable, CompressedSoftmax):
    """A softmax over the vocabulary whose units are decoded from narrow rows.

    The table, a `Dense` kernel transposed, is that of `DistilledEmbedding`.
    Without `hidden_dim` a token costs `2 * rank * (units + width)` operations.
    With it, and for few tokens, `2 * hidden_dim * (units + width)`; for more,
    the table is decoded once a step, in parts.

    Args:
        units: Integer. Size of the vocabulary.
        rank: Integer. Width of the narrow space, at most that of the input.
        decoder_activation: Activation function of the decoder.
        hidden_dim: Integer. Width of the decoder's hidden layer, or `None` for
            the paper's form.
        activation: Activation function. `None` gives logits.
        use_bias: Boolean. Whether each unit has a bias.
        embeddings_initializer: As in `DistilledEmbedding`.
        projection_initializer: Initializer of `projection`.
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

    >>> layer = DistilledSoftmax(10_000, rank=32)
    >>> layer(np.zeros((2, 256), "float32")).shape
    (2, 10000)

    Reference:
    - [Lioutas et al., 2020](https://arxiv.org/abs/1910.06720)
    """

    def __init__(
        self,
        units: int,
        rank: int,
        decoder_activation: Any = "relu",
        hidden_dim: int | None = None,
        activation: Any = "softmax",
        use_bias: bool = True,
        embeddings_initializer: Any = "uniform",
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
            decoder_activation,
            hidden_dim,
            embeddings_initializer=embeddings_initializer,
            projection_initializer=projection_initializer,
            embeddings_regularizer=embeddings_regularizer,
            projection_regularizer=projection_regularizer,
            embeddings_constraint=embeddings_constraint,
            projection_constraint=projection_constraint,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "decoder_activation": activations.serialize(
                self.decoder_activation
            ),
        }
