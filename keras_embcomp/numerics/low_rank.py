"""The best low-rank approximation of a table, and ranks for a budget."""

from fractions import Fraction

import numpy as np

from keras_embcomp.checks import (
    at_most,
    finite_table,
    frequency_weights,
    positive_int,
)
from keras_embcomp.numerics.blocks import row_blocks


def truncated_svd(
    table: np.ndarray, rank: int, frequencies: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Factors a table by its truncated singular value decomposition.

    With `A = table`, `Q = diag(sqrt(frequencies))` and `Q A ~ U S V^T`, the
    factors are `Q^-1 U S` and `V^T`: the rank-`rank` product nearest to the
    table (Acharya et al. 2019, Eq. 3; with frequencies: Chen et al. 2018,
    Eq. 3). Since `Q^-1 U S = A V`, only the small matrix `A^T Q^2 A` is
    decomposed, and a row that was never counted still gets its best
    coordinates. Time is `O(vocabulary * width^2)`; memory beyond the factors
    is `O(width^2)`, whatever the vocabulary.

    The paper puts `S` into the right factor. The entries of the left one are
    then about `1 / sqrt(vocabulary)`, and a step of Adam moves a row by a large
    part of itself; with the scale on the left it moves it as it would move a
    row of the table.

    Args:
        table: Array of shape `(vocabulary, width)`.
        rank: Integer, at most `width`.
        frequencies: Counts of shape `(vocabulary,)`, not negative. A row's
            squared error is weighed by its count.

    Returns:
        Two float32 arrays of shapes `(vocabulary, rank)` and `(rank, width)`,
        whose product minimises the (weighted) sum of squared errors.

    Raises:
        ValueError: for a table that is not two-dimensional and finite, a rank
            above its width, or counts of another length or below zero.
    """
    table = finite_table("table", table)
    vocabulary, width = table.shape
    at_most("rank", positive_int("rank", rank), "width", width)
    weights = frequency_weights(frequencies, vocabulary)
    _, directions = np.linalg.eigh(weighted_gram(table, weights))
    directions = directions[:, ::-1][:, :rank]
    left = np.empty((vocabulary, rank), "float32")
    for part in row_blocks(vocabulary):
        left[part] = table[part] @ directions
    return left, directions.T.astype("float32")


def weighted_gram(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns `A^T Q^2 A` in float64, of shape `(width, width)`.

    Its eigenvalues are the squared singular values of `Q A`.

    Args:
        table: `A`, of shape `(vocabulary, width)`.
        weights: The diagonal of `Q^2`, of shape `(vocabulary,)`.
    """
    gram = np.zeros((table.shape[1],) * 2)
    for part in row_blocks(len(table)):
        rows = table[part].astype("float64")
        gram += rows.T @ (rows * weights[part, None])
    return gram


def low_rank_from_fraction(vocabulary: int, width: int, fraction: float) -> int:
    """Returns the largest rank that keeps at most a fraction of a table.

    `floor(fraction * V * d / (V + d))`, at least 1 and at most `width`
    (Acharya et al. 2019, Eq. 5). To remove 90 % of the parameters, pass
    `fraction=0.1`.

    Args:
        vocabulary: Integer. Rows of the table.
        width: Integer. Columns of the table.
        fraction: Number above 0, at most 1: parameters kept over parameters
            of the dense table.

    Raises:
        ValueError: if `fraction` is out of its range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(
            "`fraction` must be above 0 and at most 1. "
            f"Received: fraction={fraction}"
        )
    # str() reads 0.1 as one tenth: a binary 0.1 can floor to one rank less.
    kept = Fraction(str(float(fraction))) * vocabulary * width
    return min(max(int(kept / (vocabulary + width)), 1), width)
