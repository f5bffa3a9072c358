"""Sizes of shared sub-vectors for a budget of parameters."""

from keras_embcomp.checks import natural_number, positive_int
from keras_embcomp.numerics.hashed.subvectors import check_parts

_PARTS = (8, 10, 6, 4, 5, 3, 2, 1)  # the first that divides the width


def hashed_sizes(
    vocabulary: int,
    width: int,
    parameters: float,
    num_private: int = 0,
    num_parts: int | None = None,
) -> dict[str, int]:
    """Returns the largest pool of shared sub-vectors for a budget.

    They are arguments of a hashed layer: `num_subvectors`, `num_parts` and
    `num_private`. The layer has `num_subvectors * width / num_parts` parameters
    and `width` for each private row. There is a sub-vector for each part at
    least, and one for each piece of a row that shares at most.

    Args:
        vocabulary: Integer. Rows of the table.
        width: Integer. Columns of the table.
        parameters: Number. The budget. The private rows and the smallest pool
            may exceed it.
        num_private: Integer, below `vocabulary`. Rows of their own.
        num_parts: Integer that divides `width`. `None` takes 8 where that
            divides it, and else one from 1 to 10.

    Raises:
        ValueError: if a size is none, `num_parts` does not divide the width,
            or no row shares.

    Example:

    >>> hashed_sizes(10_000, 300, 150_000, num_parts=10)
    {'num_subvectors': 5000, 'num_parts': 10, 'num_private': 0}
    """
    positive_int("vocabulary", vocabulary)
    positive_int("width", width)
    if natural_number("num_private", num_private) >= vocabulary:
        raise ValueError(
            "`num_private` must be below `vocabulary`. "
            f"Received: num_private={num_private}, vocabulary={vocabulary}"
        )
    if num_parts is None:
        num_parts = next(parts for parts in _PARTS if width % parts == 0)
    check_parts("width", width, positive_int("num_parts", num_parts))
    shared = parameters - num_private * width
    most = (vocabulary - num_private) * num_parts
    size = min(max(int(shared * num_parts // width), num_parts), most)
    return {
        "num_subvectors": size,
        "num_parts": num_parts,
        "num_private": num_private,
    }
