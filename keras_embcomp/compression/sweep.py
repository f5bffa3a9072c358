"""Quality against bytes, over methods and ratios."""

import dataclasses
import numbers
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_embcomp._types import ArrayLike
from keras_embcomp.checks import finite_table
from keras_embcomp.compression.choose import (
    UnreachableError,
    best_plan,
    plan_compression,
    tries_of,
)
from keras_embcomp.compression.compress import compress
from keras_embcomp.compression.statistics import statistics_of
from keras_embcomp.files import written_whole
from keras_embcomp.models.find import Table, tables_of
from keras_embcomp.text_tables import markdown

_METHODS = ("auto", "product_codes", "low_rank")
_COLUMNS = ("method", "goal", "ratio", "bytes", "error", "quality")


@dataclasses.dataclass
class SweepRow:
    """A method at a ratio.

    Attributes:
        method: Name of the method.
        goal: The ratio that was asked for.
        ratio: Bytes of the dense tables over those of the compressed ones.
        bytes: Bytes of the compressed tables.
        error: Expected relative error, the largest of all tables.
        quality: What `evaluate` returned, or `None`.
    """

    method: str
    goal: float
    ratio: float
    bytes: int
    error: float
    quality: float | None = None


@dataclasses.dataclass
class Sweep:
    """Rows of a sweep, and the quality of the model as it is.

    Attributes:
        rows: A list of `SweepRow`.
        dense_bytes: Bytes of the dense tables.
        dense_quality: What `evaluate` returned for the model, or `None`.
    """

    rows: list[SweepRow]
    dense_bytes: int
    dense_quality: float | None = None

    def _cells(self):
        held = f"{self.dense_bytes:,}"
        yield ("dense", "", "1.0", held, "0.000", _shown(self.dense_quality))
        for row in self.rows:
            yield (
                row.method,
                f"{row.goal:g}",
                f"{row.ratio:.1f}",
                f"{row.bytes:,}",
                f"{row.error:.3f}",
                _shown(row.quality),
            )

    def to_markdown(self) -> str:
        """Returns a table of all rows."""
        return markdown([_COLUMNS, *self._cells()], left=1)

    def __str__(self) -> str:
        return self.to_markdown()

    def plot(self, path: str | os.PathLike) -> None:
        """Draws quality, or error without it, against bytes into a file."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.5), layout="tight")
        axes = figure.subplots()
        dense = self.dense_quality
        measured = dense is not None
        for method in dict.fromkeys(row.method for row in self.rows):
            own = sorted(
                (row.bytes / 1e6, row.quality if measured else row.error)
                for row in self.rows
                if row.method == method
            )
            axes.plot(
                *zip(*own, strict=True),
                marker="o",
                linestyle="--" if method == "auto" else "-",  # lies on others
                label=method,
            )
        if dense is not None:
            axes.axhline(dense, color="grey", linestyle="--", label="dense")
        axes.set_xscale("log")
        axes.set_xlabel("size of the tables (MB)")
        axes.set_ylabel("quality" if measured else "relative error")
        axes.grid(alpha=0.3)
        axes.legend()
        path = Path(path).expanduser()
        with written_whole(path) as temporary:
            figure.savefig(temporary, dpi=150)


def sweep(
    model: keras.Model | ArrayLike,
    ratios: Sequence[float] = (4, 8, 16, 32, 64),
    methods: Sequence[str] = _METHODS,
    evaluate: Callable[[keras.Model], float] | None = None,
    frequencies: Any = None,
    data: Any = None,
) -> Sweep:
    """Returns what methods lose at ratios.

    Ratios that a method does not reach have no row.

    Args:
        model: Built model of any class, or a table of shape
            `(vocabulary, width)`.
        ratios: Numbers above 1: bytes before over bytes after.
        methods: Names of methods, as `plan_compression` takes them.
        evaluate: A function of a model that returns a number. Each compressed
            model is given to it, and the model itself. Not for a table.
        frequencies: As in `plan_compression`; for a table, its counts.
        data: As in `plan_compression`. Not for a table.

    Returns:
        A `Sweep`, which prints as a table; `plot(path)` draws it.

    Example:

    >>> table = np.random.normal(size=(2_000, 32))
    >>> found = sweep(table, ratios=(4, 8), methods=("low_rank",))
    >>> [row.goal for row in found.rows]
    [4, 8]
    """
    if not isinstance(model, keras.Model):
        _check_none(evaluate=evaluate, data=data)
        return _of_table(model, ratios, methods, frequencies)
    if data is not None:  # once for all
        data = statistics_of(model, data)
    dense = None if evaluate is None else float(evaluate(model))
    rows, before = [], sum(t.bytes for t in tables_of(model))
    for method, ratio, plan in _plans(
        ratios,
        methods,
        lambda method, ratio: plan_compression(
            model,
            ratio=ratio,
            frequencies=frequencies,
            method=method,
            data=data,
        ),
    ):
        after = plan.bytes_after
        error = max(entry.error for entry in plan.tables)
        quality = None
        if evaluate is not None:
            small = compress(model, plan, frequencies=frequencies, data=data)
            quality = float(evaluate(small))
        rows.append(
            SweepRow(method, ratio, before / after, after, error, quality)
        )
    return Sweep(rows, before, dense)


def _shown(quality):
    return "" if quality is None else f"{quality:.4f}"


def _check_none(**arguments):
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"`{name}` must be None for a table: it is for a model. "
                f"Received: {name}={value}"
            )


def _of_table(table, ratios, methods, counts):
    table = finite_table("model", table).astype("float32")
    held = Table("table", None, table, counts)
    rows = [
        SweepRow(
            method,
            ratio,
            held.bytes / plan.bytes_after,
            plan.bytes_after,
            plan.error,
        )
        for method, ratio, plan in _plans(
            ratios,
            methods,
            lambda method, ratio: best_plan(
                held, held.bytes / ratio, tries_of(method)
            ),
        )
    ]
    return Sweep(rows, held.bytes)


def _plans(ratios, methods, plan_of):
    """Yields method, ratio and plan where the ratio is reached."""
    reached = False
    for name, values in (("methods", methods), ("ratios", ratios)):
        if isinstance(values, str) or not np.iterable(values):
            raise ValueError(
                f"`{name}` must be a list or tuple. Received: {name}={values!r}"
            )
    for method in methods:
        tries_of(method)
    if not all(
        isinstance(ratio, numbers.Real) and 1 < float(ratio) < np.inf
        for ratio in ratios
    ):
        raise ValueError(
            "`ratios` must be finite numbers above 1. "
            f"Received: ratios={tuple(ratios)}"
        )
    for method in methods:
        for ratio in ratios:
            try:
                plan = plan_of(method, ratio)
            except UnreachableError:
                continue
            reached = True
            yield method, ratio, plan
    if not reached:
        raise UnreachableError(
            "`ratios` must hold one that a method reaches. "
            f"Received: ratios={tuple(ratios)}, methods={tuple(methods)}"
        )
