"""Quantized factors: integers of 8 bits or fewer, and their scales.

An entry is `integer * column_scale * row_scale`. Each column of a tall factor
has a float32 scale. Each block of a row has a scale of one byte, a *step*: a
sign, and a power of two in eighths of an octave. In 4 bits the integers are -8
to 7; the sign of the step lets the entry of largest size in a block be -8. In
2 bits the numbers that scales multiply are -1.5, -0.5, 0.5 and 1.5: of random
numbers they lose 0.34, where -2 to 1 lose 0.37. Only blocks of zeros have the
step 0. Ternary numbers are -1, 0 and 1, five a byte.
"""

import math
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_embcomp._types import Array, Tensor
from keras_embcomp.numerics.blocks import row_blocks, unit_of

_LEAST_BYTES = 8  # of a row that has scales besides the columns' scales
_COLUMN_SHARE = 16  # least bytes of integers per byte of column scales
_STEPS = 8  # in an octave
_SMALLEST = 127  # the step of the smallest scale


class _Levels(NamedTuple):
    """The numbers of a format, which scales multiply.

    Attributes:
        lowest: The smallest number.
        size: How many there are, 1 apart.
        in_byte: How many numbers a byte holds.
        searched: Steps to try below the scale that clips nothing.
    """

    lowest: float
    size: int
    in_byte: int
    searched: int = 12

    @property
    def highest(self) -> float:
        return self.lowest + self.size - 1


_LEVELS = {
    "int8": _Levels(-127, 255, 1),
    "int4": _Levels(-8, 16, 2),
    "int2": _Levels(-1.5, 4, 4, searched=16),
    "ternary": _Levels(-1, 3, 5, searched=16),
}
MODES = tuple(_LEVELS)


