"""GroupReduce: low rank by groups of words (Chen et al. 2018)."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import keras
import numpy as np

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import finite_table, frequency_weights
from keras_embcomp.numerics.blocks import row_blocks, squared_norms
from keras_embcomp.numerics.covariance import Turning
from keras_embcomp.numerics.group_reduce.groups import (
    check_width,
    checked_ranks,
    checked_sizes,
    grouped_table,
    starts_of,
    stored_dense,
)
from keras_embcomp.numerics.low_rank import truncated_svd

_LARGE = 2**24  # entries of a table that takes seconds
_LEAST_GAIN = 1e-4  # least relative fall of the error for another sweep
_PRICE_STEPS = 40


class Groups(NamedTuple):
    """A table in groups.

    Attributes:
        order: int32 array `(vocabulary,)`. The row of the table at each place,
            group by group.
        sizes: Size of each group.
        ranks: Rank of each group.
        embeddings: Array of shape `(size, rank)` for each group, or `(size,
            width)` if it is stored dense.
        projections: Array of shape `(rank, width)` with orthonormal rows (for
            the turned table, if it was), or `None` if it is stored dense.
        objective: The weighted squared error.
    """

    order: Array
    sizes: tuple[int, ...]
    ranks: tuple[int, ...]
    embeddings: list[Array]
    projections: list[Array | None]
    objective: float

    def places(self) -> Array:
        """Returns the place of each row, the inverse of `order`."""
        return np.argsort(self.order).astype("int32")

    def table(self) -> Array:
        """Returns the table that the groups stand for."""
        table = grouped_table(self.embeddings, self.projections)
        return table[self.places()]

    def returned(self, turning: Turning) -> Self:
        """Returns the groups of a table whose columns were turned."""
        groups = list(zip(self.embeddings, self.projections, strict=True))
        return self._replace(
            embeddings=[
                turning.returned(rows) if projection is None else rows
                for rows, projection in groups
            ],
            projections=[
                None if projection is None else turning.returned(projection)
                for _, projection in groups
            ],
        )

    def structure(self) -> dict[str, Any]:
        """Returns the arguments of a layer that holds the groups."""
        in_order = np.array_equal(self.order, np.arange(len(self.order)))
        return {
            "group_sizes": self.sizes,
            "group_ranks": self.ranks,
            "permuted": not in_order,
        }


def chosen_rows(
    places: Array,
    factors: Sequence[Array],
    projections: Sequence[Array | None],
    ranks: Sequence[int],
) -> Groups:
    """Returns some rows of a table in groups, each in the group that it was in.

    Groups without a row are left out.

    Args:
        places: Integer array: the place of each row that is wanted.
        factors: Array of shape `(size, rank)` for each group, or `(size,
            width)` if it is stored dense.
        projections: Array of shape `(rank, width)`, or `None` if it is stored
            dense.
        ranks: Rank of each group.
    """
    starts = starts_of(map(len, factors))
    groups = np.searchsorted(starts, places, side="right") - 1
    orders, sizes, new_ranks, new_factors, kept = [], [], [], [], []
    for group, (rank, projection) in enumerate(
        zip(ranks, projections, strict=True)
    ):
        order = np.flatnonzero(groups == group)
        if not len(order):
            continue
        rows = factors[group][places[order] - starts[group]]
        width = (rows if projection is None else projection).shape[1]
        size = len(order)
        if projection is None or stored_dense(size, min(rank, size), width):
            rows = rows if projection is None else rows @ projection
            rank, projection = min(size, width), None  # which is stored dense
        orders.append(order)
        sizes.append(size)
        new_ranks.append(rank)
        new_factors.append(rows)
        kept.append(projection)
    order = np.concatenate(orders).astype("int32")
    return Groups(order, tuple(sizes), tuple(new_ranks), new_factors, kept, 0.0)


def smoothed(frequencies: ArrayLike | None, vocabulary: int) -> Array:
    """Returns counts as weights, none of them zero.

    A word that was not counted weighs half as much as the least frequent word
    that was. `None` gives all words the same weight.
    """
    weights = frequency_weights(frequencies, vocabulary)
    return np.where(weights > 0, weights, weights[weights > 0].min() / 2)


def frequency_order(weights: Array, sort: bool = True) -> Array:
    """Returns the row numbers, int32, by falling weight.

    Rows of equal weight keep their order. Without `sort`, all rows do.
    """
    if not sort:
        return np.arange(len(weights), dtype="int32")
    return np.argsort(-weights, kind="stable").astype("int32")


def group_reduce(
    table: ArrayLike,
    group_sizes: Iterable[int],
    group_ranks: Iterable[int],
    frequencies: ArrayLike | None = None,
    max_sweeps: int = 0,
    sort: bool = True,
    verbose: int | str = "auto",
) -> Groups:
    """Factors the groups of a table, each by its own weighted SVD.

    Rows are grouped by falling frequency. Then, up to `max_sweeps` times, rows
    move to the groups whose projections fit them better, and the groups that
    changed are decomposed again. This ends when the weighted error hardly
    falls.

    Chen et al. 2018 (Algorithm 1) move a row to the group with its least error.
    That is nearly always a group of a higher rank, so the parameters grow. Here
    a row in a group of rank `k` costs its weighted error plus `price * k`. The
    price is the least at which the parameters do not grow: rows that gain
    little from a high rank make room for others.

    Args:
        table: Array of shape `(vocabulary, width)`.
        group_sizes: Sizes of the groups, the most frequent first.
        group_ranks: Rank of each group.
        frequencies: Counts of shape `(vocabulary,)`, zeros smoothed; `None`
            keeps the order of the rows and weighs all alike.
        max_sweeps: Integer. Largest number of times that rows move.
        sort: Boolean. Whether to group rows by frequency. If `False`, rows are
            grouped in the order of the table.
        verbose: 0 or 1. Whether to show progress. "auto" shows it for tables
            that take seconds.

    Raises:
        ValueError: if the table is not finite, or if sizes, ranks, frequencies
            or `max_sweeps` do not fit it.
    """
    table = finite_table("table", table)
    vocabulary, width = table.shape
    sizes = checked_sizes("rows of the table", vocabulary, group_sizes)
    ranks = checked_ranks(sizes, group_ranks)
    check_width("width", width, ranks)
    if not isinstance(max_sweeps, int) or max_sweeps < 0:
        raise ValueError(
            "`max_sweeps` must be an integer, 0 or more. "
            f"Received: max_sweeps={max_sweeps}"
        )
    weights = smoothed(frequencies, vocabulary)
    order = frequency_order(weights, sort)
    members = [np.sort(rows) for rows in np.split(order, starts_of(sizes)[1:])]
    if verbose == "auto":
        verbose = int(table.size >= _LARGE and max_sweeps > 0)
    bar = keras.utils.Progbar(
        1 + max_sweeps, verbose=verbose, unit_name="sweep"
    )
    fits = [
        _fitted(table, rows, rank, weights)
        for rows, rank in zip(members, ranks, strict=True)
    ]
    for sweep in range(1 + max_sweeps):
        objective = sum(fit.error for fit in fits)
        bar.update(sweep + 1, [("error", objective)])
        if sweep == max_sweeps:
            break
        moved = _moved(table, members, ranks, fits, weights)
        refits = [
            fit
            if np.array_equal(rows, old)
            else _fitted(table, rows, rank, weights)
            for rows, old, rank, fit in zip(
                moved, members, ranks, fits, strict=True
            )
        ]
        if sum(fit.error for fit in refits) >= objective * (1 - _LEAST_GAIN):
            break
        members, fits = moved, refits
    bar.update(1 + max_sweeps, finalize=True)
    return Groups(
        np.concatenate(members),
        tuple(map(len, members)),
        ranks,
        [fit.embeddings for fit in fits],
        [fit.projection for fit in fits],
        objective,
    )


class _Fit(NamedTuple):
    embeddings: Array
    projection: Array | None
    error: float


def _fitted(table: Array, rows: Array, rank: int, weights: Array) -> _Fit:
    """Returns the best factors of a group, and its weighted error."""
    block = table[rows]
    if stored_dense(len(block), rank, block.shape[1]):
        return _Fit(block.astype("float32"), None, 0.0)
    embeddings, projection = truncated_svd(block, rank, weights[rows])
    # The projection is orthonormal.
    lost = squared_norms(block) - squared_norms(embeddings)
    return _Fit(embeddings, projection, float(weights[rows] @ lost))


def _moved(
    table: Array,
    members: Sequence[Array],
    ranks: Sequence[int],
    fits: Sequence[_Fit],
    weights: Array,
) -> list[Array]:
    """Returns the rows of each group after each row moved to its cheapest."""
    width = table.shape[1]
    errors = weights[:, None] * _errors(table, fits)
    own = np.empty(len(table), "int64")
    for group, rows in enumerate(members):
        own[rows] = group
    dense = [fit.projection is None for fit in fits]
    numbers = np.where(dense, width, ranks)  # of a row, in each group
    closed: list[int] = []
    while True:
        wanted = _cheapest(errors, numbers, own, closed)
        sizes = np.bincount(wanted, minlength=len(ranks))
        # No group may become dense, and no dense group may become factors.
        changing = [
            size < rank or stored_dense(size, rank, width) != was
            for size, rank, was in zip(sizes, ranks, dense, strict=True)
        ]
        if not any(changing):
            break
        closed = [*closed, *np.flatnonzero(changing)]
    return [
        np.flatnonzero(wanted == group).astype("int32")
        for group in range(len(ranks))
    ]


def _cheapest(
    errors: Array, numbers: Array, own: Array, closed: list[int]
) -> Array:
    """Returns the group of each row at the price that keeps the size.

    Args:
        errors: The weighted error of each row in each group.
        numbers: For each group, the parameters of a row.
        own: The group in which each row is.
        closed: The groups that rows neither leave nor enter.
    """
    free = ~np.isin(own, closed)
    costs = errors[free]  # a copy
    costs[:, closed] = np.inf
    most = numbers[own[free]].sum()
    low, high = 0.0, float(errors.max()) + 1e-30
    for _ in range(_PRICE_STEPS):
        price = (low + high) / 2
        chosen = np.argmin(costs + price * numbers, axis=1)
        affordable = numbers[chosen].sum() <= most
        low, high = (low, price) if affordable else (price, high)
    wanted = own.copy()
    wanted[free] = np.argmin(costs + high * numbers, axis=1)
    return wanted


def _errors(table: Array, fits: Sequence[_Fit]) -> Array:
    """Returns the squared error of each row in each group (Eq. 6)."""
    errors = np.zeros((len(table), len(fits)))
    projections = {
        group: fit.projection
        for group, fit in enumerate(fits)
        if fit.projection is not None
    }
    if not projections:
        return errors
    low_rank = list(projections)
    stacked = np.concatenate(list(projections.values())).T
    starts = starts_of(map(len, projections.values()))
    for part in row_blocks(len(table)):
        block = table[part]
        kept = np.add.reduceat((block @ stacked) ** 2, starts, axis=1)
        norms = squared_norms(block)[:, None]
        errors[part, low_rank] = np.maximum(norms - kept, 0)
    return errors
