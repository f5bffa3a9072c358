"""How two tables differ: by row, by frequency, by nearest neighbours."""

from typing import NamedTuple

import numpy as np

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.numerics.blocks import row_blocks

_BLOCK = 8_192
_DECILES = 10


class Rows(NamedTuple):
    """How the rows of a table differ from the rows of a baseline.

    Attributes:
        squared_errors: Squared norm of each difference, `(vocabulary,)`.
        squared_norms: Squared norm of each row of the baseline.
        cosines: Cosine of each pair of rows.
    """

    squared_errors: Array
    squared_norms: Array
    cosines: Array

    def error(self, weights: Array | float = 1.0) -> float:
        """Returns the relative error, with rows weighed by `weights`.

        It is the norm of the difference divided by the norm of the baseline.
        """
        lost = float(np.sum(weights * self.squared_errors))
        whole = float(np.sum(weights * self.squared_norms))
        if whole == 0:
            return 0.0 if lost == 0 else float("inf")
        return (lost / whole) ** 0.5

    def deciles(self, frequencies: ArrayLike | None = None) -> list["Rows"]:
        """Returns the rows in ten parts, the most frequent first.

        Without frequencies, the rows must be sorted by them already. A table
        of fewer than ten rows has one part for each row.
        """
        order = np.arange(len(self.cosines))
        if frequencies is not None:
            order = np.argsort(-np.asarray(frequencies), kind="stable")
        parts = np.array_split(order, min(_DECILES, len(order)))
        return [Rows(*(values[part] for values in self)) for part in parts]


def compare_rows(table: Array, baseline: Array) -> Rows:
    """Returns the errors and cosines of the rows of two tables.

    The cosine of two rows of zeros is 1. The cosine of a row of zeros and any
    other row is 0.

    Args:
        table: Array of shape `(vocabulary, width)`.
        baseline: Array of the same shape.
    """
    parts = []
    for part in row_blocks(len(table), _BLOCK):
        block = np.asarray(table[part], "float64")
        base = np.asarray(baseline[part], "float64")
        errors = np.square(block - base).sum(axis=1)
        norms = np.square(base).sum(axis=1)
        scale = np.sqrt(np.square(block).sum(axis=1) * norms)
        cosines = (block * base).sum(axis=1) / np.where(scale == 0, 1, scale)
        cosines = np.where(errors == 0, 1.0, cosines)
        parts.append((errors, norms, cosines))
    return Rows(*map(np.concatenate, zip(*parts, strict=True)))


def neighbour_overlap(
    table: Array,
    baseline: Array,
    neighbours: int = 10,
    max_queries: int = 500,
    seed: int = 0,
) -> float:
    """Returns the share of nearest neighbours that two tables agree on.

    The neighbours of a row are the other rows with the largest cosines. Only a
    sample of rows is asked for its neighbours.

    Args:
        table: Array of shape `(vocabulary, width)`.
        baseline: Array of the same shape.
        neighbours: Integer. Number of neighbours that are compared per row.
        max_queries: Integer. The largest number of rows to sample.
        seed: Integer. Seed of the sample.
    """
    rows = len(table)
    neighbours = min(neighbours, rows - 1)
    if neighbours == 0:
        return 1.0
    queries = np.random.default_rng(seed).choice(
        rows, min(rows, max_queries), replace=False
    )
    found = nearest_rows(table, queries, neighbours)
    wanted = nearest_rows(baseline, queries, neighbours)
    shared = sum(
        len(np.intersect1d(one, other))
        for one, other in zip(found, wanted, strict=True)
    )
    return shared / wanted.size


def nearest_rows(table: Array, queries: Array, count: int) -> Array:
    """Returns the `count` rows with the largest cosines for each query.

    The scores of one block of rows are in memory at a time.

    Args:
        table: Array of shape `(vocabulary, width)`.
        queries: Row numbers, an integer array of shape `(queries,)`.
        count: Integer, below the vocabulary.

    Returns:
        Row numbers of shape `(queries, count)`, the nearest first. A query is
        not its own neighbour.
    """
    directions = _normalised(table[queries])
    scores = np.empty((len(queries), 0), "float32")
    ids = np.empty((len(queries), 0), "int64")
    for part in row_blocks(len(table), _BLOCK):
        block = directions @ _normalised(table[part]).T
        inside = (queries >= part.start) & (queries < part.stop)
        block[inside, queries[inside] - part.start] = -np.inf
        kept = min(count, block.shape[1])
        best = np.argpartition(-block, kept - 1, axis=1)[:, :kept]
        scores = np.hstack([scores, np.take_along_axis(block, best, axis=1)])
        ids = np.hstack([ids, best + part.start])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        scores = np.take_along_axis(scores, best, axis=1)
        ids = np.take_along_axis(ids, best, axis=1)
    return ids


def _normalised(rows: Array) -> Array:
    rows = np.asarray(rows, "float32")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)
