"""From a budget to the ranks that meet it: the only place that does this."""

from fractions import Fraction


def low_rank_parameters(vocabulary: int, width: int, rank: int) -> int:
    """Returns the parameters of a rank-`rank` table: `rank * (V + d)`."""
    return rank * (vocabulary + width)


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
