"""The best low-rank approximation of a table, and the rank for a budget."""

from fractions import Fraction

import numpy as np

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import (
    at_most,
    finite_table,
    frequency_weights,
    positive_int,
)
from keras_embcomp.numerics.blocks import row_blocks


def truncated_svd(
    table: ArrayLike, rank: int, frequencies: ArrayLike | None = None
) -> tuple[Array, Array]:
    """Factors a table by its truncated singular value decomposition.

    With `A = table`, `Q = diag(sqrt(frequencies))` and `Q A ~ U S V^T`, the
    factors are `Q^-1 U S` and `V^T`: the rank-`rank` product nearest to the
    table (Acharya et al. 2019, Eq. 3; with frequencies: Chen et al. 2018,
    Eq. 3). Since `Q^-1 U S = A V`, only the small matrix `A^T Q^2 A` is
    decomposed, and a row that was never counted still gets its best
    coordinates. Time is `O(vocabulary * width^2)`; memory beyond the factors
    is `O(width^2)`, whatever the vocabulary.

    The paper puts `S` into the right factor. The entries of the left factor are
    then about `1 / sqrt(vocabulary)`, and a step of Adam changes a row by a
    large part of its norm. With `S` in the left factor, a step changes a row as
    it would change a row of the table.

    Args:
        table: Array of shape `(vocabulary, width)`.
        rank: Integer, at most `width`.
        frequencies: Counts of shape `(vocabulary,)`, not negative. A row's
            squared error is weighed by its count.

    Returns:
        Two float32 arrays of shapes `(vocabulary, rank)` and `(rank, width)`,
        whose product minimises the (weighted) sum of squared errors.

    Raises:
        ValueError: if the table is not two-dimensional and finite, if the rank
            exceeds its width, or if the counts have another length or are
            negative.
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


def weighted_gram(
    table: Array, weights: Array, mean: Array | float = 0.0
) -> Array:
    """Returns `A^T Q^2 A` in float64, of shape `(width, width)`.

    Its eigenvalues are the squared singular values of `Q A`.

    Args:
        table: `A`, of shape `(vocabulary, width)`.
        weights: The diagonal of `Q^2`, of shape `(vocabulary,)`.
        mean: Array of shape `(width,)`, which is taken off each row first.
    """
    gram = np.zeros((table.shape[1],) * 2)
    for part in row_blocks(len(table)):
        rows = table[part].astype("float64") - mean
        gram += rows.T @ (rows * weights[part, None])
    return gram


def low_rank_from_parameters(
    vocabulary: int, width: int, parameters: float
) -> int:
    """Returns the largest rank of a low-rank table for a budget; at least 1.

    The table has `rank * (V + d)` parameters; the rank is at most `width`.

    Args:
        vocabulary: Integer. Rows of the table.
        width: Integer. Columns of the table.
        parameters: Number. The budget. Rank 1 may exceed it.
    """
    positive_int("vocabulary", vocabulary)
    positive_int("width", width)
    return min(max(int(parameters // (vocabulary + width)), 1), width)


def low_rank_from_fraction(vocabulary: int, width: int, fraction: float) -> int:
    """Returns the largest rank that keeps at most a fraction of a table.

    `floor(fraction * V * d / (V + d))`, at least 1 and at most `width`
    (Acharya et al. 2019, Eq. 5). To remove 90 % of the parameters, pass
    `fraction=0.1`.

    Args:
        vocabulary: Integer. Rows of the table.
        width: Integer. Columns of the table.
        fraction: Number above 0, at most 1: the parameters that are kept,
            divided by the parameters of the dense table.

    Raises:
        ValueError: if `fraction` is out of its range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(
            "`fraction` must be above 0 and at most 1. "
            f"Received: fraction={fraction}"
        )
    # str() makes 0.1 exactly one tenth; a binary 0.1 can give one rank less.
    kept = Fraction(str(float(fraction))) * vocabulary * width
    return min(max(int(kept / (vocabulary + width)), 1), width)
