"""How a vocabulary and a width become the modes and ranks of a tensor train.

A tensor train of a `(vocabulary, width)` table has a row mode, a column mode
and two ranks for each core; a *cut* is the place between two cores.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

from keras_embcomp.checks import positive_int

MIN_CORES, MAX_CORES = 2, 6
# Row modes and column modes.
Shape: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
_Found: TypeAlias = tuple[int, int, int, tuple[int, ...]]


def row_modes(vocabulary: int, num_cores: int) -> tuple[int, ...]:
    """Returns balanced modes, ascending, whose product reaches a vocabulary.

    Among all modes with a product of at least `vocabulary`, these have the
    least sum, because the sizes of the cores grow with it. Ties go to the
    largest last mode, because the last core has one rank less, and then to the
    fewest padded rows. Whether the vocabulary is prime makes no difference.
    """
    return _least_sum(vocabulary, num_cores, 1, {})[-1]


def _least_sum(
    size: int, count: int, smallest: int, seen: dict[tuple[int, ...], _Found]
) -> _Found:
    """Returns `(sum, -last, product, modes)` of `count` ascending modes."""
    key = (size, count, smallest)
    if key in seen:
        return seen[key]
    if count == 1:
        mode = max(size, smallest)
        return (mode, -mode, mode, (mode,))
    root = size ** (1 / count)
    best = None
    # The least mode lies just below the root. A far smaller one costs more.
    for mode in range(max(smallest, int(0.7 * root)), math.ceil(root) + 1):
        total, last, product, modes = _least_sum(
            -(-size // mode), count - 1, mode, seen
        )
        found = (mode + total, last, mode * product, (mode, *modes))
        best = found if best is None else min(best, found)
    seen[key] = best or _least_sum(size, count, smallest - 1, seen)
    return seen[key]


def column_modes(width: int, num_cores: int) -> tuple[int, ...]:
    """Returns balanced modes, ascending, whose product is the width.

    They have the least sum. A prime width leaves ones: (1, 1, 127).
    """
    if num_cores == 1:
        return (width,)
    found = []
    for mode in range(1, int(width ** (1 / num_cores) + 1e-9) + 1):
        if width % mode == 0:
            rest = column_modes(width // mode, num_cores - 1)
            found.append(tuple(sorted((mode, *rest))))
    return min(found, key=lambda modes: (sum(modes), modes))


def resolve_shape(
    vocabulary_name: str,
    vocabulary: int,
    width: int,
    num_cores: int,
    tt_shape: Shape | None,
) -> Shape:
    """Returns the pair of tuples `(row modes, column modes)`.

    Raises:
        ValueError: if `tt_shape` is no such pair, or does not hold a table of
            `vocabulary` rows, exactly `width` wide.
    """
    if tt_shape is None:
        num_cores = check_num_cores(num_cores)
        modes = row_modes(vocabulary, num_cores)
        return modes, column_modes(width, num_cores)
    shape = check_shape(tt_shape)
    suggestion = "`tt_shape=None` picks modes that fit"
    rows, columns = (math.prod(modes) for modes in shape)
    if rows < vocabulary:
        raise ValueError(
            "The row modes of `tt_shape` must multiply to at least "
            f"`{vocabulary_name}`; {suggestion}. Received: tt_shape="
            f"{tt_shape}, so {rows} rows, {vocabulary_name}={vocabulary}"
        )
    if columns != width:
        raise ValueError(
            "The column modes of `tt_shape` must multiply to the width of the "
            f"table; {suggestion}. Received: tt_shape={tt_shape}, so "
            f"{columns} columns, width={width}"
        )
    return shape


def check_num_cores(num_cores: int) -> int:
    """Returns `num_cores`; raises a `ValueError` unless it is from 2 to 6."""
    num_cores = positive_int("num_cores", num_cores)
    if not MIN_CORES <= num_cores <= MAX_CORES:
        raise ValueError(
            f"`num_cores` must be from {MIN_CORES} to {MAX_CORES}. "
            f"Received: num_cores={num_cores}"
        )
    return num_cores


def check_shape(tt_shape: Any) -> Shape:
    """Returns `tt_shape` as a pair of tuples, or raises a `ValueError`."""
    try:
        rows, columns = (
            tuple(positive_int("tt_shape", mode) for mode in modes)
            for modes in tt_shape
        )
    except (TypeError, ValueError):
        rows = columns = ()
    if not MIN_CORES <= len(rows) <= MAX_CORES or len(rows) != len(columns):
        raise ValueError(
            "`tt_shape` must be a pair of tuples of positive integers, row "
            f"modes and column modes, one of each for {MIN_CORES} to "
            f"{MAX_CORES} cores. Received: tt_shape={tt_shape}"
        )
    return rows, columns


def attainable_ranks(tt_shape: Shape) -> tuple[int, ...]:
    """Returns the largest rank that a table can have at each cut."""
    sizes = [i * j for i, j in zip(*tt_shape, strict=True)]
    return tuple(
        min(math.prod(sizes[:cut]), math.prod(sizes[cut:]))
        for cut in range(1, len(sizes))
    )


def check_ranks(tt_ranks: Any) -> int | tuple[int, ...]:
    """Returns `tt_ranks` as an integer or a tuple, or raises a `ValueError`."""
    if isinstance(tt_ranks, list | tuple):
        return tuple(positive_int("tt_ranks", rank) for rank in tt_ranks)
    return positive_int("tt_ranks", tt_ranks)


def cut_ranks(
    tt_shape: Shape, tt_ranks: int | Sequence[int]
) -> tuple[int, ...]:
    """Returns a rank for each cut, none above what the modes allow.

    An integer is the rank of every cut, as in Khrulkov et al. 2019, even if the
    outer cuts need less. It is clipped to the largest rank that the modes allow
    at any cut. A list is clipped cut by cut.

    Raises:
        ValueError: if a list does not have one rank for each cut.
    """
    allowed = attainable_ranks(tt_shape)
    if isinstance(tt_ranks, int):
        return (min(tt_ranks, max(allowed)),) * len(allowed)
    if len(tt_ranks) != len(allowed):
        raise ValueError(
            "`tt_ranks` must be an integer, or a list with one rank for each "
            f"of the {len(allowed)} places between the {len(allowed) + 1} "
            f"cores. Received: tt_ranks={tt_ranks}"
        )
    return tuple(min(pair) for pair in zip(tt_ranks, allowed, strict=True))


def core_shapes(
    tt_shape: Shape, ranks: Sequence[int]
) -> tuple[tuple[int, int, int, int], ...]:
    """Returns the shapes `(I, R, J, R')` of the cores."""
    ranks = (1, *ranks, 1)
    return tuple(
        (i, ranks[k], j, ranks[k + 1])
        for k, (i, j) in enumerate(zip(*tt_shape, strict=True))
    )


def tensor_train_rank(
    vocabulary: int, width: int, parameters: int, num_cores: int = 3
) -> int:
    """Returns the largest rank of a tensor train for a budget.

    The rank is the same at every cut, at least 1, and at most what the modes
    allow. With row modes `I` and column modes `J`, the outer cores have
    `rank * (I[0] J[0] + I[-1] J[-1])` parameters, and each other core has
    `rank**2 * I[k] J[k]`.

    Args:
        vocabulary: Integer. Rows of the table.
        width: Integer. Columns of the table.
        parameters: Number. The budget. Rank 1 may exceed it.
        num_cores: Integer, from 2 to 6.
    """
    shape = resolve_shape("vocabulary", vocabulary, width, num_cores, None)
    first, *inner, last = [i * j for i, j in zip(*shape, strict=True)]
    square, linear, parameters = sum(inner), first + last, int(parameters)
    if square:
        root = math.isqrt(linear**2 + 4 * square * parameters)
        rank = (root - linear) // (2 * square)
    else:
        rank = parameters // linear
    return min(max(rank, 1), max(attainable_ranks(shape)))
