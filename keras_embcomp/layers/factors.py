"""Quantized factors: integers and scales that act as a float matrix."""

import math
from collections.abc import Callable

import numpy as np
from keras import ops

from keras_embcomp._types import Array, Factor, Tensor
from keras_embcomp.numerics.blocks import row_blocks
from keras_embcomp.numerics.quantized import (
    Format,
    fitted_scales,
    packed,
    rounded,
    scales_of,
    unpacked,
)


class RoundedFactor:
    """A factor whose entries are integers times scales.

    It is abstract; what its `values` are is up to the final class.

    Args:
        values: Variable with a row for each row of the factor.
        column_scales: float32 variable.
        steps: int8 variable with a row for each row of the factor, or `None`.
        form: A `Format`.
        shape: Tuple, the shape of the factor.
    """

    def __init__(
        self,
        values: Tensor,
        column_scales: Tensor,
        steps: Tensor | None,
        form: Format,
        shape: tuple[int, ...],
    ) -> None:
        self.values = values
        self.column_scales = column_scales
        self.steps = steps
        self.form = form
        self.shape = shape

    @property
    def columns(self) -> int:
        """Numbers in a row."""
        return math.prod(self.shape[1:])

    @property
    def weights(self) -> list[Tensor]:
        """The variables."""
        parts = (self.values, self.column_scales, self.steps)
        return [part for part in parts if part is not None]

    def __getitem__(self, rows):
        """Returns a table of a range of rows."""
        values = self.values[rows]
        steps = None if self.steps is None else self.steps[rows]
        shape = (values.shape[0], *self.shape[1:])
        return type(self)(values, self.column_scales, steps, self.form, shape)

    def decoded(self, pick: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns rows as a float32 tensor of shape `(..., *shape[1:])`.

        Args:
            pick: Function that takes these rows of a variable.
        """
        return self._shaped(
            self._decoded(pick(self.values), self._scales(pick))
        )

    def _shaped(self, rows):
        if len(self.shape) == 2:
            return rows
        return ops.reshape(rows, (*ops.shape(rows)[:-1], *self.shape[1:]))

    def _decoded(self, values, scales):
        raise NotImplementedError

    def _scales(self, pick=lambda variable: variable):
        steps = None if self.steps is None else pick(self.steps)
        return scales_of(self.column_scales, steps, self.form, self.columns)

    def scale_values(self) -> tuple[Array, Array | None]:
        """Returns the scales as arrays."""
        steps = self.steps
        if steps is not None:
            steps = ops.convert_to_numpy(steps)
        return ops.convert_to_numpy(self.column_scales), steps

    def assign(
        self, factor: Tensor, scales: tuple[Array, Array | None] | None = None
    ) -> None:
        """Assigns floats, rounded to the scales, or to those that fit best."""
        if not isinstance(factor, np.ndarray):
            factor = ops.convert_to_numpy(factor)  # which copies arrays, too
        rows = np.reshape(factor, (self.shape[0], -1))
        column_scales, steps = scales or fitted_scales(rows, self.form)
        self.column_scales.assign(column_scales)
        if self.steps is not None:
            self.steps.assign(steps)
        self._assign(rows.astype("float32", copy=False))

    def _assign(self, rows):
        raise NotImplementedError


class PackedFactor(RoundedFactor):
    """A factor in bytes; its `values` hold one integer each, or several."""

    def _decoded(self, values, scales):
        return unpacked(values, self.form, self.columns) * scales

    def integers(self) -> Array:
        """Returns the integers as an int8 array of shape `(rows, columns)`.

        Scales multiply them and the `shift` of the format.
        """
        values = unpacked(self.values, self.form, self.columns)
        values = ops.convert_to_numpy(values) - self.form.shift
        return values.astype("int8")

    def scaled(
        self, integers: Tensor, pick: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Returns picked rows, as `decoded`, from their integers."""
        return self._shaped(integers * self._scales(pick))

    def _assign(self, rows):
        bytes_of_rows = self.form.packed_width(self.columns)
        values = np.empty((len(rows), bytes_of_rows), self.form.dtype)
        for part in row_blocks(len(rows)):
            scales = self._scales(lambda variable, part=part: variable[part])
            integers = rounded(rows[part], scales, self.form)
            integers = ops.convert_to_numpy(integers)
            values[part] = packed(integers, self.form)
        self.values.assign(values)


class FakePackedFactor(RoundedFactor):
    """A factor in floats that is used as if it were packed.

    Gradients pass the rounding as if it were not there.
    """

    def _decoded(self, values, scales):
        rows = ops.cast(values, "float32")
        if len(self.shape) > 2:
            lead = ops.shape(rows)[: 1 - len(self.shape)]
            rows = ops.reshape(rows, (*lead, self.columns))
        found = rounded(rows, scales, self.form) * scales
        return rows + ops.stop_gradient(found - rows)

    def _assign(self, rows):
        self.values.assign(rows.reshape(self.shape))


def in_numpy(factor: Factor) -> Array:
    """Returns a factor as a float32 array."""
    if isinstance(factor, RoundedFactor):
        factor = factor.decoded(ops.convert_to_tensor)
    return ops.convert_to_numpy(ops.cast(factor, "float32"))
