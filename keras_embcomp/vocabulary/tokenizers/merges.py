"""Which pieces a byte-pair encoding makes on the way to a piece."""

from collections.abc import Callable, Iterable, Mapping, Sequence

Rank = Callable[[str, str], float | None]


class Merges:
    """Merges in the order in which they are tried.

    If all pieces of a text are kept, and what `made_of` says of each, then
    without the other merges the text has the same pieces: each merge that was
    made joins parts of a kept piece, and it is still the first of those left.

    Args:
        rank: Function that takes two pieces and returns when they are merged,
            the smallest first, or `None`.
        prefix: What pieces that do not start a word begin with.
        suffix: What pieces that end a word end with.
    """

    def __init__(self, rank: Rank, prefix: str = "", suffix: str = "") -> None:
        self._rank = rank
        self._prefix = prefix
        self._suffix = suffix

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[tuple[str, str]],
        prefix: str = "",
        suffix: str = "",
    ) -> "Merges":
        """Returns merges that are listed in their order."""
        ranks: dict[tuple[str, str], float] = {}
        for rank, pair in enumerate(pairs):
            ranks.setdefault(pair, rank)
        return cls(lambda a, b: ranks.get((a, b)), prefix, suffix)

    @classmethod
    def from_scores(cls, scores: Mapping[str, float]) -> "Merges":
        """Returns the merges of SentencePiece: of the best piece first."""

        def rank(first, second):
            score = scores.get(first + second)
            return None if score is None else -score

        return cls(rank)

    def joined(self, first: str, second: str) -> str:
        """Returns the piece that two pieces make."""
        return first + second.removeprefix(self._prefix)

    def made_of(self, piece: str) -> set[str]:
        """Returns the pieces from which a piece is made, step by step.

        It is empty for a piece that no merge makes.
        """
        parts = self._symbols(piece)
        used = set(parts)
        while len(parts) > 1:
            place = self._first(parts)
            if place is None:
                return set()
            parts[place : place + 2] = [self.joined(*parts[place : place + 2])]
            used.add(parts[place])
        return used - {piece} if parts == [piece] else set()

    def _symbols(self, piece: str) -> list[str]:
        """Returns what a piece starts from: its characters."""
        stem = piece.removeprefix(self._prefix) if self._prefix else piece
        inside = stem != piece
        ends = bool(self._suffix) and stem.endswith(self._suffix)
        if ends:
            stem = stem.removesuffix(self._suffix)
        symbols = [self._prefix + c for c in stem]
        if symbols and not inside:
            symbols[0] = stem[0]
        if symbols and ends:
            symbols[-1] += self._suffix
        return symbols or [piece]

    def _first(self, parts: Sequence[str]) -> int | None:
        """Returns the place of the pair that is merged first."""
        best, place = None, None
        for index in range(len(parts) - 1):
            rank = self._rank(parts[index], parts[index + 1])
            if rank is not None and (best is None or rank < best):
                best, place = rank, index
        return place
