"""Sizes and ranks of groups for a budget of parameters."""

import heapq
from collections.abc import Sequence

import numpy as np

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import (
    at_most,
    finite_table,
    positive_int,
    positive_number,
)
from keras_embcomp.numerics.group_reduce.fitting import (
    frequency_order,
    smoothed,
)
from keras_embcomp.numerics.group_reduce.groups import (
    checked_sizes,
    starts_of,
    stored_dense,
)
from keras_embcomp.numerics.low_rank import weighted_gram


def equal_groups(vocabulary: int, num_groups: int) -> tuple[int, ...]:
    """Returns group sizes that differ by at most one.

    Raises:
        ValueError: unless there are from 1 to `vocabulary` groups.
    """
    _check_num_groups(vocabulary, num_groups)
    least, more = divmod(vocabulary, num_groups)
    return tuple(least + (p < more) for p in range(num_groups))


def growing_groups(
    vocabulary: int, num_groups: int, growth: float = 3.0
) -> tuple[int, ...]:
    """Returns group sizes, each about `growth` times the one before it.

    Sizes above 256 are multiples of 64, except the least of them, because
    `top_k` then searches faster.

    Raises:
        ValueError: unless there are from 1 to `vocabulary` groups, and
            `growth` is above 0.
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


def _check_num_groups(vocabulary: int, num_groups: int) -> None:
    positive_int("vocabulary", vocabulary)
    positive_int("num_groups", num_groups)
    at_most("num_groups", num_groups, "vocabulary", vocabulary)


def group_reduce_parameters(
    group_sizes: Sequence[int], group_ranks: Sequence[int], width: int
) -> int:
    """Returns the parameters of a table in groups: `sum k_p (n_p + d)`.

    A group that is stored dense has `n_p d`.
    """
    return sum(
        min(rank * (size + width), size * width)
        for size, rank in zip(group_sizes, group_ranks, strict=True)
    )


def group_ranks_by_frequency(
    group_sizes: Sequence[int],
    width: int,
    parameters: int,
    frequencies: ArrayLike | None = None,
    sort: bool = True,
) -> tuple[int, ...]:
    """Returns ranks in proportion to the mean frequencies of groups.

    The rule of Chen et al. 2018: the group with the least mean frequency has
    rank `r`. Any other group has `r` times the ratio of its mean frequency to
    the least one. `r` is the largest that the parameters allow. A rank is at
    least 1, and at most the size of its group and the width.

    Args:
        group_sizes: Sizes of the groups, the most frequent first.
        width: Columns of the table.
        parameters: Integer. The budget.
        frequencies: Counts of shape `(vocabulary,)`. Zeros are smoothed.
            `None` assumes Zipf's law: the first row is the most frequent, and
            row `n` has the `n`-th part of its count.
        sort: Boolean. Whether rows are grouped by frequency. If `False`, they
            are grouped in the order of the table.

    Raises:
        ValueError: if rank 1 in every group exceeds the budget.
    """
    positive_int("width", width)
    if frequencies is None:
        group_sizes = checked_sizes("words", sum(group_sizes), group_sizes)
        means = _zipf_means(group_sizes)
    else:
        group_sizes = checked_sizes("words", len(frequencies), group_sizes)
        weights = smoothed(frequencies, len(frequencies))
        falling = weights[frequency_order(weights, sort)]
        means = np.add.reduceat(falling, starts_of(group_sizes)) / group_sizes
    most = np.minimum(group_sizes, width)

    def ranks(least: float) -> tuple[int, ...]:
        wanted = np.floor(least * means / means.min()).astype("int64")
        return tuple(np.clip(wanted, 1, most).tolist())

    _check_parameters(group_sizes, width, parameters)
    low, high = 0.0, float(width)
    for _ in range(60):
        middle = (low + high) / 2
        count = group_reduce_parameters(group_sizes, ranks(middle), width)
        low, high = (middle, high) if count <= parameters else (low, middle)
    return ranks(low)


def _zipf_means(group_sizes: Sequence[int]) -> Array:
    """Returns the mean of `1 / n` in each group, without a row for each word.

    Sums of `1 / n` are harmonic numbers, by their expansion (Knuth, The Art of
    Computer Programming, 1.2.7), which is exact to 1e-8 from 20 terms on.
    """
    ends = np.cumsum([0, *group_sizes]).astype("float64")
    first = np.cumsum(1 / np.arange(1, 21))
    large = np.maximum(ends, 20)
    sums = np.log(large) + np.euler_gamma + 1 / (2 * large) - 1 / 12 / large**2
    few = np.append(0, first)[np.minimum(ends, 20).astype(int)]
    return np.diff(np.where(ends < 20, few, sums)) / group_sizes


def group_ranks_by_error(
    table: ArrayLike,
    group_sizes: Sequence[int],
    parameters: int,
    frequencies: ArrayLike | None = None,
    sort: bool = True,
) -> tuple[int, ...]:
    """Returns the ranks with about the least weighted error.

    Ranks are raised one by one. Each time, the group is chosen whose weighted
    squared error falls most for each added parameter. This goes beyond Chen et
    al. 2018, whose rule uses frequencies alone and not the rows of a group.

    Args:
        table: Array of shape `(vocabulary, width)`.
        group_sizes: Sizes of the groups, the most frequent first.
        parameters: Integer. The budget.
        frequencies: Counts of shape `(vocabulary,)`. Zeros are smoothed.
        sort: Boolean. Whether rows are grouped by frequency. If `False`, they
            are grouped in the order of the table.

    Raises:
        ValueError: if rank 1 in every group exceeds the budget.
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


def _steps(
    eigenvalues: Array, size: int, width: int
) -> list[tuple[float, int, int]]:
    """Returns what each rise of a group's rank, from rank 1, gains and costs.

    A step is `(fall of the error per parameter, parameters, rank)`. The last
    step stores the group dense.
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


def _check_parameters(
    group_sizes: Sequence[int], width: int, parameters: int
) -> None:
    least = group_reduce_parameters(group_sizes, [1] * len(group_sizes), width)
    if parameters < least:
        raise ValueError(
            f"`parameters` must be at least {least}, which is rank 1 in each "
            f"of the {len(group_sizes)} groups. "
            f"Received: parameters={parameters}"
        )