class Format(NamedTuple):
    """How the numbers of a factor are stored.

    Attributes:
        mode: One of `MODES`.
        block: Number of columns that share a scale of a row; `None` for all
            columns.
    """

    mode: str
    block: int | None

    @property
    def levels(self) -> _Levels:
        """The numbers that scales multiply."""
        return _LEVELS[self.mode]

    @property
    def largest(self) -> float:
        """The largest absolute value of a number."""
        return -self.levels.lowest

    @property
    def shift(self) -> float:
        """What is to be added to integers: a half where 0 is no level."""
        return self.levels.lowest % 1

    @property
    def dtype(self) -> str:
        """The dtype in which integers are stored."""
        return "int8" if self.levels.in_byte == 1 else "uint8"

    def packed_width(self, columns: int) -> int:
        """Returns the bytes of a row's integers."""
        return -(-columns // self.levels.in_byte)

    def width_of_block(self, columns: int) -> int:
        """Returns the number of columns that share a scale of a row."""
        return min(self.block or columns, columns)

    def column_scales(self, rows: int, columns: int) -> int:
        """Returns the number of column scales: one per column, or just one."""
        pays = rows // self.levels.in_byte >= 4 * _COLUMN_SHARE
        return columns if pays else 1

    def row_scales(self, rows: int, columns: int) -> int:
        """Returns the number of scales of each row."""
        narrow = self.packed_width(columns) < _LEAST_BYTES
        if narrow and self.column_scales(rows, columns) > 1:
            return 0
        return -(-columns // self.width_of_block(columns))


def fitted_scales(table: Array, form: Format) -> tuple[Array, Array | None]:
    """Returns the scales with the least squared error among those tried.

    Args:
        table: Finite float array of shape `(rows, columns)`.
        form: A `Format`.

    Returns:
        The column scales, float32 of shape `(columns,)` or `(1,)`, and the
        steps of the row scales, int8 of shape `(rows, blocks)`, or `None`.
    """
    rows, columns = table.shape
    table = np.asarray(table, "float32")
    unit = unit_of(table)
    if unit != 1:
        column_scales, steps = fitted_scales(table / np.float32(unit), form)
        return column_scales * np.float32(unit), steps
    if not form.row_scales(rows, columns):
        return _scales_of_columns(table, form), None
    scales = np.ones(form.column_scales(rows, columns), "float32")
    if len(scales) > 1:
        squares = np.zeros(columns)
        for part in row_blocks(rows):
            squares += np.square(table[part]).sum(axis=0, dtype="float64")
        scales = np.sqrt(squares / rows)
        scales = np.where(scales > 0, scales, 1).astype("float32")
    most = max(
        float(np.abs(table[part] / scales).max()) for part in row_blocks(rows)
    )
    # One step more than needed, because a step of 0 has no sign.
    base = (most or 1.0) / form.largest * 2 ** (1 / _STEPS)
    scales = (scales * base).astype("float32")
    blocks = [
        _steps_of_rows(table[part], scales, form) for part in row_blocks(rows)
    ]
    return scales, np.concatenate(blocks)


def _scales_of_columns(table: Array, form: Format) -> Array:
    extremes = _signed_extremes(table, 0)
    widest = np.where(extremes == 0, 1, extremes) / _largest_signed(form)
    best, least = widest, np.full(table.shape[1], np.inf)
    for step in range(form.levels.searched):
        scales = (widest * 2 ** (-step / _STEPS)).astype("float32")
        errors = np.zeros(table.shape[1])
        for part in row_blocks(len(table)):
            squares = _squared_errors(table[part], scales, form)
            errors += squares.sum(axis=0, dtype="float64")
        best = np.where(errors < least, scales, best)
        least = np.minimum(errors, least)
    if form.shift:
        best = np.where(extremes == 0, 0, best)
    return best.astype("float32")


def _steps_of_rows(table: Array, scales: Array, form: Format) -> Array:
    columns = table.shape[1]
    width = form.width_of_block(columns)
    missing = -columns % width
    blocks = np.pad(table / scales, ((0, 0), (0, missing)))
    blocks = blocks.reshape(len(table), -1, width)
    weights = np.broadcast_to(np.square(scales), columns)
    weights = np.pad(weights, (0, missing)).reshape(-1, width)
    extremes = _signed_extremes(blocks, 2) / _largest_signed(form)
    sizes = np.maximum(np.abs(extremes), 2.0 ** (-_SMALLEST / _STEPS))
    start = np.clip(np.floor(-_STEPS * np.log2(sizes)), 1, _SMALLEST)
    signs = np.where(extremes < 0, -1, 1)
    best, least = signs * start, np.full(start.shape, np.inf)
    for step in range(form.levels.searched):
        steps = signs * np.minimum(start + step, _SMALLEST)
        tried = _of_steps(steps)[..., None].astype("float32")
        errors = _squared_errors(blocks, tried, form) * weights
        errors = errors.sum(axis=2)
        best = np.where(errors < least, steps, best)
        least = np.minimum(errors, least)
    if form.shift:
        best = np.where(extremes == 0, 0, best)
    return best.astype("int8")


def _signed_extremes(table: Array, axis: int) -> Array:
    """Returns the entries of largest size along an axis, with their signs."""
    high, low = table.max(axis=axis), table.min(axis=axis)
    return np.where(high > -low, high, low)


def _largest_signed(form: Format) -> float:
    """Returns the number for the entry of largest size."""
    lowest, highest = form.levels.lowest, form.levels.highest
    return lowest if -lowest > highest else highest


def _squared_errors(table: Array, scales: Array, form: Format) -> Array:
    low, high, shift = form.levels.lowest, form.levels.highest, form.shift
    nearest = np.rint(table / scales - shift) + shift
    return np.square(np.clip(nearest, low, high) * scales - table)


def _of_steps(steps: Array) -> Array:
    """Returns the row scales of steps, in NumPy."""
    return np.sign(steps) * np.exp2(-np.abs(steps) / _STEPS)


def scales_of(
    column_scales: Tensor, steps: Tensor | None, form: Format, columns: int
) -> Tensor:
    """Returns scales that multiply integers of shape `(..., columns)`.

    Args:
        column_scales: Float tensor of shape `(columns,)` or `(1,)`.
        steps: int8 tensor of shape `(..., blocks)`, or `None`.
        form: A `Format`.
        columns: Integer.
    """
    column_scales = ops.convert_to_tensor(column_scales)
    if steps is None:
        return column_scales
    steps = ops.cast(steps, "float32")
    octaves = ops.abs(steps) * (-math.log(2) / _STEPS)
    scales = ops.sign(steps) * ops.exp(octaves)
    if steps.shape[-1] > 1:
        block = ops.ones((form.width_of_block(columns),), "float32")
        scales = ops.expand_dims(scales, -1) * block
        width = math.prod(scales.shape[-2:])  # of no rows -1 has no value
        scales = ops.reshape(scales, (*ops.shape(steps)[:-1], width))
        scales = scales[..., :columns]
    return scales * column_scales


def rounded(rows: Tensor, scales: Tensor, form: Format) -> Tensor:
    """Returns the levels nearest to `rows / scales`, as floats."""
    levels = form.levels
    if form.shift:
        # Blocks of zeros have no scale.
        nearest = ops.round(ops.divide_no_nan(rows, scales) - form.shift)
        nearest = nearest + form.shift
    else:
        nearest = ops.round(ops.divide(rows, scales))
    return ops.clip(nearest, levels.lowest, levels.highest)


def packed(numbers: Array, form: Format) -> Array:
    """Returns levels, a float array `(rows, columns)`, as bytes.

    A byte of several holds one of each part of a row: in 4 bits, the low bits
    hold an entry of the left half and the high bits one of the right half.
    """
    if form.dtype == "int8":
        return numbers.astype("int8")
    levels, columns = form.levels, numbers.shape[1]
    digits = (numbers - levels.lowest).astype("uint8")
    width = form.packed_width(columns)
    codes = np.zeros((len(numbers), width), "uint8")
    for part in reversed(range(levels.in_byte)):
        codes *= levels.size
        found = digits[:, part * width : (part + 1) * width]
        codes[:, : found.shape[1]] += found
    return codes


def unpacked(codes: Tensor, form: Format, columns: int) -> Tensor:
    """Returns the levels in bytes, as float32 of shape `(..., columns)`."""
    codes = ops.cast(codes, "float32")
    if form.dtype == "int8":
        return codes
    levels, width = form.levels, form.packed_width(columns)
    parts = []
    # No bit operations: LiteRT has none.
    for part in range(-(-columns // width)):
        left = codes
        if part + 1 < levels.in_byte:
            codes = _divided(codes, levels.size)
            left = left - levels.size * codes
        missing = (part + 1) * width - columns
        parts.append(left[..., : width - missing] if missing > 0 else left)
    return ops.concatenate(parts, axis=-1) + levels.lowest


def _divided(codes: Tensor, count: int) -> Tensor:
    """Returns bytes over a number of levels, without their remainders."""
    if count & (count - 1):
        # 1 / 3 is no float: far enough from whole numbers to floor.
        return ops.floor((codes + 0.5) * (1 / count))
    return ops.floor(codes * (1 / count))
