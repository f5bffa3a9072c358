"""Shared sub-vectors: words are pieces out of a pool, at random (Slim)."""

from typing import Any

import keras

from keras_embcomp.layers.base import CompressedEmbedding
from keras_embcomp.layers.hashed.table import HashedTable
from keras_embcomp.layers.softmax import CompressedSoftmax


@keras.saving.register_keras_serializable(package="keras_embcomp")
class HashedEmbedding(HashedTable, CompressedEmbedding):
    """Embeds ids by pieces out of a pool of shared sub-vectors.

    A row is `num_parts` sub-vectors, one after the other. Which ones is random,
    balanced, fixed by `seed` and computed from the id, so that it takes no
    space. The pool holds `num_subvectors * output_dim / num_parts` parameters,
    whatever the vocabulary. It is meant to be trained from scratch.

    Called with `reverse=True` it is the tied output layer: it returns
    `hidden @ table.T`.

    Args:
        input_dim: Integer. Size of the vocabulary.
        output_dim: Integer. Width of an embedding.
        num_subvectors: Integer. Size of the pool, at most
            `input_dim * num_parts`. The layer has `num_subvectors /
            (input_dim * num_parts)` of the dense layer's parameters, and
            private rows.
        num_parts: Integer. Pieces of a row; it divides `output_dim`.
        seed: Integer. The assignment of sub-vectors to words.
        shared_pool: Boolean. Whether the parts draw from one pool, as in the
            input layer of the paper. `False` splits it into one for each part,
            as in its output layer: `reverse=True` is then `num_parts` times
            cheaper.
        subvectors_initializer: Initializer of the pool.
        subvectors_regularizer: Regularizer of the pool.
        subvectors_constraint: Constraint of the pool.
        mask_zero: Boolean. Whether id 0 is padding, to be masked.
        num_private: Integer. How many words, the first ones, have rows of
            their own, `output_dim` parameters each. Words of vocabularies that
            Keras' `StringLookup` and `TextVectorization` make are in the order
            of their counts. At least one word is not private.
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

    >>> layer = HashedEmbedding(10_000, 300, num_subvectors=5_000, num_parts=10)
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 300)
    >>> layer.compression_ratio
    20.0

    References:
    - [Li et al., 2018](https://arxiv.org/abs/1711.09873)
    - Rows of their own for the most frequent:
      [Zhang et al., 2023](https://arxiv.org/abs/2312.03256)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        num_subvectors: int,
        num_parts: int = 8,
        seed: int = 0,
        shared_pool: bool = True,
        subvectors_initializer: Any = "uniform",
        subvectors_regularizer: Any = None,
        subvectors_constraint: Any = None,
        mask_zero: bool = False,
        num_private: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, mask_zero=mask_zero, **kwargs)
        self._set_structure(
            num_subvectors,
            num_parts,
            seed,
            shared_pool,
            num_private,
            subvectors_initializer=subvectors_initializer,
            subvectors_regularizer=subvectors_regularizer,
            subvectors_constraint=subvectors_constraint,
        )
        self._check_width("output_dim", self.output_dim)

    def get_config(self):
        return {**super().get_config(), "shared_pool": self.shared_pool}


@keras.saving.register_keras_serializable(package="keras_embcomp")
class HashedSoftmax(HashedTable, CompressedSoftmax):
    """A softmax over the vocabulary whose kernel is made of shared pieces.

    Each part of the hidden state is multiplied with its own pool once, and the
    logit of a word is the sum of one product for each part: a token costs
    `2 * num_subvectors * width / num_parts + units * num_parts` operations in
    place of `2 * units * width`. For more tokens than the width, the table is
    built once in the step and multiplied, which is faster then.

    Args:
        units: Integer. Size of the vocabulary.
        num_subvectors: Integer. Size of the pools together, at most
            `units * num_parts`; the first ones hold one more where
            `num_parts` does not divide it.
        num_parts: Integer. Pieces of a row; it divides the width of the input.
        seed: Integer. The assignment of sub-vectors to words.
        activation: Activation function. `None` gives logits.
        use_bias: Boolean. Whether each unit has a bias.
        subvectors_initializer: Initializer of the pools.
        subvectors_regularizer: Regularizer of the pools.
        subvectors_constraint: Constraint of the pools.
        num_private: Integer. How many units, the first ones, have rows of
            their own: see `HashedEmbedding`.
        **kwargs: `bias_initializer`, `bias_regularizer` and `bias_constraint`
            as for `keras.layers.Dense`, and base layer keyword arguments, such
            as `name` and `dtype`.

    Input shape:
        Float tensor of shape `(batch, ..., width)`.

    Output shape:
        `(batch, ..., units)`.

    Example:

    >>> layer = HashedSoftmax(10_000, num_subvectors=10_000, num_parts=8)
    >>> layer(np.zeros((2, 256), "float32")).shape
    (2, 10000)

    Reference:
    - [Li et al., 2018](https://arxiv.org/abs/1711.09873), Algorithm 1
    """

    def __init__(
        self,
        units: int,
        num_subvectors: int,
        num_parts: int = 8,
        seed: int = 0,
        activation: Any = "softmax",
        use_bias: bool = True,
        subvectors_initializer: Any = "uniform",
        subvectors_regularizer: Any = None,
        subvectors_constraint: Any = None,
        num_private: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation=activation, use_bias=use_bias, **kwargs
        )
        self._set_structure(
            num_subvectors,
            num_parts,
            seed,
            False,
            num_private,
            subvectors_initializer=subvectors_initializer,
            subvectors_regularizer=subvectors_regularizer,
            subvectors_constraint=subvectors_constraint,
        )
