"""An embedding whose two sides may be two tables."""

from typing import Any

import keras
from keras import ops

from keras_embcomp.layers.base import CompressedEmbedding
from keras_embcomp.layers.softmax import CompressedSoftmax


@keras.saving.register_keras_serializable(package="keras_embcomp")
class TwoSidedEmbedding(keras.layers.Layer):
    """Takes the place of a `ReversibleEmbedding` that does more than tie.

    That is one with `tie_weights=False`, whose reverse side is a table of its
    own, or with `logit_soft_cap` or `reverse_dtype`. Each of the two tables is
    compressed or dense.

    Args:
        embedding: The input side: a compressed embedding, or an `Embedding`.
        head: The reverse side: a compressed softmax or a `Dense`, without
            activation and bias. `None` ties it to `embedding`.
        logit_soft_cap: Number or `None`. Logits become
            `tanh(logits / logit_soft_cap) * logit_soft_cap`.
        reverse_dtype: Dtype of the logits, or `None`. The head computes in its
            own compute dtype.
        **kwargs: Base layer keyword arguments, such as `name`.

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

    >>> words = LowRankEmbedding(10_000, 256, rank=32)
    >>> head = LowRankSoftmax(10_000, 64, activation=None, use_bias=False)
    >>> layer = TwoSidedEmbedding(words, head, logit_soft_cap=30)
    >>> layer(np.zeros((2, 256), "float32"), reverse=True).shape
    (2, 10000)
    """

    def __init__(
        self,
        embedding: keras.Layer,
        head: keras.Layer | None = None,
        logit_soft_cap: float | None = None,
        reverse_dtype: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(
            embedding, (CompressedEmbedding, keras.layers.Embedding)
        ):
            raise ValueError(
                "`embedding` must be an `Embedding` or a compressed one. "
                f"Received: embedding={embedding!r}"
            )
        if head is not None and not isinstance(
            head, (CompressedSoftmax, keras.layers.Dense)
        ):
            raise ValueError(
                "`head` must be a `Dense`, a compressed softmax or None. "
                f"Received: head={head!r}"
            )
        self.embedding = embedding
        self.head = head
        self.logit_soft_cap = logit_soft_cap
        self.reverse_dtype = reverse_dtype
        self.supports_masking = embedding.supports_masking
        self.autocast = False

    @property
    def input_dim(self) -> int:
        """Size of the vocabulary."""
        return self.embedding.input_dim

    @property
    def output_dim(self) -> int:
        """Width of an embedding."""
        return self.embedding.output_dim

    @property
    def mask_zero(self) -> bool:
        """Whether id 0 is padding, to be masked."""
        return self.embedding.mask_zero

    @property
    def tie_weights(self) -> bool:
        """Whether both sides are one table."""
        return self.head is None

    def build(self, input_shape=None):
        if not self.embedding.built:
            self.embedding.build(input_shape)
        if self.head is not None and not self.head.built:
            self.head.build((None, self.output_dim))

    def call(self, inputs, reverse=False):
        if not reverse:
            return self.embedding(inputs)
        if self.head is None:
            logits = self.embedding(inputs, reverse=True)
        else:
            logits = self.head(inputs)
        if self.reverse_dtype is not None:
            logits = ops.cast(logits, self.reverse_dtype)
        if self.logit_soft_cap is not None:
            cap = self.logit_soft_cap
            logits = ops.multiply(ops.tanh(ops.divide(logits, cap)), cap)
        return logits

    def compute_mask(self, inputs, mask=None):
        return self.embedding.compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape, reverse=False):
        if reverse:
            return (*input_shape[:-1], self.input_dim)
        return (*input_shape, self.output_dim)

    def compute_output_spec(self, inputs, reverse=False):
        dtype = self.embedding.compute_dtype
        if reverse and self.reverse_dtype is not None:
            dtype = self.reverse_dtype
        shape = self.compute_output_shape(inputs.shape, reverse)
        return keras.KerasTensor(shape, dtype=dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "embedding": keras.saving.serialize_keras_object(self.embedding),
            "head": keras.saving.serialize_keras_object(self.head),
            "logit_soft_cap": self.logit_soft_cap,
            "reverse_dtype": self.reverse_dtype,
        }

    @classmethod
    def from_config(cls, config):
        layers = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("embedding", "head")
        }
        return cls(**{**config, **layers})
