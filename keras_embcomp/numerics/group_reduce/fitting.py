"""Block-wise low rank by frequency: GroupReduce (Chen et al. 2018)."""

from typing import NamedTuple

import keras
import numpy as np

from keras_embcomp.checks import finite_table, frequency_weights
from keras_embcomp.numerics.blocks import row_blocks
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
_LEAST_GAIN = 1e-4  # of the weighted error, for another sweep
_PRICE_STEPS = 40


class Groups(NamedTuple):
    """A table in groups.

    Attributes:
        order: int32 array: the row of the table at each place, group by group.
        sizes: Size of each group.
        ranks: Rank of each group.
        embeddings: Array of shape `(size, rank)` for each group, or `(size,
            width)` if it is stored dense.
        projections: Array of shape `(rank, width)` with orthonormal rows, or
            `None` if it is stored dense.
        objective: The weighted squared error.
    """

    order: np.ndarray
    sizes: tuple
    ranks: tuple
    embeddings: list
    projections: list
    objective: float

    def places(self):
        """Returns where each row is, the inverse of `order`."""
        return np.argsort(self.order).astype("int32")

    def table(self):
        """Returns the table that the groups stand for."""
        table = grouped_table(self.embeddings, self.projections)
        return table[self.places()]

    def structure(self):
        """Returns the arguments of a layer that holds the groups."""
        in_order = np.array_equal(self.order, np.arange(len(self.order)))
        return {
            "group_sizes": self.sizes,
            "group_ranks": self.ranks,
            "permuted": not in_order,
        }


def smoothed(frequencies, vocabulary):
    """Returns counts as weights of mean 1, none of them zero.

    A word that was not counted weighs half of the least counted one. `None`
    weighs all alike.
    """
    weights = frequency_weights(frequencies, vocabulary)
    return np.where(weights > 0, weights, weights[weights > 0].min() / 2)


def frequency_order(weights, sort=True):
    """Returns the rows by falling weight, those of equal weight by number.

    Without `sort` they stay as they are.
    """
    if not sort:
        return np.arange(len(weights), dtype="int32")
    return np.argsort(-weights, kind="stable").astype("int32")


def group_reduce(
    table,
    group_sizes,
    group_ranks,
    frequencies=None,
    max_sweeps=0,
    sort=True,
    verbose="auto",
) -> Groups:
    """Factors the groups of a table, each by its own weighted SVD.

    Rows are grouped by falling frequency. Then, up to `max_sweeps` times, rows
    move to the groups whose projections fit them better and the groups that
    changed are decomposed again, until the weighted error falls no more.

    The paper (Algorithm 1) moves a row to where its error is least. That is
    nearly always a group of a higher rank, so that the parameters grow. Here a
    group of rank `k` costs `price * k` beside the row's weighted error, with
    the least price at which the parameters do not grow: rows for which it
    matters little make room for others.

    Args:
        table: Array of shape `(vocabulary, width)`.
        group_sizes: Sizes of the groups, the most frequent first.
        group_ranks: Rank of each group.
        frequencies: Counts of shape `(vocabulary,)`, zeros smoothed; `None`
            keeps the order of the rows and weighs all alike.
        max_sweeps: Integer. How often to move rows, at most.
        sort: Boolean. Whether to group rows by frequency. `False` groups them
            as they come.
        verbose: 0 or 1: whether to show progress. "auto" shows it for tables
            that take seconds.
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
    embeddings: np.ndarray
    projection: np.ndarray | None
    error: float


def _fitted(table, rows, rank, weights):
    """Returns the best factors of a group, and its weighted error."""
    block = table[rows]
    if stored_dense(*block.shape[:1], rank, block.shape[1]):
        return _Fit(block.astype("float32"), None, 0.0)
    embeddings, projection = truncated_svd(block, rank, weights[rows])
    # The projection is orthonormal.
    lost = _squared_norms(block) - _squared_norms(embeddings)
    return _Fit(embeddings, projection, float(weights[rows] @ lost))


def _squared_norms(rows):
    return np.einsum("ij,ij->i", rows, rows, dtype="float64")


def _moved(table, members, ranks, fits, weights):
    """Returns the groups after each row went where it costs least."""
    width = table.shape[1]
    errors = weights[:, None] * _errors(table, fits)
    own = np.empty(len(table), "int64")
    for group, rows in enumerate(members):
        own[rows] = group
    dense = [fit.projection is None for fit in fits]
    numbers = np.where(dense, width, ranks)  # of a row, in each group
    closed = []
    while True:
        wanted = _cheapest(errors, numbers, own, closed)
        sizes = np.bincount(wanted, minlength=len(ranks))
        # A group must not become dense, nor a dense one cease to be.
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


def _cheapest(errors, numbers, own, closed):
    """Returns the group of each row at the price that keeps the size.

    Rows neither leave nor enter the groups in `closed`.
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


def _errors(table, fits):
    """Returns the squared error of each row in each group (Eq. 6)."""
    errors = np.zeros((len(table), len(fits)))
    low_rank = [p for p, fit in enumerate(fits) if fit.projection is not None]
    if not low_rank:
        return errors
    stacked = np.concatenate([fits[p].projection for p in low_rank]).T
    starts = starts_of(len(fits[p].projection) for p in low_rank)
    for part in row_blocks(len(table)):
        block = table[part]
        kept = np.add.reduceat((block @ stacked) ** 2, starts, axis=1)
        norms = _squared_norms(block)[:, None]
        errors[part, low_rank] = np.maximum(norms - kept, 0)
    return errors
