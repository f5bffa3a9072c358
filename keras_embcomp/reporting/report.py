"""What `report` returns: numbers that print, export and plot themselves."""

import dataclasses
import os
from typing import Any

from keras_embcomp.reporting.plot import plot_report
from keras_embcomp.text_tables import aligned, markdown

_COLUMNS = {
    "path": ("layer", "{}"),
    "layer": ("class", "{}"),
    "shape": ("rows x width", "{0[0]:,} x {0[1]:,}"),
    "parameters": ("parameters", "{:,}"),
    "bytes": ("bytes", "{:,}"),
    "dense_bytes": ("dense bytes", "{:,}"),
    "ratio": ("ratio", "{:.1f}"),
    "operations": ("operations", "{:,.0f}"),
    "microseconds": ("us for 64", "{:,.0f}"),
    "latency_ratio": ("x dense time", "{:.2f}"),
    "error": ("error", "{:.3f}"),
    "weighted_error": ("weighted error", "{:.3f}"),
    "limit": ("limit", "{:.3f}"),
    "cosine": ("cosine", "{:.3f}"),
    "neighbour_overlap": ("neighbours", "{:.1%}"),
}
_DECILES = {"decile_errors": "error", "decile_cosines": "cosine"}
_TEXT_COLUMNS = 3  # of the left, which are aligned to the left


@dataclasses.dataclass(frozen=True)
class TableReport:
    """What a table costs, and what it lost.

    Attributes:
        path: Path of the layer in the model.
        layer: Name of its class.
        shape: Rows and width of the table that it stands for.
        parameters: How many numbers its weights are, codes included.
        bytes: Bytes of its weights in memory; a code of one byte is one.
        dense_bytes: Bytes of a dense float32 layer in its place.
        operations: Arithmetic operations of the lookup of one id, or of the
            outputs for one token; `None` where they cannot be counted.
        microseconds: Median time of a lookup of 64 ids, or of the outputs for
            64 tokens.
        latency_ratio: That time over that of the dense layer; `None` if it
            would be too large.
        error: Norm of the difference to the baseline's table over its norm.
        weighted_error: The same, with squared errors weighed by frequencies.
        limit: The least error of Gaussian rows with the covariance and the
            lengths of the baseline's, in as many bytes: what the best of codes
            would lose. Weighed by frequencies where there are some.
        cosine: Mean cosine of a row and the baseline's.
        neighbour_overlap: Share of the 10 nearest neighbours of rows, by
            cosine, that are neighbours in the baseline, for a sample of 500.
        decile_errors: `error` of each tenth of the rows, the most frequent
            first.
        decile_cosines: `cosine` of each tenth.
    """

    path: str
    layer: str
    shape: tuple[int, int]
    parameters: int
    bytes: int
    dense_bytes: int
    operations: float | None
    microseconds: float
    latency_ratio: float | None
    error: float | None = None
    weighted_error: float | None = None
    limit: float | None = None
    cosine: float | None = None
    neighbour_overlap: float | None = None
    decile_errors: tuple[float, ...] = ()
    decile_cosines: tuple[float, ...] = ()

    @property
    def ratio(self) -> float:
        """Bytes of the dense layer over bytes of this one."""
        return self.dense_bytes / self.bytes


@dataclasses.dataclass(frozen=True)
class Size:
    """What a whole model takes.

    Attributes:
        parameters: How many numbers its weights are.
        bytes: Bytes of its weights in memory.
        file_bytes: Bytes of its `.keras` file, without optimizer state.
    """

    parameters: int
    bytes: int
    file_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.parameters:,} parameters, {self.bytes:,} bytes in memory, "
            f"{self.file_bytes:,} bytes on disk"
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """The tables of a model. It prints as text.

    Attributes:
        tables: A list of `TableReport`.
        model: The `Size` of the model.
        baseline: The `Size` of the baseline, or `None`.
    """

    tables: list[TableReport]
    model: Size
    baseline: Size | None = None

    def __str__(self) -> str:
        blocks = [aligned(self._cells(), _TEXT_COLUMNS)]
        if self.baseline is not None:
            blocks += [
                "By tenth of the rows, the most frequent first:\n"
                + aligned(self._decile_cells(), _TEXT_COLUMNS)
            ]
        return "\n\n".join([*blocks, "\n".join(self._sizes())])

    def to_markdown(self) -> str:
        """Returns the report as Markdown tables."""
        blocks = [markdown(self._cells(), _TEXT_COLUMNS)]
        if self.baseline is not None:
            blocks += [
                "By tenth of the rows, the most frequent first:",
                markdown(self._decile_cells(), _TEXT_COLUMNS),
            ]
        sizes = "\n".join(f"- {line}" for line in self._sizes())
        return "\n\n".join([*blocks, sizes])

    def to_pandas(self) -> Any:
        """Returns a `pandas.DataFrame` with a row for each table.

        Its columns are the attributes of a `TableReport`, with `rows` and
        `width` for the shape, and `error_1` to `error_10` and `cosine_1` to
        `cosine_10` for the tenths.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "`to_pandas` needs pandas: pip install pandas"
            ) from error
        records = []
        for table in self.tables:
            record = dataclasses.asdict(table) | {"ratio": table.ratio}
            record["rows"], record["width"] = record.pop("shape")
            for attribute, name in _DECILES.items():
                for tenth, value in enumerate(record.pop(attribute), 1):
                    record[f"{name}_{tenth}"] = value
            records.append(record)
        return pandas.DataFrame(records)

    def plot(self, path: str | os.PathLike) -> None:
        """Draws the bytes by layer and, with a baseline, error by frequency.

        Args:
            path: File to write, such as `report.png`, in a folder that exists.

        Raises:
            ImportError: if matplotlib is not installed.
            ValueError: if `path` cannot be written.
        """
        plot_report(self, path)

    def _cells(self):
        """Returns the cells of the table; columns that are empty are left."""
        shown = {
            key: column
            for key, column in _COLUMNS.items()
            if any(getattr(table, key) is not None for table in self.tables)
        }
        rows = [[title for title, _ in shown.values()]]
        for table in self.tables:
            values = [getattr(table, key) for key in shown]
            rows.append(
                [
                    "" if value is None else form.format(value)
                    for value, (_, form) in zip(
                        values, shown.values(), strict=True
                    )
                ]
            )
        return rows

    def _decile_cells(self):
        count = max(len(table.decile_errors) for table in self.tables)
        rows = [["layer", "class", "", *map(str, range(1, count + 1))]]
        for table in self.tables:
            for attribute, name in _DECILES.items():
                cells = [f"{value:.3f}" for value in getattr(table, attribute)]
                cells += [""] * (count - len(cells))
                rows.append([table.path, table.layer, name, *cells])
        return rows

    def _sizes(self):
        lines = [f"model: {self.model}"]
        if self.baseline is not None:
            lines.append(f"baseline: {self.baseline}")
        return lines
