"""The nearest path through a trellis: a Viterbi search, compiled.

All states are searched for a block of rows at once. TensorFlow and JAX compile
the search with XLA. PyTorch runs it step by step, which takes several times as
long.
"""

import concurrent.futures
import functools
import os
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp._compat import view
from keras_embcomp._types import Array, Tensor
from keras_embcomp.numerics.loops import Output, scan

_UNREACHED = 1e30
_MOST_ROWS, _LEAST_ROWS = 64, 8
_BLOCK_BYTES = 2**26  # of the bits that lead back, for each thread
_BYTE = 8


def nearest_states(rows: Array, bits: Array, values: Array) -> Array:
    """Returns the states whose values have the least squared distance to rows.

    Args:
        rows: Array of shape `(count, steps, width)`.
        bits: Integers of shape `(steps,)`, the new bits of each step.
        values: float32 array of shape `(steps, states, width)`.

    Returns:
        Integers of shape `(count, steps)`.
    """
    steps, states, width = values.shape
    most = int(bits.max(initial=0))
    size = _block_size(steps, states)
    search = _compiled(steps, states, width, size, most)
    tensors = [ops.convert_to_tensor(x) for x in (bits.astype("int32"), values)]
    found = np.empty((len(rows), steps), "uint16")

    def block(number: int) -> None:
        own = rows[number * size : (number + 1) * size]
        padded = np.pad(own, ((0, size - len(own)), (0, 0), (0, 0)))
        turned = np.transpose(padded, (1, 2, 0)).astype("float32")
        turned = ops.convert_to_tensor(turned)
        path = ops.convert_to_numpy(search(turned, *tensors))
        found[number * size :][: len(own)] = path.T[: len(own)]

    numbers = range(-(-len(rows) // size))
    if keras.backend.backend() == "torch":  # has threads of its own
        for number in numbers:
            block(number)
        return found
    # The first alone, which compiles. After an error while it does, TensorFlow
    # would let other threads wait forever.
    for number in numbers[:1]:
        block(number)
    threads = len(os.sched_getaffinity(0))
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(block, number) for number in numbers[1:]]
        for one in waiting:
            one.result()
    return found


def _block_size(steps: int, states: int) -> int:
    rows = _BLOCK_BYTES // (steps * states // 2)
    return min(max(rows, _LEAST_ROWS), _MOST_ROWS)


@functools.lru_cache(maxsize=16)
def _compiled(steps: int, states: int, width: int, size: int, most: int) -> Any:
    """Returns the search of a block, compiled for its sizes."""
    search = functools.partial(_search, most=most)
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        # It runs for minutes, whatever flags say of programs that do not.
        options = {"xla_backend_optimization_level": 3}
        return jax.jit(search, compiler_options=options)
    if backend == "tensorflow":
        import tensorflow as tf

        signature = [
            tf.TensorSpec((steps, width, size), "float32"),
            tf.TensorSpec((steps,), "int32"),
            tf.TensorSpec((steps, states, width), "float32"),
        ]
        return tf.function(
            search,
            input_signature=signature,
            jit_compile=True,
            autograph=False,  # there is nothing to convert
        )
    return search


def _search(rows: Tensor, bits: Tensor, values: Tensor, most: int) -> Tensor:
    """Returns the states of a block, of shape `(steps, rows)`.

    Args:
        rows: Tensor of shape `(steps, width, rows)`.
        bits: Tensor of shape `(steps,)`.
        values: Tensor of shape `(steps, states, width)`.
        most: The most new bits of a step.
    """
    dtype = "uint8" if most <= _BYTE else "int16"
    count, states = rows.shape[-1], values.shape[1]
    start = ops.concatenate(
        [
            ops.zeros((1, count), "float32"),
            ops.full((states - 1, count), _UNREACHED, "float32"),
        ]
    )

    branches = [
        functools.partial(_advanced, new, dtype) for new in range(most + 1)
    ]
    lanes = ops.arange(count, dtype="int32")

    def forward(
        carry: list[Tensor], row: Tensor, new: Tensor, value: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        # Not by products of values and rows: differences of large numbers.
        own: Any = 0.0
        for column in range(value.shape[-1]):
            own = own + ops.square(value[:, column : column + 1] - row[column])
        lost, dropped = ops.switch(new, branches, carry[0], own)
        return [lost], [dropped]

    tensors = rows, bits, values
    leading = Output((max(states // 2, 1), count), dtype)
    (lost,), (dropped,) = scan(forward, [start], tensors, [leading])

    def backward(
        carry: list[Tensor], number: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        (state,), new = carry, bits[number]
        rest = ops.right_shift(state, new)
        place = ops.where(new > 0, rest * count + lanes, 0)
        high = ops.take(ops.reshape(dropped[number], (-1,)), place)
        high = ops.cast(high, "int32") * ops.right_shift(states, new)
        return [rest + ops.where(new > 0, high, 0)], [state]

    last = ops.cast(ops.argmin(lost, axis=0), "int32")
    numbers = ops.arange(rows.shape[0] - 1, -1, -1, dtype="int32")
    path = Output((count,), "int32")
    _, (states_of_steps,) = scan(backward, [last], [numbers], [path])
    return ops.flip(states_of_steps, axis=0)


def _advanced(
    new: int, dtype: str, lost: Tensor, own: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the losses after a step, and the bits that it drops.

    The bits that leave the state are its highest. Of the states that differ in
    them only, the best goes on, to all states that its other bits begin.

    Args:
        new: Integer. The new bits.
        dtype: That of the dropped bits.
        lost: Tensor of shape `(states, rows)`.
        own: Tensor of that shape: what a state loses in this step.

    Returns:
        A tensor of that shape, and a tensor of shape `(states / 2, rows)` whose
        first rows hold the dropped bits.
    """
    states, count = lost.shape
    half = max(states // 2, 1)
    if new == 0:
        return lost + own, ops.zeros((half, count), dtype)
    find = _least_by_keys if new <= _BYTE else _least_by_halves
    lost, dropped = find(new, lost)
    left = states >> new
    spread = ops.broadcast_to(ops.expand_dims(lost, 1), (left, 2**new, count))
    lost = ops.reshape(spread, (states, count)) + own
    dropped = ops.cast(dropped, dtype)
    return lost, ops.pad(dropped, ((0, half - left), (0, 0)))


def _least_by_keys(new: int, lost: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the least of losses that differ in the highest bits, and these.

    As integers, the bits of floats that are not negative have their order. The
    last bits, which are worth less than a 30,000th, give way to a number, so
    that the least has it. Comparing and choosing takes up to five times as
    long.
    """
    states, count = lost.shape
    numbers = 2**new - 1
    keys = ops.bitwise_and(view(lost, "int32"), ~numbers)
    keys = ops.reshape(keys, (2**new, states >> new, count))
    high = ops.arange(2**new, dtype="int32")
    keys = ops.bitwise_or(keys, ops.reshape(high, (-1, 1, 1)))
    least = ops.min(keys, axis=0)
    dropped = ops.bitwise_and(least, numbers)
    return view(ops.bitwise_and(least, ~numbers), "float32"), dropped


def _least_by_halves(new: int, lost: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what `_least_by_keys` does, exactly, for any number of bits."""
    dropped: Any = None
    for bit in reversed(range(new)):
        middle = lost.shape[0] // 2
        first, second = lost[:middle], lost[middle:]
        better = second < first
        if dropped is None:
            dropped = ops.cast(better, "int32") * 2**bit
        else:
            dropped = ops.where(
                better, dropped[middle:] + 2**bit, dropped[:middle]
            )
        lost = ops.minimum(first, second)
    return lost, dropped
