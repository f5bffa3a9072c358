"""Sums over the logits of all units, which are never in memory at once.

Blocks of logits are computed one after the other in a loop, forward and again
backward. Each backend has the loop and the gradient of a block in its own
words, as a loop that is differentiated stores what this is to save.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import ops

_BLOCK_NUMBERS = 2**22
_SMALLEST_BLOCK = 256
_BELOW_ALL = -1e30


class RowScores(NamedTuple):
    """The logits of units, computed from the rows of factors.

    Attributes:
        function: Returns the logits `(tokens, units)` of `shared`, a range of
            `rows` and the same of `codes`, in this order. It may use no other
            tensor that has a gradient.
        shared: Float tensors that all units need.
        rows: Float tensors whose rows are in the order of the units.
        codes: Integer tensors whose rows are in that order.
        units: How many units there are.
        units_per_row: How many units a row stands for. The last row may stand
            for fewer.
    """

    function: Callable
    shared: tuple
    rows: tuple = ()
    codes: tuple = ()
    units: int = 0
    units_per_row: int = 1


def products(tokens, rows):
    """Returns the logits of tokens of the width of rows."""
    return ops.matmul(tokens, ops.transpose(rows))


def default_block_size(tokens, width):
    """Returns how many units' logits are in memory at once."""
    return max(_BLOCK_NUMBERS // max(tokens, width, 1), _SMALLEST_BLOCK)


def sums_of_scores(scores, bias, dtype, block_size, with_totals=False):
    """Returns the logsumexp of each token's logits, and their sum.

    Args:
        scores: `RowScores`.
        bias: Tensor of shape `(units,)` or `None`.
        dtype: That in which the function of the scores computes. Sums are in
            float32 at least.
        block_size: Integer. Units whose logits are in memory at once.
        with_totals: Boolean. Whether the sum of logits is wanted.

    Returns:
        Two tensors of shape `(tokens,)`; the second may be `None`.
    """
    summed = "float64" if dtype == "float64" else "float32"
    per_row = scores.units_per_row
    num_rows = -(-scores.units // per_row)
    # Blocks of about equal sizes: little of the last one is padding.
    count = -(-num_rows // max(block_size // per_row, 1))
    size = -(-num_rows // count)
    count = -(-num_rows // size)
    rows = scores.rows
    if bias is not None:
        bias = ops.reshape(_padded(bias, num_rows * per_row), (-1, per_row))
        rows = (*rows, bias)
    rows = tuple(_in_blocks(row, count, size) for row in rows)
    codes = tuple(_in_blocks(code, count, size) for code in scores.codes)
    # Sums of gradients over blocks are in float32 too.
    shared = tuple(ops.cast(tensor, summed) for tensor in scores.shared)
    padded = count * size * per_row > scores.units

    def block(shared, rows, codes):
        biases = rows[len(scores.rows) :]
        tensors = (*shared, *rows[: len(scores.rows)])
        tensors = [ops.cast(tensor, dtype) for tensor in tensors]
        logits = ops.cast(scores.function(*tensors, *codes), summed)
        if biases:
            logits = logits + ops.cast(ops.reshape(biases[0], (-1,)), summed)
        return logits

    def masked(number, logits, value):
        if not padded:
            return logits
        units = ops.arange(size * per_row, dtype="int32")
        known = units < scores.units - number * (size * per_row)
        return ops.where(known, logits, value)

    numbers = ops.arange(count, dtype="int32")

    @ops.custom_gradient
    def sums(*tensors):
        shared_tensors = tensors[: len(shared)]
        row_tensors = tensors[len(shared) :]

        def add(carry, number, *slices):
            logits = block(
                shared_tensors, slices[: len(rows)], slices[len(rows) :]
            )
            own = ops.logsumexp(masked(number, logits, -math.inf), axis=-1)
            carry = [ops.logaddexp(carry[0], own), *carry[1:]]
            if with_totals:
                total = ops.sum(masked(number, logits, 0), axis=-1)
                carry[1] = carry[1] + total
            return carry, []

        zeros = ops.zeros_like(shared_tensors[0][:, 0])
        start = [zeros + _BELOW_ALL] + with_totals * [zeros]
        found, _ = _scan(add, start, (numbers, *row_tensors, *codes), 0)
        logsumexp = found[0]

        def gradients(*arguments, upstream=None):
            upstream = arguments[-1] if upstream is None else upstream
            weights = ops.expand_dims(upstream[0], 1)

            def pull(carry, number, *slices):
                own = slices[len(rows) :]
                logits, gradients_of = _vjp(
                    lambda *tensors: block(
                        tensors[: len(shared)], tensors[len(shared) :], own
                    ),
                    (*shared_tensors, *slices[: len(rows)]),
                )
                slopes = ops.exp(logits - ops.expand_dims(logsumexp, 1))
                slopes = slopes * weights
                if with_totals:
                    slopes = slopes + ops.expand_dims(upstream[1], 1)
                found = gradients_of(masked(number, slopes, 0))
                carry = [
                    sum_ + gradient
                    for sum_, gradient in zip(
                        carry, found[: len(shared)], strict=True
                    )
                ]
                return carry, found[len(shared) :]

            start = [ops.zeros_like(tensor) for tensor in shared_tensors]
            of_shared, of_rows = _scan(
                pull, start, (numbers, *row_tensors, *codes), len(rows)
            )
            return (*of_shared, *of_rows)

        return ops.stack(found), gradients

    found = sums(*shared, *rows)
    return found[0], (found[1] if with_totals else None)


def _padded(tensor, size):
    missing = size - tensor.shape[0]
    if not missing:
        return ops.convert_to_tensor(tensor)
    padding = [(0, missing)] + [(0, 0)] * (len(tensor.shape) - 1)
    return ops.pad(tensor, padding)


def _in_blocks(tensor, count, size):
    tensor = _padded(tensor, count * size)
    return ops.reshape(tensor, (count, size, *tensor.shape[1:]))


def _scan(step, carry, tensors, num_outputs):
    """Calls `step(carry, *slices)` for the slices of tensors in turn.

    Args:
        step: Returns the next carry, and `num_outputs` tensors, which have the
            shapes of the slices after the first.
        carry: List of tensors.
        tensors: Tensors of equal length.
        num_outputs: Integer.

    Returns:
        The last carry, and the stacks of the outputs.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.lax.scan(lambda c, x: step(c, *x), carry, tensors)
    if backend == "tensorflow":
        return _scan_in_tensorflow(step, carry, tensors, num_outputs)
    outputs = []
    for slices in zip(*tensors, strict=True):
        carry, found = step(carry, *slices)
        outputs.append(found)
    return carry, [ops.stack(one) for one in zip(*outputs, strict=True)]


def _scan_in_tensorflow(step, carry, tensors, num_outputs):
    import tensorflow as tf

    count = tensors[0].shape[0]
    arrays = [
        tf.TensorArray(tensor.dtype, size=count, element_shape=tensor.shape[1:])
        for tensor in tensors[1 : 1 + num_outputs]
    ]

    def body(number, carry, arrays):
        carry, found = step(carry, *(tensor[number] for tensor in tensors))
        arrays = [
            array.write(number, one)
            for array, one in zip(arrays, found, strict=True)
        ]
        return number + 1, carry, arrays

    _, carry, arrays = tf.while_loop(
        lambda number, *_: number < count,
        body,
        (tf.constant(0), list(carry), arrays),
        parallel_iterations=1,  # so that one block is in memory
    )
    return carry, [array.stack() for array in arrays]


def _vjp(function, tensors):
    """Returns `function(*tensors)`, and what pulls gradients back to them."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.vjp(function, *tensors)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            result = function(*tensors)

        def pull(gradient):
            zero = tf.UnconnectedGradients.ZERO
            found = tape.gradient(
                result, tensors, gradient, unconnected_gradients=zero
            )
            return [tf.convert_to_tensor(one) for one in found]

        return result, pull
    import torch

    with torch.enable_grad():
        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
        result = function(*tensors)

    def pull(gradient):
        return torch.autograd.grad(
            result, tensors, gradient, materialize_grads=True
        )

    return result.detach(), pull
