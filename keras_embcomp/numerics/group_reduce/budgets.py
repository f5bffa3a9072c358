"""From a budget to the ranks that meet it: the only place that does this."""

import heapq
import math
from fractions import Fraction

import numpy as np

from keras_embcomp.checks import (
    at_most,
    finite_table,
    positive_int,
    positive_number,
)
from keras_embcomp.numerics.group_reduce.fitting import frequency_order, smoothed
from keras_embcomp.numerics.group_reduce.groups import (
    checked_sizes,
    starts_of,
    stored_dense,
)
from keras_embcomp.numerics.low_rank import weighted_gram
from keras_embcomp.numerics.tensor_train.shapes import attainable_ranks, resolve_shape


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


def distilled_rank(
    vocabulary: int, width: int, parameters: int, hidden_dim: int | None = None
) -> int:
    """Returns the largest rank of a distilled table with its biases.

    `rank * (V + d + 1) + d` parameters, or with a hidden layer of width `h`
    `rank * (V + h + d) + h * (d + 1) + d`. At least 1.

    Args:
        vocabulary: Integer. Rows of the table.
        width: Integer. Columns of the table.
        parameters: Number. At most so many numbers, if rank 1 has no more.
        hidden_dim: Integer, or `None` for the paper's form.
    """
    own, each = width, vocabulary + width + 1
    if hidden_dim is not None:
        own += hidden_dim * (width + 1)
        each = vocabulary + hidden_dim + width
    return max(int((parameters - own) // each), 1)


def tensor_train_rank(
    vocabulary: int, width: int, parameters: int, num_cores: int = 3
) -> int:
    """Returns the largest rank of a tensor train, the same at every cut.

    With row modes `I` and column modes `J` it has `rank * (I[0] J[0] +
    I[-1] J[-1])` parameters in the outer cores, and `rank**2 * I[k] J[k]` in
    each other. At least 1, and no more than the modes allow.

    Args:
        vocabulary: Integer. Rows of the table.
        width: Integer. Columns of the table.
        parameters: Number. At most so many numbers, if rank 1 has no more.
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


def equal_groups(vocabulary: int, num_groups: int) -> tuple[int, ...]:
    """Returns group sizes that differ by at most one."""
    _check_num_groups(vocabulary, num_groups)
    least, more = divmod(vocabulary, num_groups)
    return tuple(least + (p < more) for p in range(num_groups))


def growing_groups(
    vocabulary: int, num_groups: int, growth: float = 3.0
) -> tuple[int, ...]:
    """Returns group sizes, each about `growth` times the one before it.

    Sizes above 256, but the least of them, are multiples of 64: the search of
    `top_k` is faster then.
    """
    _check_num_groups(vocabulary, num_groups)
    positive_number("growth", growth)
    shares = float(growth) ** np.arange(1 - num_groups, 1)
    sizes = np.maximum(vocabulary * shares / shares.sum(), 1).round()
    large = sizes > 256
    sizes = np.where(large, 64 * (sizes // 64), sizes).astype(int)
    missing = vocabulary - sizes.sum()
    if missing > 0:
        sizes[np.argmax(large) if large.any() else -1] += missing
    for _ in range(-missing):
        sizes[np.argmax(sizes)] -= 1
    return tuple(sizes.tolist())


def _check_num_groups(vocabulary, num_groups):
    positive_int("vocabulary", vocabulary)
    positive_int("num_groups", num_groups)
    at_most("num_groups", num_groups, "vocabulary", vocabulary)


def group_reduce_parameters(group_sizes, group_ranks, width: int) -> int:
    """Returns the parameters of a table in groups: `sum k_p (n_p + d)`.

    A group counts `n_p d` where that is no more.
    """
    return sum(
        min(rank * (size + width), size * width)
        for size, rank in zip(group_sizes, group_ranks, strict=True)
    )


def group_ranks_by_frequency(
    group_sizes, width: int, parameters: int, frequencies, sort=True
) -> tuple[int, ...]:
    """Returns ranks in proportion to the mean frequencies of groups.

    The rule of Chen et al. 2018: the least frequent group has rank `r`, another
    `r` times its mean frequency over that of the least frequent, with the
    largest `r` that the parameters allow. A rank is at least 1, and at most the
    size of its group and the width.

    Args:
        group_sizes: Sizes of the groups, the most frequent first.
        width: Columns of the table.
        parameters: Integer. At most so many numbers.
        frequencies: Counts of shape `(vocabulary,)`; zeros are smoothed.
        sort: Boolean. Whether the groups are by frequency, or as rows come.

    Raises:
        ValueError: if rank 1 everywhere has more parameters; says how many.
    """
    positive_int("width", width)
    group_sizes = checked_sizes("words", len(frequencies), group_sizes)
    weights = smoothed(frequencies, len(frequencies))
    falling = weights[frequency_order(weights, sort)]
    means = np.add.reduceat(falling, starts_of(group_sizes)) / group_sizes
    most = np.minimum(group_sizes, width)

    def ranks(least):
        wanted = np.floor(least * means / means.min()).astype("int64")
        return tuple(np.clip(wanted, 1, most).tolist())

    _check_parameters(group_sizes, width, parameters)
    low, high = 0.0, float(width)
    for _ in range(60):
        middle = (low + high) / 2
        count = group_reduce_parameters(group_sizes, ranks(middle), width)
        low, high = (middle, high) if count <= parameters else (low, middle)
    return ranks(low)


def group_ranks_by_error(
    table, group_sizes, parameters: int, frequencies=None, sort=True
) -> tuple[int, ...]:
    """Returns the ranks with about the least weighted error.

    One by one, the group gets a rank more whose weighted squared error it
    lowers most for each parameter. Beyond the paper: the rule there looks at
    frequencies alone, this one at what each group holds as well.

    Args:
        table: Array of shape `(vocabulary, width)`.
        group_sizes: Sizes of the groups, the most frequent first.
        parameters: Integer. At most so many numbers.
        frequencies: Counts of shape `(vocabulary,)`; zeros are smoothed.
        sort: Boolean. Whether the groups are by frequency, or as rows come.

    Raises:
        ValueError: if rank 1 everywhere has more parameters; says how many.
    """
    table = finite_table("table", table)
    group_sizes = checked_sizes("rows of the table", len(table), group_sizes)
    width = table.shape[1]
    _check_parameters(group_sizes, width, parameters)
    weights = smoothed(frequencies, len(table))
    order = frequency_order(weights, sort)
    steps = []
    for size, rows in zip(
        group_sizes, np.split(order, starts_of(group_sizes)[1:]), strict=True
    ):
        gram = weighted_gram(table[rows], weights[rows])
        steps.append(_steps(np.linalg.eigvalsh(gram)[::-1], size, width))
    ranks = [1] * len(group_sizes)
    spare = parameters - group_reduce_parameters(group_sizes, ranks, width)
    queue = [(-own[0][0], p, 0) for p, own in enumerate(steps) if own]
    heapq.heapify(queue)
    while queue:
        _, group, step = heapq.heappop(queue)
        _, cost, rank = steps[group][step]
        if cost > spare:
            continue
        spare -= cost
        ranks[group] = rank
        if step + 1 < len(steps[group]):
            gain = steps[group][step + 1][0]
            heapq.heappush(queue, (-gain, group, step + 1))
    return tuple(ranks)


def _steps(eigenvalues, size, width):
    """Returns `(error lowered per parameter, parameters, rank)` from rank 1.

    The last step stores the group dense.
    """
    most = min(size, width)
    dense = next(
        (k for k in range(1, most + 1) if stored_dense(size, k, width)), None
    )
    steps = []
    for rank in range(2, (dense or most + 1)):
        cost = size + width
        steps.append((eigenvalues[rank - 1] / cost, cost, rank))
    if dense and dense > 1:
        cost = size * width - (dense - 1) * (size + width)
        gain = eigenvalues[dense - 1 :].sum() / cost
        steps.append((gain, cost, dense))
    return steps


def _check_parameters(group_sizes, width, parameters):
    least = group_reduce_parameters(group_sizes, [1] * len(group_sizes), width)
    if parameters < least:
        raise ValueError(
            f"`parameters` must be at least {least}, which is rank 1 in each "
            f"of the {len(group_sizes)} groups. "
            f"Received: parameters={parameters}"
        )
