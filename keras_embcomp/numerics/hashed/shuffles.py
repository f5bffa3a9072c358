"""Shuffles of a vocabulary that are computed, not stored.

A shuffle is a bijection of `0 ... size - 1`. It uses only operations that every
backend and every exported format computes alike: int32 products and sums that
wrap, and floor division of numbers that are not negative.
"""

import math

import numpy as np
from keras import ops

from keras_embcomp._types import Array, Tensor
from keras_embcomp.numerics.execution import Execution

ROUNDS = 4
_PRIME = 2**31 - 1


def shuffle_constants(num_shuffles: int, seed: int) -> Array:
    """Returns the int32 constants of shuffles, `(ROUNDS, 3, num_shuffles)`."""
    generator = np.random.default_rng(seed)
    odd = 2 * generator.integers(2**28, 2**30, (ROUNDS, 3, num_shuffles)) + 1
    return odd.astype("int64").astype("int32")


def shuffled(
    execution: Execution, ids: Tensor, size: int, constants: Tensor
) -> Tensor:
    """Returns the place of each id in each shuffle, `(..., num_shuffles)`.

    The numbers lie row by row in a grid of about `sqrt(size)` columns, whose
    last row may be short. In turn, every row and every column is rotated by a
    random distance of its own. No rotation moves two numbers to one place,
    whatever the size.

    Args:
        execution: How the call runs.
        ids: int32 tensor or NumPy array of shape `(..., 1)`, of numbers from 0
            to `size - 1`.
        size: Integer, at most `2**31 - 1`.
        constants: The result of `shuffle_constants`, as a tensor if `ids` is
            one.
    """
    columns = math.isqrt(size - 1) + 1
    rows = -(-size // columns)
    missing = rows * columns - size  # in the last row
    row, column = ids // columns, ids % columns
    for turn in range(ROUNDS):
        if turn % 2 == 0:
            length = columns
            if missing:
                length = columns - row // (rows - 1) * missing
            column = (
                column + _distance(execution, row, constants[turn], columns)
            ) % length
        else:
            length = rows
            if missing:
                length = rows - (column + missing) // columns
            distance = _distance(execution, column, constants[turn], rows)
            row = (row + distance) % length
    return row * columns + column


def _distance(
    execution: Execution, line: Tensor, numbers: Tensor, most: int
) -> Tensor:
    """Returns a random distance below `most` for each line of the grid."""
    mixed = _remainder(execution, line * numbers[0] + numbers[1])
    mixed = _remainder(execution, mixed * numbers[2] + mixed // 2**15)
    return mixed // 2**11 % most


def _remainder(execution: Execution, number: Tensor) -> Tensor:
    """Returns `number % _PRIME`, which is not negative in an ONNX file too."""
    rest = number % _PRIME
    if isinstance(rest, np.ndarray) or not execution.for_onnx:
        return rest
    # tf2onnx writes a remainder of a division that truncates.
    return ops.where(ops.less(rest, 0), rest + _PRIME, rest)
