"""Blocks of rows, and units for numbers whose squares would overflow."""

import math
from collections.abc import Iterator

import numpy as np

from keras_embcomp._types import Array

BLOCK_ROWS = 16_384
# Squares of float32 numbers within these bounds, and sums of many of them, are
# far from its largest and its smallest number.
_SMALL, _LARGE = 2.0**-40, 2.0**40


def row_blocks(count: int, size: int = BLOCK_ROWS) -> Iterator[slice]:
    """Yields slices that cover the rows `0 ... count - 1` in order.

    Args:
        count: Integer. Number of rows.
        size: Integer. Rows of a block; the last block may be shorter.
    """
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def unit_of(table: Array) -> float:
    """Returns a power of two by which a table can be divided without loss.

    It is 1 unless the largest entry is so large or so small that squares would
    overflow or vanish in float32.

    Args:
        table: Finite array.
    """
    largest = max(float(table.max(initial=0)), -float(table.min(initial=0)))
    if largest == 0 or _SMALL < largest < _LARGE:
        return 1.0
    return 2.0 ** math.floor(math.log2(largest))


def squared_norms(rows: Array) -> Array:
    """Returns the squared norm of each row, in float64."""
    return np.einsum("ij,ij->i", rows, rows, dtype="float64")
