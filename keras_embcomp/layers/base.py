"""The protocol: a compressed layer is a dense table in fewer numbers.

A class here is abstract. A final class, one for each method and side, writes
the methods that raise `NotImplementedError` and overrides nothing else but
`__init__` and `get_config`, which chain to `super()`.
"""

import keras
from keras import activations, constraints, initializers, ops, regularizers
from keras.src.backend import set_keras_mask

from keras_embcomp.checks import positive_int
from keras_embcomp.layers.dense import dense_parts, embedding_parts

_GETTERS = {
    "initializer": initializers.get,
    "regularizer": regularizers.get,
    "constraint": constraints.get,
}


class Compressed(keras.layers.Layer):
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

    def add_table_weight(self, name, shape):
        """Adds a weight with the parts that `set_parts` keeps for it."""
        parts = {kind: getattr(self, f"{name}_{kind}") for kind in _GETTERS}
        return self.add_weight(name=name, shape=shape, **parts)

    @property
    def dense_shape(self):
        """The shape `(vocabulary, width)` of the table it stands for."""
        raise NotImplementedError

    @property
    def dense_parameters(self):
        """How many parameters the dense layer in its place would have."""
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

    @property
    def compression_ratio(self):
        """Parameters of the dense layer over parameters of this one."""
        return self.dense_parameters / self.count_params()

    def get_config(self):
        parts = {
            name: keras.saving.serialize_keras_object(getattr(self, name))
            for name in self._part_names
        }
        return {**super().get_config(), **parts}


class CompressedEmbedding(Compressed):
    """The input side, and the output side when the two are tied.

    Laws: `layer(ids)` equals `layer.to_dense()[ids]`, and
    `layer(hidden, reverse=True)` equals `hidden @ layer.to_dense().T`.

    A final class writes `build`, `rows`, `logits`, `to_dense` and
    `from_dense`, and extends `get_config`.
    """

    def __init__(self, input_dim, output_dim, mask_zero=False, **kwargs):
        super().__init__(**kwargs)
        self.input_dim = positive_int("input_dim", input_dim)
        self.output_dim = positive_int("output_dim", output_dim)
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        # Keras would cast float ids too, and bfloat16 has no 257.
        self.autocast = False

    def rows(self, ids):
        """Returns the rows `ids` of the table, without building the table."""
        raise NotImplementedError

    def logits(self, hidden):
        """Returns `hidden @ table.T`, of shape `(..., input_dim)`."""
        raise NotImplementedError

    @property
    def dense_shape(self):
        return (self.input_dim, self.output_dim)

    @property
    def dense_parameters(self):
        return self.input_dim * self.output_dim

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


class CompressedSoftmax(Compressed):
    """The output side: a `Dense` layer over the vocabulary.

    Laws: with `activation=None`, `layer(hidden)` equals
    `hidden @ layer.to_dense().T + layer.bias`; with the softmax, each row of
    the result sums to 1.

    A final class writes `build_table`, `logits`, `to_dense` and `from_dense`,
    and extends `get_config`.
    """

    def __init__(
        self,
        units,
        activation="softmax",
        use_bias=True,
        bias_initializer="zeros",
        bias_regularizer=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = positive_int("units", units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.set_parts(
            bias_initializer=bias_initializer,
            bias_regularizer=bias_regularizer,
            bias_constraint=bias_constraint,
        )
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    def build_table(self, width):
        """Creates the weights of the table, of shape `(units, width)`."""
        raise NotImplementedError

    def logits(self, hidden):
        """Returns `hidden @ table.T`, of shape `(..., units)`, no bias."""
        raise NotImplementedError

    @property
    def dense_shape(self):
        if not self.built:
            raise ValueError(
                "The layer must be built before its width is known. "
                f"Received: layer '{self.name}', not built"
            )
        return (self.units, self.input_spec.axes[-1])

    @property
    def dense_parameters(self):
        return self.units * (self.dense_shape[1] + bool(self.use_bias))

    @classmethod
    def from_layer(cls, layer, **kwargs):
        """Returns a built layer to put in the place of a `Dense`.

        It keeps the layer's name, dtype policy, `trainable`, activation, and
        bias with its regularizer and constraint; not those of the kernel.

        Args:
            layer: A built `Dense`.
            **kwargs: Arguments of `from_dense`.
        """
        table, arguments = dense_parts(layer)
        return cls.from_dense(table, **{**arguments, **kwargs})

    def build(self, input_shape):
        width = input_shape[-1]
        if width is None:
            raise ValueError(
                "The last dimension of the inputs must be defined. "
                f"Received: input_shape={input_shape}"
            )
        self.build_table(width)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_table_weight("bias", (self.units,))
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: width})

    def set_bias(self, bias):
        """Assigns a bias of shape `(units,)`; `None` leaves it as it is."""
        if bias is None:
            return
        if not self.use_bias or len(bias) != self.units:
            raise ValueError(
                "`bias` must have one number for each unit, and `use_bias` "
                f"must be true. Received: bias of length {len(bias)}, "
                f"units={self.units}, use_bias={self.use_bias}"
            )
        self.bias.assign(bias)

    def call(self, inputs):
        outputs = self.logits(ops.cast(inputs, self.compute_dtype))
        if self.use_bias:
            outputs = ops.add(outputs, ops.cast(self.bias, outputs.dtype))
        return self.activation(outputs)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }
