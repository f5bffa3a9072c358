"""What a trimming changed, in numbers."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_embcomp.layers.base import weight_bytes
from keras_embcomp.text_tables import aligned
from keras_embcomp.vocabulary.tokenizers import pieces_of
from keras_embcomp.vocabulary.trimming import Trimming


@dataclasses.dataclass(frozen=True)
class Change:
    """A model before and after. It prints as a table.

    Attributes:
        rows: Words of the vocabulary, before and after.
        bytes: Bytes of all weights.
        pieces: Pieces of a text on average, or `None` without texts.
        coverage: The share of all counts that is kept, or `None`.
        reasons: How many words are kept for each reason.
    """

    rows: tuple[int, int]
    bytes: tuple[int, int]
    pieces: tuple[float, float] | None
    coverage: float | None
    reasons: dict[str, int]

    def __str__(self) -> str:
        cells = [
            ["", "before", "after"],
            ["rows", *(f"{n:,}" for n in self.rows)],
            ["bytes of the model", *(f"{n:,}" for n in self.bytes)],
        ]
        if self.coverage is not None:
            cells.append(["coverage", "1", f"{self.coverage:.6g}"])
        if self.pieces is not None:
            cells.append(
                ["pieces of a text", *(f"{n:.2f}" for n in self.pieces)]
            )
        kept = ", ".join(f"{n:,} {name}" for name, n in self.reasons.items())
        return f"{aligned(cells, 1)}\nkept: {kept}"

    def values(self) -> dict[str, Any]:
        """Returns it for JSON."""
        return dataclasses.asdict(self)


def described(
    model: keras.Model,
    small: keras.Model,
    tokenizers: tuple[Any, Any],
    trimming: Trimming,
    texts: Iterable[Sequence[str]] = (),
) -> Change:
    """Returns what a trimming changed.

    Args:
        model: The model before.
        small: The model after.
        tokenizers: The tokenizer before and after, `None` without one.
        trimming: The trimming.
        texts: Lists of texts to encode with both.
    """
    pieces = None
    if tokenizers[0] is not None:
        pieces = _pieces([pieces_of(one) for one in tokenizers], texts)
    return Change(
        (trimming.size, len(trimming.new_to_old)),
        (weight_bytes(model.weights), weight_bytes(small.weights)),
        pieces,
        trimming.coverage,
        {name: len(ids) for name, ids in trimming.reasons.items()},
    )


def _pieces(both, texts):
    """Returns the mean number of pieces with two tokenizers."""
    count, totals = 0, [0, 0]
    for batch in texts:
        count += len(batch)
        for side, pieces in enumerate(both):
            totals[side] += sum(len(ids) for ids in pieces.encoded(batch))
    if not count:
        return None
    return totals[0] / count, totals[1] / count
