"""Which words of a vocabulary are kept, and why."""

import json
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import positive_int
from keras_embcomp.files import written_whole


class Trimming(NamedTuple):
    """The words of a vocabulary that are kept, in their order.

    `trim_vocabulary` returns one. The arguments are attributes, too.

    Args:
        size: Integer. Words of the old vocabulary.
        new_to_old: int64 array. The old id of each new one.
        reasons: Dictionary from a reason to the old ids that are kept for it:
            "asked" (`keep`), "counted", "special" (a tokenizer or padding
            needs them), "merged" (pieces that a kept piece is made of) and
            "rounded" (for a multiple of some number).
        coverage: The share of all counts that kept words have, or `None`
            without counts.
    """

    size: int
    new_to_old: Array
    reasons: dict[str, list[int]]
    coverage: float | None = None

    @property
    def old_to_new(self) -> Array:
        """int64 array: the new id of each old one, -1 if it is gone."""
        new = np.full(self.size, -1)
        new[self.new_to_old] = np.arange(len(self.new_to_old))
        return new

    def renumbered(self, ids: ArrayLike, unknown: int | None = None) -> Array:
        """Returns new ids for old ones.

        Args:
            ids: Integer array of any shape.
            unknown: The new id for words that are gone. `None` refuses them.

        Raises:
            ValueError: if an id is out of range, or gone and `unknown` is not
                given.
        """
        ids = _checked_ids("ids", ids, self.size)
        new = self.old_to_new[ids]
        if unknown is not None:
            return np.where(new < 0, unknown, new)
        gone = np.unique(ids[new < 0])
        if len(gone):
            raise ValueError(
                "`ids` must be kept words, or `unknown` the new id of others. "
                f"Received: {len(gone)} ids that are gone, such as {gone[0]}"
            )
        return new

    def save(self, path: str | PathLike) -> None:
        """Writes the trimming as JSON."""
        content = {**self._asdict(), "new_to_old": self.new_to_old.tolist()}
        with written_whole(path) as temporary:
            Path(temporary).write_text(json.dumps(content), "utf-8")

    @classmethod
    def load(cls, path: str | PathLike) -> "Trimming":
        """Returns a trimming that `save` wrote.

        Raises:
            ValueError: if the file holds no trimming.
        """
        content = json.loads(Path(path).read_text("utf-8"))
        if not isinstance(content, dict) or set(content) != set(cls._fields):
            raise ValueError(
                f"`path` must be a file of `Trimming.save`. Received: {path}"
            )
        size = positive_int("size", content["size"])
        kept = _checked_ids("new_to_old", content["new_to_old"], size)
        return cls(**{**content, "new_to_old": kept})


class Wanted(NamedTuple):
    """What a user asks to keep: `keep`, or `counts` and how many.

    Attributes are the arguments of `trim_vocabulary`.
    """

    keep: Any = None
    counts: Any = None
    size: int | None = None
    coverage: float | None = None
    multiple_of: int | None = None

    def checked(self, vocabulary: int) -> "Wanted":
        """Returns it with arrays.

        Raises:
            ValueError: if an argument is wrong, or two do not fit.
        """
        if (self.keep is None) == (self.counts is None):
            raise ValueError(
                "One of `keep` and `counts` must be given. Received: "
                f"{'neither' if self.keep is None else 'both'}"
            )
        if self.multiple_of is not None:
            positive_int("multiple_of", self.multiple_of)
        if self.keep is not None:
            if self.size is not None or self.coverage is not None:
                raise ValueError(
                    "`size` and `coverage` need `counts`, which say what goes "
                    f"first. Received: size={self.size}, "
                    f"coverage={self.coverage}, counts=None"
                )
            keep = _checked_ids("keep", self.keep, vocabulary)
            if len(np.unique(keep)) != keep.size or keep.ndim != 1:
                raise ValueError(
                    "`keep` must be a list that names each id once. Received: "
                    f"keep of shape {keep.shape} with "
                    f"{keep.size - len(np.unique(keep))} repeated ids"
                )
            return self._replace(keep=keep)
        return self._replace(counts=self._checked_counts(vocabulary))

    def _checked_counts(self, vocabulary):
        if np.shape(self.counts) != (vocabulary,):
            raise ValueError(
                f"`counts` must have a count for each of {vocabulary} words. "
                f"Received: counts of shape {np.shape(self.counts)}"
            )
        counts = np.asarray(self.counts, "float64")
        if not np.isfinite(counts).all() or counts.min() < 0:
            raise ValueError(
                "`counts` must be finite and not negative. Received: counts "
                f"with minimum {counts.min()}"
            )
        if self.size is not None and self.coverage is not None:
            raise ValueError(
                "`size` or `coverage` must say how many words to keep, not "
                f"both. Received: size={self.size}, coverage={self.coverage}"
            )
        if self.size is not None:
            positive_int("size", self.size)
            if self.size > vocabulary:
                raise ValueError(
                    "`size` must not exceed the vocabulary. Received: "
                    f"size={self.size}, vocabulary={vocabulary}"
                )
        if self.coverage is not None and not 0 < self.coverage <= 1:
            raise ValueError(
                "`coverage` must be above 0 and at most 1. Received: "
                f"coverage={self.coverage}"
            )
        return counts


