"""What trimming asks of a tokenizer."""

import abc
from collections.abc import Iterable, Sequence
from typing import Any


class Pieces(abc.ABC):
    """The pieces of a tokenizer, by id.

    Args:
        tokenizer: A tokenizer of the kind that the class is for.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @classmethod
    @abc.abstractmethod
    def takes(cls, tokenizer: Any) -> bool:
        """Returns whether a tokenizer is of the kind."""

    @abc.abstractmethod
    def names(self) -> list[str]:
        """Returns the piece of each id."""

    @abc.abstractmethod
    def always_kept(self) -> set[int]:
        """Returns the ids without which the tokenizer does not work."""

    @abc.abstractmethod
    def rewritten(self, kept: Sequence[int]) -> Any:
        """Returns a tokenizer of the pieces with some ids, in their order."""

    @abc.abstractmethod
    def encoded(self, texts: Sequence[str]) -> Iterable[Sequence[int]]:
        """Returns the ids of the pieces of each text."""

    def needed(self, piece: int) -> set[int]:
        """Returns the ids of pieces without which a piece is not reached."""
        return set()

    def check(self, new: "Pieces", kept: Sequence[int]) -> None:
        """Raises unless a rewritten tokenizer has the kept pieces."""
        before, after = self.names(), new.names()
        wrong = [
            (old, before[old], after[index : index + 1])
            for index, old in enumerate(kept)
            if after[index : index + 1] != [before[old]]
        ]
        if wrong or len(after) != len(kept):
            raise ValueError(
                f"A `{type(self.tokenizer).__name__}` must give its pieces "
                "ids in their order to be trimmed. Received: one that gives "
                f"{len(after)} ids to {len(kept)} pieces"
                + "".join(f", {p!r} becomes {n}" for _, p, n in wrong[:3])
            )


class HubPieces(Pieces):
    """The pieces of a tokenizer of keras-hub."""

    def encoded(self, texts):
        ids = self.tokenizer.tokenize(list(texts))
        return ids.to_list() if hasattr(ids, "to_list") else ids  # ragged


def special_ids(tokenizer: Any) -> set[int]:
    """Returns the ids that a tokenizer of keras-hub keeps as attributes."""
    ids = {
        value
        for name, value in vars(tokenizer).items()
        if name.endswith("token_id") and isinstance(value, int) and value >= 0
    }
    return ids | set(getattr(tokenizer, "special_token_ids", []))


def remade(tokenizer: Any, **config: Any) -> Any:
    """Returns a tokenizer of keras-hub without its vocabulary."""
    return type(tokenizer).from_config({**tokenizer.get_config(), **config})


def is_a(tokenizer: Any, name: str) -> bool:
    """Returns whether a tokenizer is of a class of keras-hub, by its name.

    keras-hub is not imported for those who do not have it.
    """
    return any(
        cls.__name__ == name and cls.__module__.startswith("keras_hub.")
        for cls in type(tokenizer).__mro__
    )
