"""How far a table is from another: by row, by frequency, by neighbours."""

from typing import NamedTuple

import numpy as np

from keras_embcomp.numerics.blocks import row_blocks

_BLOCK = 8_192
_DECILES = 10


class Rows(NamedTuple):
    """What two tables differ by, a number for each row."""

    squared_errors: np.ndarray
    squared_norms: np.ndarray
    cosines: np.ndarray

    def error(self, weights=1.0) -> float:
        """Returns the relative error, rows weighed by `weights`.

        It is the norm of the difference over that of the baseline.
        """
        lost = float(np.sum(weights * self.squared_errors))
        whole = float(np.sum(weights * self.squared_norms))
        if whole == 0:
            return 0.0 if lost == 0 else float("inf")
        return (lost / whole) ** 0.5

    def deciles(self, frequencies=None) -> list["Rows"]:
        """Returns the rows in ten parts, the most frequent first.

        Without frequencies the rows are taken to be sorted by them. A table of
        fewer than ten rows has a part for each.
        """
        order = np.arange(len(self.cosines))
        if frequencies is not None:
            order = np.argsort(-np.asarray(frequencies), kind="stable")
        parts = np.array_split(order, min(_DECILES, len(order)))
        return [Rows(*(values[part] for values in self)) for part in parts]


def compare_rows(table, baseline) -> Rows:
    """Returns the errors and cosines of the rows of two tables.

    The cosine of two rows of zeros is 1, that of one with another row 0.

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
    table, baseline, neighbours=10, max_queries=500, seed=0
) -> float:
    """Returns the share of nearest neighbours that two tables agree on.

    Neighbours are the other rows of largest cosine, of a sample of rows.

    Args:
        table: Array of shape `(vocabulary, width)`.
        baseline: Array of the same shape.
        neighbours: Integer. How many neighbours of a row are compared.
        max_queries: Integer. The largest number of rows to sample.
        seed: Integer seed of the sample.
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


def nearest_rows(table, queries, count):
    """Returns the `count` rows nearest to each of some rows, in no order.

    Scores of a block of rows are held at a time.
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


def _normalised(rows):
    rows = np.asarray(rows, "float32")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)