def chosen(
    wanted: Wanted,
    vocabulary: int,
    special: Iterable[int] = (),
    needed: Callable[[int], set[int]] = lambda piece: set(),
) -> Trimming:
    """Returns the words to keep.

    Args:
        wanted: What a user asks for.
        vocabulary: Integer. Words there are.
        special: Ids that stay in any case.
        needed: Function from an id to those that it needs.

    Raises:
        ValueError: if the arguments are wrong, or `size` does not hold what
            must stay.
    """
    wanted = wanted.checked(vocabulary)
    choice = _Choice(needed)
    choice.add(sorted(special), "special")
    if wanted.keep is not None:
        choice.add(wanted.keep.tolist(), "asked")
        order = np.arange(vocabulary)
    else:
        order = np.argsort(-wanted.counts, kind="stable")
        _add_counted(choice, wanted, order)
    if wanted.multiple_of is not None:
        number = -len(choice.kept) % wanted.multiple_of
        most = min(vocabulary, len(choice.kept) + number)
        choice.add(order.tolist(), "rounded", most)
    kept = np.array(sorted(choice.kept), "int64")
    share = None
    if wanted.counts is not None:
        total = wanted.counts.sum()
        share = float(wanted.counts[kept].sum() / total) if total else 1.0
    return Trimming(vocabulary, kept, choice.reasons, share)


def _add_counted(choice, wanted, order):
    if wanted.size is not None:
        if len(choice.kept) > wanted.size:
            raise ValueError(
                "`size` must hold the words that stay in any case. Received: "
                f"size={wanted.size}, and {len(choice.kept)} such words"
            )
        choice.add(order.tolist(), "counted", wanted.size)
        return
    counted = order[: np.count_nonzero(wanted.counts)]
    if wanted.coverage is not None and len(counted):
        shares = np.cumsum(wanted.counts[counted]) / wanted.counts.sum()
        enough = np.searchsorted(shares, wanted.coverage * (1 - 1e-12))
        counted = counted[: enough + 1]
    choice.add(counted.tolist(), "counted")


class _Choice:
    """Words that are kept so far."""

    def __init__(self, needed):
        self.kept: set[int] = set()
        self.reasons: dict[str, list[int]] = {}
        self._needed = needed

    def add(self, ids, reason, most=None):
        """Adds words with what they need, while there are fewer than `most`."""
        for one in ids:
            if one in self.kept:
                continue
            if most is not None and len(self.kept) >= most:
                return
            parts = self._needed(one) - self.kept
            if most is not None and len(self.kept) + len(parts) >= most:
                if parts:
                    continue  # a smaller one may fit
            self.kept.add(one)
            self.reasons.setdefault(reason, []).append(one)
            if parts:
                self.kept |= parts
                self.reasons.setdefault("merged", []).extend(sorted(parts))


def _checked_ids(name: str, ids: Any, vocabulary: int) -> Array:
    found = np.asarray(ids)
    if found.dtype.kind not in "iu" and found.size:
        raise ValueError(
            f"`{name}` must hold integer ids. Received: {name} of dtype "
            f"{found.dtype}"
        )
    found = found.astype("int64")
    if found.size and (found.min() < 0 or found.max() >= vocabulary):
        raise ValueError(
            f"`{name}` must hold ids from 0 to {vocabulary - 1}. Received: "
            f"ids from {found.min()} to {found.max()}"
        )
    return found
