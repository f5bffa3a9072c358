"""Every private name of Keras, TensorFlow and LiteRT that the package needs.

Each function says why no public name does. `tests/test_compat.py` has a test
for each, which fails by name when a release moves it.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend import get_keras_mask as get_mask
from keras.src.backend import set_keras_mask as set_mask
from keras.src.backend.common import global_state
from keras.src.models import Functional
from keras.src.quantizers.quantization_config import (
    get_block_size_for_layer,
    validate_and_resolve_config,
)

from keras_embcomp._types import Tensor

__all__ = [
    "Functional",
    "call_arguments",
    "callbacks_beside",
    "check_can_quantize",
    "converter_error",
    "cycled_rate",
    "every_layer",
    "get_mask",
    "has_layout",
    "in_xla_context",
    "int4_block_size",
    "litert_schema",
    "mark_quantized",
    "producer_name",
    "quantization_config",
    "rebuilt",
    "replace_input",
    "set_cycled_rate",
    "set_mask",
    "source_policy",
    "unallocated",
    "unlocked",
]

# `get_mask`, `set_mask`: Keras carries a mask as an attribute of a tensor. A
# layer that is called in two directions cannot say its mask by
# `compute_mask`, which does not know the direction.
#
# `Functional`: the public `keras.Model` does not tell a functional model from
# a subclassed one.


def int4_block_size(layer: keras.Layer) -> int | None:
    """Returns the block of int4 that a layer's dtype policy names.

    The policy's class is not public.
    """
    return get_block_size_for_layer(layer, None)


def quantization_config(mode: str, config: Any) -> Any:
    """Returns the config that `layer.quantize(mode, config)` would use.

    `fake_quantize` takes the same arguments, and shall refuse the same.
    """
    return validate_and_resolve_config(mode, config)


def check_can_quantize(layer: keras.Layer, mode: str) -> None:
    """Raises what `layer.quantize` raises for a layer that is not ready."""
    layer._check_quantize_args(mode, layer.compute_dtype)


def mark_quantized(layer: keras.Layer) -> None:
    """Tells Keras that a layer is quantized, so that it is not once more.

    Keras sets the flag in the `quantize` of its own layers only.
    """
    layer._is_quantized = True


@contextlib.contextmanager
def unlocked(layer: keras.Layer) -> Iterator[None]:
    """Lets a built layer add weights within, as `enable_lora` of Keras does."""
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


@contextlib.contextmanager
def rebuilt(layer: keras.Layer, weights: Any = None) -> Iterator[None]:
    """Takes weights, or all, of a built layer off; lets it add some within.

    Keras has no public way to change the weights of a built layer.
    """
    for weight in layer.weights if weights is None else weights:
        layer._untrack_variable(weight)
    with unlocked(layer):
        yield


def every_layer(model: keras.Layer) -> list[keras.Layer]:
    """Returns a layer and all layers in it, in Keras' order.

    `keras.Model.layers` does not look into layers.
    """
    return list(model._flatten_layers())


def call_arguments(layer: keras.Layer) -> Iterator[tuple[tuple, dict]]:
    """Yields the arguments of each call of a layer in functional models."""
    for node in layer._inbound_nodes:
        yield node.arguments.args, node.arguments.kwargs


def producer_name(tensor: Any) -> str:
    """Returns the name of the layer that made a tensor of a model."""
    return tensor._keras_history.operation.name


def source_policy(policy: Any) -> Any:
    """Returns the float policy under a quantized one, or the policy itself."""
    return getattr(policy, "_source_name", None) or policy


def cycled_rate(optimizer: Any) -> Any:
    """Returns what an optimizer keeps for a rate: a variable or a schedule.

    The public `learning_rate` is a number or a variable, never a schedule.
    """
    return optimizer._learning_rate


def set_cycled_rate(optimizer: Any, rate: Any) -> None:
    """Sets a rate and leaves the optimizer's list of variables as it is.

    The setter of `learning_rate` drops the variable, and a checkpoint must
    have the same variables with and without the callback.
    """
    optimizer._learning_rate = rate


def callbacks_beside() -> list[Any]:
    """Returns the callbacks of the `fit` that calls a callback.

    Keras tells a callback nothing of the others, and one may not work beside
    it. The list that calls is found on the stack; in a loop without one there
    are none.
    """
    frame: Any = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return list(caller.callbacks)
        frame = frame.f_back
    return []


def has_layout(variable: Any) -> bool:
    """Returns whether a variable was given a layout of its own."""
    return getattr(variable, "_layout", None) is not None


def in_xla_context() -> bool:
    """Returns whether TensorFlow traces a function for XLA.

    Functions that are called by a compiled one are traced without its flags.
    """
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    return (
        not tf.executing_eagerly()
        and control_flow_util.GraphOrParentsInXlaContext(
            tf.compat.v1.get_default_graph()
        )
    )


def converter_error() -> type[Exception]:
    """Returns the class of what the converter to LiteRT raises."""
    from tensorflow.lite.python.convert_phase import ConverterError

    return ConverterError


def litert_schema() -> Any:
    """Returns the module with the schema of LiteRT files.

    The converter cannot store tables of 4 bits, so files are edited.
    """
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def replace_input(operation: Any, index: int, tensor: Tensor) -> None:
    """Gives an operation of a TensorFlow graph another input."""
    operation._update_input(index, tensor)


@contextlib.contextmanager
def unallocated() -> Iterator[None]:
    """Variables that are made within have a shape and take no memory.

    `keras.StatelessScope` is public. The list of variables that the end of the
    next scope fills is not, and they must not stay on it.
    """
    name = "uninitialized_variables"
    before = list(global_state.get_global_attribute(name) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(name, before)
