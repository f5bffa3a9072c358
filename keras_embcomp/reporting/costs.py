"""What a layer costs: bytes, operations and time, as they are measured."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp._types import Array
from keras_embcomp.layers.base import weight_bytes
from keras_embcomp.models.find import is_embedding

TOKENS = 64
_WARM_UPS, _REPEATS, _SECONDS = 3, 40, 1.0
_LARGEST_REFERENCE = 2**30  # bytes
_PRODUCTS = {"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "MatMul"}
_REDUCTIONS = {"Max", "Mean", "Min", "Sum"}
_ELEMENTWISE = {
    "Add",
    "AddN",
    "AddV2",
    "BiasAdd",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Log",
    "Maximum",
    "Minimum",
    "Mul",
    "Neg",
    "Pow",
    "RealDiv",
    "Relu",
    "Round",
    "Rsqrt",
    "Selu",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Square",
    "Sub",
    "Tanh",
}


def file_bytes(model: keras.Layer) -> int:
    """Returns the bytes of the `.keras` file of a model or layer.

    Those of the state of a model's optimizer are taken off.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        keras.saving.save_model(model, path)
        size = path.stat().st_size
    optimizer = getattr(model, "optimizer", None)
    return size - weight_bytes(optimizer.variables if optimizer else [])


def lookup_times(
    layer: keras.Layer, dense_shape: tuple[int, int]
) -> tuple[float, float | None]:
    """Returns the seconds of a lookup, and the ratio to a dense layer's.

    A lookup is a call with 64 ids, or with 64 hidden states for an output
    layer, compiled on TensorFlow and JAX. It takes turns with that of a
    float32 layer of Keras with the same shape, so that a busy machine slows
    both; a time is the median. The ratio is `None` if a dense table would take
    more than a gigabyte.
    """
    inputs = _inputs(layer, dense_shape)
    lookups = [compiled_call(layer, inputs)]
    dense = isinstance(layer, (keras.layers.Embedding, keras.layers.Dense))
    if not dense and 4 * math.prod(dense_shape) <= _LARGEST_REFERENCE:
        reference = _dense_reference(layer, dense_shape)
        lookups.append(compiled_call(reference, inputs))
    medians = median_seconds(lookups)
    if dense:
        return float(medians[0]), 1.0
    ratio = float(medians[0] / medians[1]) if len(medians) == 2 else None
    return float(medians[0]), ratio


def median_seconds(calls: Sequence[Callable[[], Any]]) -> Array:
    """Returns the median time of each of some calls, which take turns.

    So a busy machine slows all. It takes a second or so, after three calls of
    each that are not timed.
    """
    for _ in range(_WARM_UPS):
        for call in calls:
            call()
    times: list[list[float]] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < _REPEATS and (not times or time.perf_counter() < end):
        times.append([_seconds(call) for call in calls])
    return np.median(times, axis=0)


def operations(
    layer: keras.Layer, dense_shape: tuple[int, int]
) -> float | None:
    """Returns the arithmetic operations of a lookup, for one token.

    Counted in the graph that TensorFlow traces for 64 of them: two for each
    multiplication and addition of a matrix product, one for each number that
    another operation on floats returns or sums up. Arithmetic on ids and
    copies are not counted. `None` on other backends.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    function = tf.function(lambda inputs: layer(inputs))
    graph = function.get_concrete_function(
        tf.constant(_inputs(layer, dense_shape))
    ).graph
    return sum(map(_operations, graph.get_operations())) / TOKENS


def _operations(node):
    if node.type in _PRODUCTS:
        left = node.inputs[0].shape
        transposed = any(
            name in node.node_def.attr and node.get_attr(name)
            for name in ("transpose_a", "adj_x")
        )
        return 2 * math.prod(node.outputs[0].shape) * left[-1 - transposed]
    if not node.outputs or not node.outputs[0].dtype.is_floating:
        return 0
    if node.type in _REDUCTIONS:
        return math.prod(node.inputs[0].shape)
    return math.prod(node.outputs[0].shape) if node.type in _ELEMENTWISE else 0


def _inputs(layer, dense_shape):
    generator = np.random.default_rng(0)
    if is_embedding(layer):
        return generator.integers(0, dense_shape[0], TOKENS).astype("int32")
    return generator.normal(size=(TOKENS, dense_shape[1])).astype("float32")


def _dense_reference(layer, dense_shape):
    # Seeded, so that no number is taken from the user's random state.
    uniform = keras.initializers.RandomUniform(seed=0)
    rows, width = dense_shape
    if is_embedding(layer):
        reference = keras.layers.Embedding(
            rows,
            width,
            embeddings_initializer=uniform,
            dtype="float32",
            name="reference",
        )
    else:
        reference = keras.layers.Dense(
            rows,
            activation=layer.activation,
            use_bias=layer.use_bias,
            kernel_initializer=uniform,
            dtype="float32",
            name="reference",
        )
    reference.build((None, width))
    return reference


def compiled_call(layer: keras.Layer, inputs: Array) -> Callable[[], Array]:
    """Returns a function without arguments that calls a layer and waits.

    It is compiled on TensorFlow and JAX.
    """

    def first_number(outputs):  # what is waited for, small enough to copy
        return outputs, ops.cast(outputs[0, 0], "float32")

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        function = tf.function(lambda inputs: first_number(layer(inputs)))
        arguments: tuple = (tf.constant(inputs),)
    elif keras.backend.backend() == "jax":
        import jax

        function = jax.jit(
            lambda *arguments: first_number(layer.stateless_call(*arguments)[0])
        )
        tensor = jax.numpy.asarray(inputs)

        def values():  # anew, as a training step gives the old ones away
            return (
                [variable.value for variable in layer.trainable_variables],
                [variable.value for variable in layer.non_trainable_variables],
                tensor,
            )

        return lambda: ops.convert_to_numpy(function(*values())[1])
    else:

        def function(inputs):
            return first_number(layer(inputs))

        arguments = (ops.convert_to_tensor(inputs),)
    return lambda: ops.convert_to_numpy(function(*arguments)[1])


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
