"""An output layer over the frequent part of a vocabulary."""

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_embcomp._compat import is_reversible
from keras_embcomp._types import Array, ArrayLike, Tensor
from keras_embcomp.checks import at_most, frequency_weights, positive_int
from keras_embcomp.layers.base import Compressed, CompressedEmbedding
from keras_embcomp.layers.from_keras import embedding_parts
from keras_embcomp.layers.rows import with_rows
from keras_embcomp.layers.softmax import CompressedSoftmax


@keras.saving.register_keras_serializable(package="keras_embcomp")
class FrequentHead(keras.layers.Layer):
    """Scores some units of an output layer, and gives back their ids.

    A draft model for speculative decoding, or a phone, needs the best words,
    and nearly always they are frequent ones. The head of 32,768 words of
    128,256 reads and multiplies a quarter.

    Args:
        head: The layer that scores them: a `Dense`, a compressed softmax, or a
            compressed embedding that is called with `reverse=True`.
        ids: Integer array: the id of each of its units. It may be left out to
            load weights.
        **kwargs: Base layer keyword arguments, such as `name`.

    Call arguments:
        inputs: Hidden states.

    Input shape:
        Float tensor of shape `(batch, ..., width)`.

    Output shape:
        `(batch, ..., size)`: what `head` returns, for the unit `i` that of the
        word `ids[i]`.

    Example:

    >>> words = LowRankSoftmax(10_000, rank=8, activation=None)
    >>> words.build((None, 32))
    >>> head = FrequentHead.from_layer(words, np.arange(0, 10_000, 10))
    >>> scores, ids = head.top_k(np.ones((2, 32), "float32"), 3)
    >>> bool(np.all(np.asarray(ids) % 10 == 0))
    True

    Reference:
    - [Zhao et al., 2025](https://arxiv.org/abs/2502.14856) (FR-Spec)
    """

    def __init__(
        self, head: keras.Layer, ids: ArrayLike | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(head, (keras.layers.Dense, Compressed)):
            raise ValueError(
                "`head` must be a `Dense` or a compressed layer. "
                f"Received: head={head!r}"
            )
        self.head = head
        self._start = ids
        self.ids: Any = None

    @property
    def size(self) -> int:
        """How many words it scores."""
        if isinstance(self.head, CompressedEmbedding):
            return self.head.input_dim
        return self.head.units

    @classmethod
    def from_layer(
        cls,
        layer: keras.Layer,
        ids: ArrayLike | None = None,
        counts: ArrayLike | None = None,
        size: int | None = None,
        **kwargs: Any,
    ) -> Self:
        """Returns a built head with some units of an output layer.

        Args:
            layer: A built `Dense`, tied `ReversibleEmbedding`, or compressed
                layer.
            ids: The ids of the words. `None` takes the `size` most frequent.
            counts: Counts of shape `(vocabulary,)`, with `size`.
            size: Integer. How many words.
            **kwargs: Arguments of the constructor.

        Raises:
            ValueError: if the layer is another, or the ids do not fit it.
        """
        vocabulary = _vocabulary(layer)
        if ids is None:
            ids = _most_frequent(counts, size, vocabulary)
        rows = np.asarray(ids)
        if rows.dtype.kind not in "iu" or rows.ndim != 1 or not len(rows):
            raise ValueError(
                "`ids` must be a list of integer ids. Received: ids of shape "
                f"{rows.shape} and dtype {rows.dtype}"
            )
        if rows.min() < 0 or rows.max() >= vocabulary:
            raise ValueError(
                f"`ids` must be below {vocabulary}. Received: ids from "
                f"{rows.min()} to {rows.max()}"
            )
        kwargs.setdefault("name", f"{layer.name}_frequent")
        head = cls(_with_units(layer, rows), rows, **kwargs)
        head.build()
        return head

    def build(self, input_shape=None):
        if not self.head.built:
            self.head.build(input_shape)
        start = np.zeros(self.size) if self._start is None else self._start
        self.ids = self.add_weight(
            name="ids",
            shape=(self.size,),
            dtype="int32",
            initializer=lambda shape, dtype: ops.cast(start, dtype),
            trainable=False,
        )

    def call(self, inputs):
        if isinstance(self.head, CompressedEmbedding):
            return self.head(inputs, reverse=True)
        return self.head(inputs)

    def top_k(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Returns the `k` best of its words.

        Args:
            hidden: Float tensor of shape `(..., width)`.
            k: Integer, at most `size`.

        Returns:
            The scores, falling, and the ids in the whole vocabulary, both of
            shape `(..., k)`. Scores are logits with the bias if the head is
            compressed, else what the layer returns.
        """
        at_most("k", positive_int("k", k), "size", self.size)
        if isinstance(self.head, (CompressedEmbedding, CompressedSoftmax)):
            scores, units = self.head.top_k(hidden, k)
        else:
            scores, units = ops.top_k(self.head(hidden), k)
        return scores, ops.take(self.ids, units, axis=0)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.size)

    def get_config(self):
        return {
            **super().get_config(),
            "head": keras.saving.serialize_keras_object(self.head),
        }

    @classmethod
    def from_config(cls, config):
        head = keras.saving.deserialize_keras_object(config["head"])
        return cls(**{**config, "head": head})


def _vocabulary(layer):
    if isinstance(layer, Compressed):
        return layer.dense_shape[0]
    if isinstance(layer, keras.layers.Dense) and layer.built:
        return layer.units
    if is_reversible(layer) and layer.built:
        return layer.input_dim
    raise ValueError(
        "`layer` must be a built `Dense`, `ReversibleEmbedding` or compressed "
        f"layer. Received: layer={layer!r}"
    )


def _most_frequent(counts: Any, size: Any, vocabulary: int) -> Array:
    if counts is None or size is None:
        raise ValueError(
            "`ids`, or `counts` and `size`, must be given. Received: "
            f"ids=None, counts={counts}, size={size}"
        )
    weights = frequency_weights(counts, vocabulary)
    at_most("size", positive_int("size", size), "vocabulary", vocabulary)
    return np.sort(np.argsort(-weights, kind="stable")[:size])


def _with_units(layer, rows):
    """Returns a built output layer with some units of another."""
    if isinstance(layer, Compressed):
        return with_rows(layer, rows)
    if isinstance(layer, keras.layers.Dense):
        new = type(layer).from_config(
            {**layer.get_config(), "units": len(rows)}
        )
        new.build((None, layer.kernel.shape[0]))
        weights = [w[..., rows] for w in layer.get_weights()]
        new.set_weights(weights)
        return new
    table, arguments = embedding_parts(layer)
    new = keras.layers.Dense(
        len(rows), use_bias=False, name=layer.name, dtype=arguments["dtype"]
    )
    new.build((None, table.shape[1]))
    new.set_weights([table[rows].T])
    return new
