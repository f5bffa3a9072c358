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
    """Returns `function(inputs, *constants)` and the gradients of its sum.

    Args:
        function: Returns a tensor.
        weights: Variables.
        inputs: Float array. When compiled, the size of its first axis, and
            that of the constants', is not known.
        constants: Arrays that have no gradient.
        mode: One of `MODES`.

    Returns:
        Arrays: the value, the gradient of the inputs, those of the weights.
    """
    found = _IN[keras.backend.backend()](
        function, weights, inputs, constants, mode
    )
    return [np.asarray(ops.convert_to_numpy(array)) for array in found]


def _in_tensorflow(function, weights, inputs, constants, mode):
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
    if mode != "eager":
        step = tf.function(
            step,
            jit_compile=mode == "xla",
            input_signature=[
                tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in arguments
            ],
        )
    return step(*arguments)


def _in_jax(function, weights, inputs, constants, mode):
    import jax

    def total(inputs, values, *constants):
        mapping = list(zip(weights, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            value = function(inputs, *constants)
        return ops.sum(value), value

    step = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    if mode == "jit":
        step = jax.jit(step)
    values = [weight.value for weight in weights]
    (_, value), (of_inputs, of_weights) = step(inputs, values, *constants)
    return [value, of_inputs, *of_weights]


def _in_torch(function, weights, inputs, constants, mode):
    import torch

    inputs = torch.tensor(inputs, requires_grad=True)
    value = function(inputs, *map(torch.tensor, constants))
    variables = [inputs, *(weight.value for weight in weights)]
    found = torch.autograd.grad(
        ops.sum(value), variables, allow_unused=True, materialize_grads=True
    )
    return [value.detach(), *found]


_IN = {"tensorflow": _in_tensorflow, "jax": _in_jax, "torch": _in_torch}
