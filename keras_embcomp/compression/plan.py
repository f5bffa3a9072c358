"""What `compress` is to do with each table: a value to print, edit and save."""

import contextlib
import dataclasses
import json
import math
import numbers
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from keras_embcomp.compression.entries import check_structure, trains
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
_ABOVE_0 = "an integer above 0"


@dataclasses.dataclass
class TablePlan:
    """What becomes of one table.

    Attributes:
        layer: Path of the layer in the model.
        shape: Rows and width of the table.
        method: Name of a method, or `"keep"` to leave the layer as it is.
        number_format: `None` for float32, or a mode of `quantize`.
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
        self.shape = _as_tuples(self.shape)
        if isinstance(self.arguments, dict):
            self.arguments = {
                name: _as_tuples(value)
                for name, value in self.arguments.items()
            }
        self.check()

    @property
    def trains(self) -> bool:
        """Whether the table has weights that train in this form."""
        return trains(
            self.method, self.number_format, self.arguments, self.shape
        )

    def check(self) -> None:
        """Raises `ValueError` for a field that no table can have."""
        shape = self.shape
        for name, right, text in (
            ("layer", _is_text(self.layer), "the path of a layer"),
            (
                "shape",
                isinstance(shape, tuple)
                and len(shape) == 2
                and all(_is_count(size, 1) for size in shape),
                "rows and width of a table, two integers above 0",
            ),
            ("method", _is_text(self.method), "the name of a method"),
            (
                "number_format",
                self.number_format is None or _is_text(self.number_format),
                "None or the name of a number format",
            ),
            (
                "arguments",
                isinstance(self.arguments, dict)
                and all(map(_is_text, self.arguments)),
                "a dictionary of arguments by name",
            ),
            ("bytes_before", _is_count(self.bytes_before, 1), _ABOVE_0),
            ("bytes_after", _is_count(self.bytes_after, 1), _ABOVE_0),
            (
                "error",
                _is_real(self.error) and 0 <= self.error < math.inf,
                "a finite number, 0 or more",
            ),
            (
                "operations",
                _is_count(self.operations, 0),
                "an integer, 0 or more",
            ),
        ):
            if not right:
                raise ValueError(
                    f"`{name}` must be {text}. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
        check_structure(
            self.method, self.number_format, self.arguments, self.shape
        )

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
        frozen = [table.layer for table in self.tables if not table.trains]
        note = ""
        if frozen:
            note = (
                f"\nNo weight of {', '.join(frozen)} trains in this form. To "
                "fine-tune, call `enable_lora(rank)` on the compressed layer."
            )
        return f"{aligned(rows)}\n{total}{note}"

    def to_json(self) -> str:
        """Returns the plan as text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the plan that `to_json` wrote.

        Raises:
            ValueError: if it is another text; names the entry and the field.
        """
        try:
            found = json.loads(text, object_pairs_hook=_once)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                "`text` must be that of a plan, as `to_json` writes it. "
                f"Received: text={text[:60]!r} ({error})"
            ) from error
        if not isinstance(found, dict) or set(found) != {"tables"}:
            raise ValueError(
                "A plan must have the field `tables` and no other. "
                f"Received: {_shown(found)}"
            )
        if not isinstance(found["tables"], list):
            raise ValueError(
                "`tables` must be a list of entries. "
                f"Received: tables={_shown(found['tables'])}"
            )
        plan = cls(
            [
                _entry(number, value)
                for number, value in enumerate(found["tables"], start=1)
            ]
        )
        plan.check()
        return plan

    def check(self) -> None:
        """Raises `ValueError` unless each entry is for a table of its own."""
        if not isinstance(self.tables, list | tuple):
            raise ValueError(
                "`tables` must be a list of `TablePlan`. "
                f"Received: tables={_shown(self.tables)}"
            )
        layers: dict[str, int] = {}
        for number, table in enumerate(self.tables, start=1):
            if not isinstance(table, TablePlan):
                raise ValueError(
                    f"Entry {number} of the plan must be a `TablePlan`. "
                    f"Received: {table!r}"
                )
            with entry_named(number, table.layer):
                table.check()
                if table.layer in layers:
                    raise ValueError(
                        "`layer` must be in one entry only. Received: "
                        f"layer={table.layer!r}, as in entry "
                        f"{layers[table.layer]}"
                    )
            layers[table.layer] = number

    def save(self, path: str | os.PathLike) -> None:
        """Writes the plan to a JSON file."""
        path = Path(path).expanduser()
        with written_whole(path) as temporary:
            temporary.write_text(self.to_json() + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Returns the plan of a JSON file, and raises as `from_json`."""
        path = Path(path).expanduser()
        try:
            return cls.from_json(path.read_text("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"A plan must be JSON in UTF-8. Received: path={path} ({error})"
            ) from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


@contextlib.contextmanager
def entry_named(number: int, layer: Any) -> Iterator[None]:
    """Errors within begin with an entry's number and its layer."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"Entry {number} of the plan ({_shown(layer)}): {error}"
        ) from error


def _entry(number, value):
    """Returns an entry of a plan in JSON, or raises."""
    if not isinstance(value, dict):
        raise ValueError(
            f"Entry {number} of the plan must have fields. "
            f"Received: {_shown(value)}"
        )
    fields = {field.name for field in dataclasses.fields(TablePlan)}
    with entry_named(number, value.get("layer")):
        for text, names in (
            ("must be there", fields - set(value)),
            ("must not be there", set(value) - fields),
        ):
            if names:
                raise ValueError(
                    f"`{min(names)}` {text}: an entry has the fields "
                    f"{', '.join(sorted(fields))}. "
                    f"Received: {', '.join(sorted(value)) or 'none'}"
                )
        return TablePlan(**value)


def _once(pairs):
    """Returns pairs as a dictionary, or raises if a name comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _shown(value):
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _as_tuples(value):
    """Returns lists as tuples, as constructors have them."""
    if isinstance(value, list):
        return tuple(map(_as_tuples, value))
    return value


def _is_text(value):
    return isinstance(value, str) and value != ""


def _is_count(value, least):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and least <= value < 2**63


def _is_real(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
