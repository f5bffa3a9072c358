"""A table in groups of rows. Each group is two factors, or is stored dense.

The place of a word is its position when the groups follow each other. A group
is stored dense if its factors would be no smaller.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from keras import ops

from keras_embcomp._types import Array, Factor, Tensor
from keras_embcomp.checks import positive_int
from keras_embcomp.numerics.execution import Execution
from keras_embcomp.numerics.streaming import RowScores, products


def starts_of(group_sizes: Iterable[int]) -> list[int]:
    """Returns the first place of each group."""
    return [0, *accumulate(group_sizes)][:-1]


def stored_dense(size: int, rank: int, width: int) -> bool:
    """Returns whether factors would be no smaller than `size * width`."""
    return rank * (size + width) >= size * width


def checked_sizes(
    name: str, vocabulary: int, group_sizes: Iterable[int]
) -> tuple[int, ...]:
    """Returns group sizes as a tuple.

    Raises:
        ValueError: unless they are positive integers that sum to the
            vocabulary. The message calls the vocabulary `name`.
    """
    sizes = _integers("group_sizes", group_sizes)
    if sum(sizes) != vocabulary:
        raise ValueError(
            f"`group_sizes` must sum to `{name}`. Received: "
            f"group_sizes={sizes}, so {sum(sizes)}, {name}={vocabulary}"
        )
    return sizes


def checked_ranks(
    group_sizes: tuple[int, ...], group_ranks: Iterable[int]
) -> tuple[int, ...]:
    """Returns ranks as a tuple.

    Raises:
        ValueError: unless each group has one rank, at most its size.
    """
    ranks = _integers("group_ranks", group_ranks)
    if len(ranks) != len(group_sizes):
        raise ValueError(
            "`group_ranks` must have one rank for each group. Received: "
            f"group_ranks={ranks}, group_sizes={group_sizes}"
        )
    if any(map(int.__gt__, ranks, group_sizes)):
        raise ValueError(
            "`group_ranks` must not exceed `group_sizes`. Received: "
            f"group_ranks={ranks}, group_sizes={group_sizes}"
        )
    return ranks


def _integers(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(
            f"`{name}` must be a list of positive integers. "
            f"Received: {name}={value}"
        )
    return tuple(positive_int(name, number) for number in value)


def check_width(name: str, width: int, group_ranks: Sequence[int]) -> None:
    """Raises a `ValueError` if a rank exceeds the width."""
    if max(group_ranks) > width:
        raise ValueError(
            f"`group_ranks` must not exceed `{name}`. "
            f"Received: group_ranks={group_ranks}, {name}={width}"
        )


def grouped_table(
    embeddings: Sequence[Array], projections: Sequence[Array | None]
) -> Array:
    """Returns the rows of all groups, one group after the other.

    Args:
        embeddings: For each group an array of shape `(size, rank)`, or
            `(size, width)` if it is dense.
        projections: For each group an array of shape `(rank, width)`, or
            `None` if it is dense.
    """
    return np.concatenate(
        [
            embedding if projection is None else embedding @ projection
            for embedding, projection in zip(
                embeddings, projections, strict=True
            )
        ]
    )


def grouped_rows(
    execution: Execution,
    places: Tensor,
    outside: Tensor,
    embeddings: Sequence[Factor],
    projections: Sequence[Factor | None],
    dtype: str,
) -> Tensor:
    """Returns the rows at places, of shape `(*places.shape, width)`.

    Every group looks up all places, and the rows that it does not have are set
    to zero. Shapes then do not depend on values, and one product projects all
    groups.

    Args:
        execution: How the call runs.
        places: Tensor of places below the vocabulary.
        outside: 1 for each id that was out of range, else 0.
        embeddings: For each group a tensor of shape `(size, rank)`, or
            `(size, width)` if it is dense.
        projections: For each group a tensor of shape `(rank, width)`, or
            `None` if it is dense.
        dtype: The dtype of the result.
    """
    places, outside = ops.cast(places, "int32"), ops.cast(outside, "int32")
    narrow, dense = [], 0
    starts = starts_of(embedding.shape[0] for embedding in embeddings)
    for start, embedding, projection in zip(
        starts, embeddings, projections, strict=True
    ):
        size = embedding.shape[0]
        place = places - start
        inside = ops.clip(place, 0, size - 1)
        own = ops.equal(place, inside)
        found = execution.take(embedding, inside + outside * size)
        rows = ops.cast(found, dtype)
        rows = ops.where(ops.expand_dims(own, -1), rows, 0)
        if projection is None:
            dense = dense + rows
        else:
            narrow.append(rows)
    if not narrow:
        return dense
    stacked = _stacked(execution, projections, dtype, places)
    return dense + ops.matmul(ops.concatenate(narrow, axis=-1), stacked)


def grouped_logits(
    execution: Execution,
    hidden: Tensor,
    embeddings: Sequence[Factor],
    projections: Sequence[Factor | None],
) -> list[Tensor]:
    """Returns the logits of each group, of shape `(..., size)`.

    Args:
        execution: How the call runs.
        hidden: Tensor of shape `(..., width)`.
        embeddings, projections: As for `grouped_rows`.
    """
    return [
        execution.times_rows(shared, rows)
        for shared, rows in _shared_and_rows(
            execution, hidden, embeddings, projections
        )
    ]


def grouped_scores(
    execution: Execution,
    tokens: Tensor,
    embeddings: Sequence[Tensor],
    projections: Sequence[Factor | None],
) -> list[RowScores]:
    """Returns the `RowScores` of each group.

    Args:
        execution: How the call runs.
        tokens: Tensor of shape `(tokens, width)`.
        embeddings, projections: As for `grouped_rows`.
    """
    return [
        RowScores(products, (shared,), (rows,), units=rows.shape[0])
        for shared, rows in _shared_and_rows(
            execution, tokens, embeddings, projections
        )
    ]


def _shared_and_rows(
    execution: Execution,
    hidden: Tensor,
    embeddings: Sequence[Factor],
    projections: Sequence[Factor | None],
) -> Iterator[tuple[Tensor, Factor]]:
    """Yields two factors of the logits of each group: tokens, and rows."""
    narrow, start = _narrow(execution, hidden, projections), 0
    for rows, projection in zip(embeddings, projections, strict=True):
        if projection is None:
            yield hidden, rows
        else:
            end = start + rows.shape[1]
            yield narrow[..., start:end], rows
            start = end


def _narrow(
    execution: Execution,
    hidden: Tensor,
    projections: Sequence[Factor | None],
) -> Tensor:
    """Returns the products with all projections, side by side, or `None`."""
    if all(projection is None for projection in projections):
        return None
    stacked = _stacked(execution, projections, hidden.dtype, hidden)
    return ops.matmul(hidden, ops.transpose(stacked))


def _stacked(
    execution: Execution,
    projections: Sequence[Factor | None],
    dtype: str,
    inputs: Tensor,
) -> Tensor:
    factors = [
        execution.whole(factor, dtype, inputs)
        for factor in projections
        if factor is not None
    ]
    return ops.concatenate(factors, axis=0)
