"""The protocol: a compressed layer is a dense table in fewer numbers.

A class here is abstract. A final class, one for each method and side, writes
the methods that raise `NotImplementedError` and overrides nothing else but
`__init__` and `get_config`, which chain to `super()`.
"""

import math

import keras
import numpy as np
from keras import constraints, initializers, ops, regularizers
from keras.src.backend import set_keras_mask

from keras_embcomp.checks import positive_int
from keras_embcomp.layers.from_keras import embedding_parts
from keras_embcomp.layers.quantization import FactorFormats

_GETTERS = {
    "initializer": initializers.get,
    "regularizer": regularizers.get,
    "constraint": constraints.get,
}


def weight_bytes(weights) -> int:
    """Returns the bytes of weights as they are stored."""
    return sum(
        math.prod(weight.shape) * np.dtype(weight.dtype).itemsize
        for weight in weights
    )


class Compressed(FactorFormats):
    """Stands for a dense table of shape `(vocabulary, width)`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._part_names = ()

    def set_parts(self, **parts):
        """Keeps the `<weight>_initializer`, `_regularizer`, `_constraint`s.

        Each becomes an attribute and a key of the config.
        """
        for name, part in parts.items():
            setattr(self, name, _GETTERS[name.rsplit("_", 1)[1]](part))
        self._part_names = (*self._part_names, *parts)

    def add_table_weight(self, name, shape, index=None, shared=False):
        """Adds a weight with the parts that `set_parts` keeps for it.

        An `index` is for one of several weights that share their parts;
        `shared` is that of `add_factor`.
        """
        parts = {kind: getattr(self, f"{name}_{kind}") for kind in _GETTERS}
        if index is not None:
            name = f"{name}_{index}"
            if isinstance(parts["initializer"], initializers.Initializer):
                # One object draws the same numbers each time.
                parts["initializer"] = parts["initializer"].clone()
        return self.add_factor(name, shape, shared, **parts)

    @property
    def dense_shape(self):
        """The shape `(vocabulary, width)` of the table it stands for."""
        raise NotImplementedError

    @property
    def dense_parameters(self):
        """How many parameters the dense layer in its place would have."""
        raise NotImplementedError

    def rows(self, ids):
        """Returns the rows `ids` of the table, without building the table."""
        raise NotImplementedError

    def row_scores(self, hidden):
        """Returns the logits as functions of the rows of factors.

        `compressed_crossentropy` computes them for a block of units at a time.

        Args:
            hidden: Tensor of shape `(tokens, width)`, of the compute dtype.

        Returns:
            A list of `RowScores`, whose units follow each other, and an int32
            tensor of shape `(vocabulary,)`: where each unit is among them, or
            `None` if they have the order of the units.
        """
        raise NotImplementedError

    def to_dense(self):
        """Returns the table as a float32 NumPy array of `dense_shape`."""
        raise NotImplementedError

    @classmethod
    def from_dense(cls, table, **kwargs):
        """Returns a built layer that approximates `table`."""
        raise NotImplementedError

    @classmethod
    def from_layer(cls, layer, **kwargs):
        """Returns a built layer to put in the place of a dense Keras layer."""
        raise NotImplementedError

    def resized_config(self, vocabulary):
        """Returns the config of a like layer with another vocabulary.

        Weights have a row for each `words_per_row` words, or no rows of words.
        """
        raise NotImplementedError

    @property
    def words_per_row(self):
        """How many words that follow each other share a row of weights."""
        return 1

    @property
    def compression_ratio(self):
        """Parameters of the dense layer over parameters of this one.

        A parameter is four bytes: codes of one byte count as a quarter.
        """
        return 4 * self.dense_parameters / weight_bytes(self.weights)

    def get_config(self):
        parts = {
            name: keras.saving.serialize_keras_object(getattr(self, name))
            for name in self._part_names
        }
        return {**super().get_config(), **parts}


def fixed_vocabulary(layer):
    """Returns the error of a layer whose rows depend on its vocabulary."""
    return ValueError(
        f"The rows of a `{type(layer).__name__}` depend on the size of its "
        "vocabulary: add rows to `layer.to_dense()`, and compress it again "
        f"with `from_dense`. Received: layer '{layer.name}'"
    )


class CompressedEmbedding(Compressed):
    """The input side, and the output side when the two are tied.

    Laws: `layer(ids)` equals `layer.to_dense()[ids]`, and
    `layer(hidden, reverse=True)` equals `hidden @ layer.to_dense().T`.

    A final class writes `build`, `rows`, `logits`, `row_scores`, `to_dense`
    and `from_dense`, and extends `get_config`.
    """

    def __init__(self, input_dim, output_dim, mask_zero=False, **kwargs):
        super().__init__(**kwargs)
        self.input_dim = positive_int("input_dim", input_dim)
        self.output_dim = positive_int("output_dim", output_dim)
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        # Keras would cast float ids too, and bfloat16 has no 257.
        self.autocast = False
        self.bias = None  # of the logits, as in a `CompressedSoftmax`

    def logits(self, hidden):
        """Returns `hidden @ table.T`, of shape `(..., input_dim)`."""
        raise NotImplementedError

    @property
    def dense_shape(self):
        return (self.input_dim, self.output_dim)

    @property
    def dense_parameters(self):
        return self.input_dim * self.output_dim

    def resized_config(self, vocabulary):
        return {**self.get_config(), "input_dim": vocabulary}

    @classmethod
    def from_layer(cls, layer, **kwargs):
        """Returns a built layer to put in the place of an `Embedding`.

        It keeps the layer's name, dtype policy, `trainable` and `mask_zero`;
        not its regularizer and constraint, which are those of a table, nor a
        `reverse_dtype`.

        Args:
            layer: A built `Embedding` or tied `ReversibleEmbedding`.
            **kwargs: Arguments of `from_dense`.
        """
        table, arguments = embedding_parts(layer)
        return cls.from_dense(table, **{**arguments, **kwargs})

    def call(self, inputs, reverse=False):
        if reverse:
            return self.logits(ops.cast(inputs, self.compute_dtype))
        ids = inputs
        # As `keras.layers.Embedding`: 64-bit ids are not cut to 32 bits.
        if keras.backend.standardize_dtype(ids.dtype) not in (
            "int32",
            "int64",
        ):
            ids = ops.cast(ids, "int32")
        rows = self.rows(ids)
        if self.mask_zero:
            set_keras_mask(rows, ops.not_equal(ids, 0))
        return rows

    def compute_mask(self, inputs, mask=None):
        if keras.backend.is_int_dtype(inputs.dtype):
            return ops.not_equal(inputs, 0) if self.mask_zero else None
        # Hidden states on their way back: the mask is theirs. Float ids come
        # here too, but `call` has marked their rows by then.
        return mask

    def compute_output_shape(self, input_shape, reverse=False):
        if reverse:
            return (*input_shape[:-1], self.input_dim)
        return (*input_shape, self.output_dim)

    def compute_output_spec(self, inputs, reverse=False):
        shape = self.compute_output_shape(inputs.shape, reverse)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "mask_zero": self.mask_zero,
        }
