"""What `compress` is to do with each table: a value to print, edit and save."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Self

from keras_embcomp.files import written_whole
from keras_embcomp.text_tables import aligned

_COLUMNS = (
    "layer",
    "rows x width",
    "method",
    "format",
    "arguments",
    "bytes before",
    "bytes after",
    "ratio",
    "error",
    "operations",
)


@dataclasses.dataclass
class TablePlan:
    """What becomes of one table.

    Attributes:
        layer: Path of the layer in the model.
        shape: Rows and width of the table.
        method: Name of a method, or `"keep"` to leave the layer as it is.
        number_format: `None` for float32, `"int8"` or `"int4"`.
        arguments: Structural arguments of the method's `from_dense`.
        bytes_before: Bytes of the dense table.
        bytes_after: Bytes of the compressed layer, without a bias.
        error: Expected relative error of the table, weighed by counts.
        operations: Multiplications and additions of a lookup, or of the
            logits of one token for an output layer.
    """

    layer: str
    shape: tuple[int, int]
    method: str
    number_format: str | None
    arguments: dict[str, Any]
    bytes_before: int
    bytes_after: int
    error: float
    operations: int

    def __post_init__(self) -> None:
        rows, width = self.shape
        self.shape = (rows, width)
        self.arguments = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.arguments.items()
        }

    def _cells(self):
        arguments = ", ".join(f"{k}={v}" for k, v in self.arguments.items())
        return (
            self.layer,
            f"{self.shape[0]:,} x {self.shape[1]}",
            self.method,
            self.number_format or "",
            arguments,
            f"{self.bytes_before:,}",
            f"{self.bytes_after:,}",
            f"{self.bytes_before / self.bytes_after:.1f}",
            f"{self.error:.3f}",
            f"{self.operations:,}",
        )


@dataclasses.dataclass
class CompressionPlan:
    """The plans of all tables of a model.

    It prints as a table. Change an entry of `tables` before it is applied, or
    remove one to leave its layer as it is.

    Args:
        tables: List of `TablePlan`, whose fields are `layer`, `shape`,
            `method`, `number_format`, `arguments`, `bytes_before`,
            `bytes_after`, `error` and `operations`.
    """

    tables: list[TablePlan]

    @property
    def bytes_before(self) -> int:
        """Bytes of the dense tables."""
        return sum(table.bytes_before for table in self.tables)

    @property
    def bytes_after(self) -> int:
        """Bytes of the compressed tables."""
        return sum(table.bytes_after for table in self.tables)

    def __str__(self) -> str:
        rows = [_COLUMNS, *(table._cells() for table in self.tables)]
        total = (
            f"{self.bytes_before:,} -> {self.bytes_after:,} bytes, "
            f"{self.bytes_before / max(self.bytes_after, 1):.1f} times smaller"
        )
        return f"{aligned(rows)}\n{total}"

    def to_json(self) -> str:
        """Returns the plan as text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the plan that `to_json` wrote.

        Raises:
            ValueError: if it is another text.
        """
        try:
            tables = [
                TablePlan(**table) for table in json.loads(text)["tables"]
            ]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                "`text` must be that of a plan, as `to_json` writes it. "
                f"Received: text={text[:60]!r} ({error})"
            ) from error
        return cls(tables)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the plan to a JSON file."""
        path = Path(path).expanduser()
        with written_whole(path) as temporary:
            temporary.write_text(self.to_json() + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Returns the plan of a JSON file."""
        return cls.from_json(Path(path).expanduser().read_text("utf-8"))
