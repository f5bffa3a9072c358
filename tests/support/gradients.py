"""Values and gradients on every backend, compiled in each of its ways."""

import keras
import numpy as np
from keras import ops

MODES = {
    "tensorflow": ("eager", "graph", "xla"),
    "jax": ("eager", "jit"),
    "torch": ("eager",),
}[keras.backend.backend()]


def value_and_gradients(function, weights, inputs, constants=(), mode="eager"):
    """Returns `function(inputs, *constants)` and the gradients of its sum."""
    found = values_and_gradients(function, weights, inputs, constants, [mode])
    return found[mode]


def values_and_gradients(function, weights, inputs, constants, modes):
    """Returns what `value_and_gradients` does in each mode, by the mode.

    A function that is compiled in two ways is traced once.

    Args:
        function: Returns a tensor.
        weights: Variables.
        inputs: Float array. When compiled, the size of its first axis, and
            that of the constants', is not known.
        constants: Arrays that have no gradient.
        modes: Some of `MODES`.

    Returns:
        Lists of arrays by their mode: the value, the gradient of the inputs,
        those of the weights.
    """
    found = _IN[keras.backend.backend()](
        function, weights, inputs, constants, modes
    )
    return {
        mode: [np.asarray(ops.convert_to_numpy(array)) for array in arrays]
        for mode, arrays in zip(modes, found, strict=True)
    }


def _in_tensorflow(function, weights, inputs, constants, modes):
    import tensorflow as tf

    def step(inputs, *constants):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = function(inputs, *constants)
            total = ops.sum(value)
        variables = [inputs, *(weight.value for weight in weights)]
        found = tape.gradient(total, variables, unconnected_gradients="zero")
        return [value, *map(tf.convert_to_tensor, found)]

    arguments = [tf.constant(array) for array in (inputs, *constants)]
    traced = tf.function(
        step,
        input_signature=[
            tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in arguments
        ],
        autograph=False,  # as in `fit`
    )

    @tf.function(jit_compile=True, autograph=False)
    def compiled(*arguments):
        return traced(*arguments)

    ways = {"eager": step, "graph": traced, "xla": compiled}
    return [ways[mode](*arguments) for mode in modes]


def _in_jax(function, weights, inputs, constants, modes):
    import jax

    def total(inputs, values, *constants):
        mapping = list(zip(weights, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            value = function(inputs, *constants)
        return ops.sum(value), value

    step = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    ways = {"eager": step, "jit": jax.jit(step)}
    values = [weight.value for weight in weights]
    found = []
    for mode in modes:
        (_, value), gradients = ways[mode](inputs, values, *constants)
        found.append([value, gradients[0], *gradients[1]])
    return found


def _in_torch(function, weights, inputs, constants, modes):
    import torch

    inputs = torch.tensor(inputs, requires_grad=True)
    value = function(inputs, *map(torch.tensor, constants))
    variables = [inputs, *(weight.value for weight in weights)]
    found = torch.autograd.grad(
        ops.sum(value), variables, allow_unused=True, materialize_grads=True
    )
    return [[value.detach(), *found] for _ in modes]  # there is one


_IN = {"tensorflow": _in_tensorflow, "jax": _in_jax, "torch": _in_torch}
