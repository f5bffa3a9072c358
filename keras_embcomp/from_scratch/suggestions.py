"""What `suggest_layers` returns: values that print and make layers."""

import dataclasses
from collections.abc import Sequence
from typing import Any, overload

import keras

from keras_embcomp.layers.method import Shape
from keras_embcomp.layers.methods import method_named
from keras_embcomp.text_tables import aligned

_COLUMNS = {
    "arguments": ("arguments", "{}"),
    "bytes": ("bytes", "{:,}"),
    "ratio": ("ratio", "{:.1f}"),
    "parameters": ("trained", "{:,}"),
    "operations": ("operations", "{:,}"),
    "lookup_seconds": ("lookup us", "{:,.0f}"),
    "lookup_ratio": ("x dense", "{:.2f}"),
    "step_seconds": ("step us", "{:,.0f}"),
    "step_ratio": ("x dense", "{:.2f}"),
}
_TEXT_COLUMNS = 2  # of the left, which are aligned to the left


def name_of(method: str, form: str) -> str:
    """Returns what a form of a method is called in a table."""
    return f"{method}, {form}" if form else method


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A layer to train from scratch.

    Args:
        method: Name of the method.
        form: What tells it from other forms of the method, or `""`.
        side: `"embedding"`, `"softmax"` or `"tied"`.
        shape: Rows and width of the table.
        use_bias: Whether it is an output layer with a bias.
        arguments: Structural arguments of the constructor.
        bytes: Bytes of its weights in float32, with the bias.
        dense_bytes: Bytes of the dense layer in its place.
        parameters: How many numbers train.
        operations: Multiplications and additions of a lookup, or of the logits
            of one token for an output layer, or of both for a tied table.
        quality: What was measured of its quality, and the page that has it.
        lookup_seconds: Measured time of a call, or `None`.
        lookup_ratio: That time over that of the dense layer.
        step_seconds: Measured time of a training step, or `None`.
        step_ratio: That time over that of the dense layer.
    """

    method: str
    form: str
    side: str
    shape: Shape
    use_bias: bool
    arguments: dict[str, Any]
    bytes: int
    dense_bytes: int
    parameters: int
    operations: int
    quality: str
    lookup_seconds: float | None = None
    lookup_ratio: float | None = None
    step_seconds: float | None = None
    step_ratio: float | None = None

    @property
    def name(self) -> str:
        """The method and its form."""
        return name_of(self.method, self.form)

    @property
    def ratio(self) -> float:
        """Bytes of the dense layer over those of this one."""
        return self.dense_bytes / self.bytes

    def layer(self, **kwargs: Any) -> keras.Layer:
        """Returns the layer, not built: an embedding, or an output layer.

        Args:
            **kwargs: Other arguments of the constructor, such as `name` and
                `mask_zero`.
        """
        method = method_named(self.method)
        vocabulary, width = self.shape
        make: Any
        if self.side == "softmax":
            make = method.softmax
            return make(
                vocabulary, **self.arguments, use_bias=self.use_bias, **kwargs
            )
        make = method.embedding
        return make(vocabulary, width, **self.arguments, **kwargs)

    def _cell(self, key, form):
        value = getattr(self, key)
        if value is None:
            return ""
        if key == "arguments":
            value = ", ".join(f"{k}={v}" for k, v in value.items())
        elif key.endswith("_seconds"):
            value = 1e6 * value
        return form.format(value)


class Suggestions(Sequence[Suggestion]):
    """Layers to train from scratch, in a table when printed.

    Args:
        layers: List of `Suggestion`.
        unsuited: Names of methods that do not meet the budget, with the
            reason.
        notes: Sentences to print below.
    """

    def __init__(
        self,
        layers: Sequence[Suggestion],
        unsuited: dict[str, str],
        notes: Sequence[str] = (),
    ) -> None:
        self.layers = list(layers)
        self.unsuited = dict(unsuited)
        self.notes = list(notes)

    @overload
    def __getitem__(self, index: int) -> Suggestion: ...

    @overload
    def __getitem__(self, index: slice) -> list[Suggestion]: ...

    def __getitem__(self, index):
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return f"Suggestions({self.layers!r}, {self.unsuited!r})"

    def __str__(self) -> str:
        shown = {
            key: column
            for key, column in _COLUMNS.items()
            if any(getattr(layer, key) is not None for layer in self)
        }
        rows = [["method", *(title for title, _ in shown.values())]]
        for layer in self:
            cells = [layer._cell(key, form) for key, (_, form) in shown.items()]
            rows.append([layer.name, *cells])
        blocks = [
            aligned(rows, _TEXT_COLUMNS),
            "What is known of their quality:\n"
            + "\n".join(f"- {layer.name}: {layer.quality}" for layer in self),
        ]
        if self.unsuited:
            lines = [f"- {name}: {why}" for name, why in self.unsuited.items()]
            blocks.append("Not suggested:\n" + "\n".join(lines))
        if self.notes:
            blocks.append("\n".join(self.notes))
        return "\n\n".join(blocks)
