"""Argument checks shared by the constructors and the numerics."""

import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_embcomp._types import Array, ArrayLike


def positive_int(name: str, value: Any) -> int:
    """Returns `value` as an `int`.

    Raises:
        ValueError: unless `value` is an integer above 0.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Integral)
        or value <= 0
    ):
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value}"
        )
    return int(value)


def natural_number(name: str, value: Any) -> int:
    """Returns `value` as an `int`.

    Raises:
        ValueError: unless `value` is an integer, 0 or more.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Integral)
        or value < 0
    ):
        raise ValueError(
            f"`{name}` must be an integer, 0 or more. Received: {name}={value}"
        )
    return int(value)


def positive_number(name: str, value: Any) -> float:
    """Returns `value` as a `float`.

    Raises:
        ValueError: unless `value` is a finite number above 0.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
        raise ValueError(
            f"`{name}` must be a finite number above 0. "
            f"Received: {name}={value}"
        )
    return float(value)


def one_of(name: str, value: Any, known: Iterable[Any]) -> None:
    """Raises a `ValueError` unless `value` is one of those that are known."""
    known = tuple(known)
    if value not in known:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(str, known))}. "
            f"Received: {name}={value}"
        )


def at_most(name: str, value: float, bound_name: str, bound: float) -> None:
    """Raises a `ValueError` if `value` exceeds `bound`."""
    if value > bound:
        raise ValueError(
            f"`{name}` must not exceed `{bound_name}`. "
            f"Received: {name}={value}, {bound_name}={bound}"
        )


def finite_table(name: str, value: ArrayLike) -> Array:
    """Returns `value` as a float array of shape `(vocabulary, width)`.

    float32 and float64 stay; any other dtype becomes float32.

    Raises:
        ValueError: if `value` is complex, is empty, is not two-dimensional or
            holds NaN or infinity.
    """
    table = np.asarray(value)
    if np.iscomplexobj(table):
        raise ValueError(
            f"`{name}` must hold real numbers. "
            f"Received: {name} of dtype {table.dtype}"
        )
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(
            f"`{name}` must be a non-empty array of shape `(vocabulary, "
            f"width)`. Received: {name} of shape {table.shape}"
        )
    if table.dtype not in (np.float32, np.float64):
        table = table.astype("float32")
    finite_rows = np.isfinite(table).all(axis=1)
    if not finite_rows.all():
        raise ValueError(
            f"`{name}` must hold finite numbers only. Received: {name} with "
            f"NaN or infinity in {np.sum(~finite_rows)} of its {len(table)} "
            f"rows, the first of them row {np.argmin(finite_rows)}"
        )
    return table


def frequency_weights(value: ArrayLike | None, vocabulary: int) -> Array:
    """Returns counts as float64 weights of mean 1.

    Args:
        value: Counts of shape `(vocabulary,)`. `None` gives every row weight 1.
        vocabulary: Integer. Rows of the table.

    Raises:
        ValueError: if the counts have another shape, are negative or not
            finite, or are all zero.
    """
    if value is None:
        return np.ones(vocabulary)
    weights = np.asarray(value, dtype="float64")
    if weights.shape != (vocabulary,):
        raise ValueError(
            "`frequencies` must hold one count for each of the "
            f"{vocabulary} rows of the table. "
            f"Received: frequencies of shape {weights.shape}"
        )
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(
            "`frequencies` must be finite and not negative. "
            f"Received: frequencies with minimum {weights.min()}"
        )
    if weights.sum() == 0:
        raise ValueError(
            f"`frequencies` must not all be zero. Received: {vocabulary} zeros"
        )
    return weights / weights.mean()
