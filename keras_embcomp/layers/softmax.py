"""The protocol of the output side."""

from typing import Any, Self

import keras
from keras import activations, ops

from keras_embcomp._types import ArrayLike
from keras_embcomp.checks import positive_int
from keras_embcomp.layers.base import Compressed, check_final
from keras_embcomp.layers.from_keras import dense_parts


class CompressedSoftmax(Compressed):
    """The output side: a `Dense` layer over the vocabulary.

    Laws: with `activation=None`, `layer(hidden)` equals
    `hidden @ layer.to_dense().T + layer.bias`; with the softmax, each row of
    the result sums to 1.

    Args:
        units: Integer. Size of the vocabulary.
        activation: Activation function. `None` gives logits.
        use_bias: Boolean. Whether each unit has a bias.
        bias_initializer: Initializer of the bias.
        bias_regularizer: Regularizer of the bias.
        bias_constraint: Constraint of the bias.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.
    """

    _vocabulary_name = "units"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_final(cls)

    def __init__(
        self,
        units: int,
        activation: Any = "softmax",
        use_bias: bool = True,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = positive_int("units", units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self._set_parts(
            bias_initializer=bias_initializer,
            bias_regularizer=bias_regularizer,
            bias_constraint=bias_constraint,
        )
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    @property
    def dense_shape(self) -> tuple[int, int]:
        if not self.built:
            raise ValueError(
                "The layer must be built before its width is known. "
                f"Received: layer '{self.name}', not built"
            )
        return (self.units, self.input_spec.axes[-1])

    @property
    def _dense_parameters(self):
        return self.units * (self.dense_shape[1] + bool(self.use_bias))

    @classmethod
    def _for_table(cls, shape, arguments):
        arguments = dict(arguments)
        bias = arguments.pop("bias", None)
        units, width = shape
        layer = cls(units, **arguments)
        layer.build((None, width))
        layer._set_bias(bias)
        return layer

    @classmethod
    def from_layer(cls, layer: keras.Layer, **kwargs: Any) -> Self:
        """Returns a built layer to put in the place of a `Dense`.

        It keeps the layer's name, dtype policy, `trainable`, activation, and
        bias with its regularizer and constraint. The kernel's are dropped: they
        are for a dense table.

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
        self._check_width("width", width)
        self._build_table(width)
        self.bias = None
        if self.use_bias:
            self.bias = self._add_table_weight("bias", (self.units,))
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: width})
        self._build_difference(width)

    def _set_bias(self, bias: ArrayLike | None) -> None:
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
        outputs = self._logits(ops.cast(inputs, self.compute_dtype))
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
