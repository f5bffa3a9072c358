"""Errors that count as much as what multiplies the columns of a table.

A logit is `h . a`, and its error for a row `b` in the place of `a` is
`h . (a - b)`. Over hidden states with second moments `C = E[h h^T]` the mean
squared error is `(a - b)^T C (a - b)`, the squared norm of `(a - b) C^(1/2)`.
A method that is fitted to `A C^(1/2)` by plain squared errors, and whose result
is multiplied by `C^(-1/2)`, minimises that sum over all rows (Chen et al. 2021,
DRONE, section 3, for low ranks).
"""

from typing import NamedTuple, Self

import numpy as np

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.numerics.blocks import row_blocks

_LEAST = 1e-3  # of the mean: what a direction counts at least
_ROUNDING = 1e-3  # of the largest: such are sums in float32


class Turning(NamedTuple):
    """A turn of a table's columns, in which all of them count alike.

    Attributes:
        root: `C^(1/2)`, of shape `(width, width)`.
        inverse: `C^(-1/2)`.
    """

    root: Array
    inverse: Array

    @classmethod
    def of(cls, covariance: ArrayLike, width: int) -> Self:
        """Returns the turn for second moments of what multiplies a table.

        Directions that were hardly seen count a little, so that few data do not
        give them up.

        Args:
            covariance: Symmetric array of shape `(width, width)` without
                eigenvalues below 0.
            width: Integer. Columns of the table.

        Raises:
            ValueError: for another array.

        Reference:
        - [Chen et al., 2021](https://openreview.net/forum?id=b6zgiIEUq4R)
        """
        moments = np.asarray(covariance, "float64")
        _check(moments, width)
        values, directions = np.linalg.eigh((moments + moments.T) / 2)
        if values[0] < -_ROUNDING * values[-1]:
            raise ValueError(
                "`covariance` must have no eigenvalue below 0. "
                f"Received: an eigenvalue of {values[0]}"
            )
        values = np.maximum(values / values.mean(), 0) + _LEAST
        roots = np.sqrt(values / values.mean())
        return cls(
            (directions * roots @ directions.T).astype("float32"),
            (directions / roots @ directions.T).astype("float32"),
        )

    def turned(self, table: Array) -> Array:
        """Returns `table @ C^(1/2)`, float32."""
        return _times(table, self.root)

    def returned(self, table: Array) -> Array:
        """Returns `table @ C^(-1/2)`, float32, of a table that was turned."""
        return _times(table, self.inverse)


def _times(table: Array, matrix: Array) -> Array:
    result = np.empty(table.shape, "float32")
    for part in row_blocks(len(table)):
        result[part] = table[part] @ matrix
    return result


def _check(moments: Array, width: int) -> None:
    if moments.shape != (width, width):
        raise ValueError(
            "`covariance` must have a row and a column for each of the "
            f"{width} columns of the table. "
            f"Received: covariance of shape {moments.shape}"
        )
    if not np.isfinite(moments).all():
        raise ValueError(
            "`covariance` must hold finite numbers only. Received: "
            f"{np.sum(~np.isfinite(moments))} that are not"
        )
    largest = np.abs(moments).max()
    if largest == 0:
        raise ValueError(
            "`covariance` must not be all zero. Received: "
            f"{width} x {width} zeros"
        )
    if np.abs(moments - moments.T).max() > _ROUNDING * largest:
        raise ValueError(
            "`covariance` must be symmetric. Received: entries that differ by "
            f"{np.abs(moments - moments.T).max()} from their mirror"
        )
