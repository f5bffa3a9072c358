"""Quantization: factors in floats, in 8 bits or fewer, or trained as if so."""

import functools
import math
from typing import Any

import keras
from keras import ops

from keras_embcomp._compat import (
    check_can_quantize,
    int4_block_size,
    mark_quantized,
    quantization_config,
    rebuilt,
)
from keras_embcomp.checks import finite_table
from keras_embcomp.layers.factors import (
    FakePackedFactor,
    PackedFactor,
    RoundedFactor,
    in_numpy,
)
from keras_embcomp.layers.policies import (
    BLOCK,
    OWN_MODES,
    parsed,
    policy_named,
)
from keras_embcomp.numerics.quantized import MODES, Format


class Quantizable(keras.layers.Layer):
    """A layer whose matrices, its factors, may be stored in 8 bits or fewer.

    Factors are created with `_add_factor`; `quantize` and `fake_quantize`
    create all weights again, in the order of `build`, so that a layer that was
    quantized and one that is built from its config have the same weights.

    Args:
        fake_quantization: `None`, `"int8"`, or `"int4"`, `"int2"` or
            `"ternary"` with `"/<columns of a block>"`: what `fake_quantize`
            did.
        **kwargs: Base layer keyword arguments.
    """

    # Properties of `keras.Layer`, which has no annotations.
    dtype_policy: Any
    trainable: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        layer = super().__new__(cls, *args, **kwargs)
        # Keras gives each layer a `quantize` that refuses other modes.
        of_keras = layer.quantize

        @functools.wraps(of_keras)
        def quantize(mode=None, config=None, **arguments):
            own = mode or getattr(config, "mode", None)
            if own not in OWN_MODES:
                return of_keras(mode, config=config, **arguments)
            return layer._quantize(own, _checked_config(layer, own, config))

        layer.quantize = quantize
        return layer

    def __init__(
        self, fake_quantization: str | None = None, **kwargs: Any
    ) -> None:
        if "dtype" in kwargs:
            kwargs["dtype"] = policy_named(kwargs["dtype"])
        super().__init__(**kwargs)
        self._factors: dict[str, Any] = {}
        if fake_quantization is not None:
            mode, block = parsed(fake_quantization, "fake_quantization")
            fake_quantization = _name(mode, block)
        self.fake_quantization = fake_quantization

    def _add_factor(
        self,
        name: str,
        shape: tuple[int, ...],
        shared: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Adds a weight of floats, or what stands for it in fewer bits.

        Args:
            name: String.
            shape: Tuple. A vector is always stored in floats.
            shared: Boolean. Whether all rows of the table are made with all of
                it: then it is small beside what it is multiplied with, and
                has 8 bits where others have fewer.
            **kwargs: Arguments of `add_weight`.
        """
        if len(shape) == 1:
            return self.add_weight(name=name, shape=shape, **kwargs)
        form, fake = self._format()
        if form is None:
            factor = self.add_weight(name=name, shape=shape, **kwargs)
        else:
            form = form._replace(mode="int8") if shared else form
            factor = self._add_rounded(name, shape, form, fake, kwargs)
        self._factors[name] = factor
        return factor

    def _format(self):
        """Returns the format, `None` for floats, and whether it is fake."""
        mode = self.quantization_mode
        if mode is None:
            if self.fake_quantization is None:
                return None, False
            return _format(*parsed(self.fake_quantization, "")), True
        _check_mode(mode)
        mark_quantized(self)
        if mode in OWN_MODES and mode != "int4":
            return _format(mode, self.dtype_policy.block_size), False
        return _format(mode, int4_block_size(self)), False

    def _add_rounded(self, name, shape, form, fake, kwargs):
        rows, columns = shape[0], math.prod(shape[1:])
        state = {"trainable": False, "autocast": False}
        if fake:
            cls: type[RoundedFactor] = FakePackedFactor
            steps: Any = keras.initializers.Constant(64)
            values = self.add_weight(
                name=name, shape=shape, autocast=False, **kwargs
            )
        else:
            cls, steps = PackedFactor, "zeros"
            values = self.add_weight(
                name=name,
                shape=(rows, form.packed_width(columns)),
                dtype=form.dtype,
                initializer="zeros",
                **state,
            )
        column_scales = self.add_weight(
            name=f"{name}_column_scales",
            shape=(form.column_scales(rows, columns),),
            dtype="float32",
            initializer="ones",
            **state,
        )
        blocks, row_steps = form.row_scales(rows, columns), None
        if blocks:
            row_steps = self.add_weight(
                name=f"{name}_row_steps",
                shape=(rows, blocks),
                dtype="int8",
                initializer=steps,
                **state,
            )
        table = cls(values, column_scales, row_steps, form, tuple(shape))
        if fake:
            table.assign(values)
        return table

    def quantize(
        self, mode: str, type_check: bool = True, config: Any = None
    ) -> None:
        """Stores the factors in 8 bits or fewer; they no longer train.

        A layer that was trained with `fake_quantize` of the same mode keeps
        the rounding that it was trained with.

        Args:
            mode: `"int8"`, `"int4"`, `"int2"` (four numbers a byte) or
                `"ternary"` (five a byte). Keras' `model.quantize` takes the
                first two only: call the layer for the others.
            type_check: For Keras.
            config: `keras.quantizers.Int4QuantizationConfig(block_size=b)`
                gives every `b` entries of a row a scale, and -1 the whole row;
                the default is 128. It is for all modes but `"int8"`.

        Raises:
            ValueError: if the layer is not built or quantized already.
            NotImplementedError: if the mode is another one, or the layer has
                no factors of floats.
        """
        self._quantize(mode, config)

    def _quantize(self, mode, config):
        _check_mode(mode)
        self._check_factors(mode, config)
        name = _name(mode, _block(config))
        values = self._values(keep=self.fake_quantization == name)
        self.fake_quantization = None
        mark_quantized(self)  # the setter would call this method again
        if self.quantization_mode is None:
            policy = f"{name}_from_{self.dtype_policy.name}"
            self.dtype_policy = policy_named(policy)
        self._rebuild(*values)

    def fake_quantize(self, mode: str, config: Any = None) -> None:
        """Makes the layer compute as if quantized, and train its floats.

        Gradients pass the rounding as if it were not there. The scales are
        those that fit now; a second call fits them again. `quantize` with the
        same arguments then changes no output. A model must be compiled after.

        Args:
            mode: `"int8"`, `"int4"`, `"int2"` or `"ternary"`.
            config: As for `quantize`.

        Raises:
            ValueError: if the layer is not built or quantized already.
            NotImplementedError: if the mode is another one, or the layer has
                no factors of floats.
        """
        _check_mode(mode)
        if mode in OWN_MODES:
            config = _checked_config(self, mode, config)
        else:
            config = quantization_config(mode, config)
            check_can_quantize(self, mode)
        self._check_factors(mode, config)
        values = self._values(keep=False)
        self.fake_quantization = _name(mode, _block(config))
        self._rebuild(*values)

    def _keep_rounding(self) -> None:
        """Stores factors as `fake_quantize` rounds them, in floats."""
        factors = {name: in_numpy(f) for name, f in self._factors.items()}
        others = [ops.convert_to_numpy(weight) for weight in self._others()]
        self.fake_quantization = None
        self._rebuild(factors, {}, others)

    def _check_factors(self, mode, config):
        if not self._factors:
            raise NotImplementedError(
                f"Layer '{self.name}' must have factors of floats to be "
                f"quantized. Received: mode={mode}"
            )
        if getattr(config, "weight_quantizer", None) is not None:
            raise ValueError(
                "`config` must not have a `weight_quantizer`, as the layer "
                f"fits its scales. Received: config={config}"
            )
        for name, factor in self._factors.items():
            finite_table(name, in_numpy(factor).reshape(factor.shape[0], -1))

    def _values(self, keep):
        """Returns arrays of the factors, scales to keep, and other weights."""
        kept = {
            name: factor.scale_values()
            for name, factor in self._factors.items()
            if keep
        }
        factors = {
            name: ops.convert_to_numpy(factor.values)
            if isinstance(factor, RoundedFactor)
            else in_numpy(factor)
            for name, factor in self._factors.items()
        }
        others = [ops.convert_to_numpy(weight) for weight in self._others()]
        return factors, kept, others

    def _others(self):
        """Returns the weights that belong to no factor."""
        owned = {
            id(weight)
            for factor in self._factors.values()
            for weight in getattr(factor, "weights", [factor])
        }
        return [weight for weight in self.weights if id(weight) not in owned]

    def _rebuild(self, factors, scales, others):
        self._factors = {}
        shapes = self.get_build_config()
        with rebuilt(self):
            # Not `self.build`, with which Keras would change the layer's path.
            type(self).build(self, **shapes.get("shapes_dict", shapes))
        self._spread_trainable()
        for name, factor in self._factors.items():
            values = factors.pop(name)  # then it takes no more memory
            if name in scales:
                factor.assign(values, scales[name])
            else:
                factor.assign(values)
        self._assign_others(others)

    def _spread_trainable(self):
        """Tells all weights whether the layer trains.

        On TensorFlow, an assignment of the value that it has does nothing.
        """
        keras.Layer.trainable.fset(self, self.trainable)

    def _copy_others(self, layer: "Quantizable") -> None:
        """Assigns the weights of a like layer that belong to no factor."""
        self._assign_others(layer._others())

    def _assign_others(self, values):
        for weight, value in zip(self._others(), values, strict=True):
            weight.assign(value)

    def quantized_call(self, *args, **kwargs):
        return self.call(*args, **kwargs)

    def get_config(self):
        config = super().get_config()
        return {**config, "fake_quantization": self.fake_quantization}


def quantized_policy(mode: str, policy: Any) -> str:
    """Returns the name of the dtype policy of a layer after `quantize(mode)`.

    Args:
        mode: As for `quantize`.
        policy: The layer's policy of floats, or its name.
    """
    _check_mode(mode)
    name = _name(mode, BLOCK)
    return f"{name}_from_{keras.dtype_policies.get(policy).name}"


def _check_mode(mode):
    if mode not in MODES:
        raise NotImplementedError(
            f"`mode` must be one of {', '.join(MODES)}. Received: mode={mode}"
        )


def _checked_config(layer, mode, config):
    """Returns the config of a mode that Keras lacks; raises what it raises."""
    if mode == "int4":
        config = quantization_config(mode, config)
    if config is not None and not hasattr(config, "block_size"):
        raise ValueError(
            "`config` must have a `block_size`, as `Int4QuantizationConfig` "
            f"has. Received: config={config}"
        )
    if not layer.built:
        raise ValueError(
            "Cannot quantize a layer that isn't yet built. "
            f"Received: layer '{layer.name}', mode={mode}"
        )
    if layer.quantization_mode is not None:
        raise ValueError(
            f"Layer '{layer.name}' is already quantized. "
            f"Received: mode={mode}, of {layer.dtype_policy.name}"
        )
    return config


def _block(config):
    """Returns the columns of a block, -1 for all of a row."""
    return BLOCK if config is None else getattr(config, "block_size", -1) or -1


def _name(mode, block):
    """Returns the name of a mode in dtype policies."""
    return mode if mode == "int8" else f"{mode}/{block}"


def _format(mode, block):
    if mode == "int8":
        return Format(mode, BLOCK)
    return Format(mode, block if block and block > 0 else None)
