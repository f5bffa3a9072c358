"""Plans that say which cores of a tensor train to merge before use.

Neighbouring cores may be *merged* into one: one product of matrices for all
rows, in place of many small products for each id. A plan says how many
neighbours each merged core takes in: `(2, 1)` merges the first two of three
cores. Plans are chosen from the shapes `(I, R, J, R')` of the cores alone.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

from keras import ops

from keras_embcomp._types import Tensor

# Shape `(I, R, J, R')` of a core.
CoreShape: TypeAlias = tuple[int, int, int, int]
_Item = TypeVar("_Item")

# What a CPU core does in a nanosecond: only for comparing plans.
GEMM_FLOPS, SMALL_PRODUCT_FLOPS, BYTES = 30.0, 10.0, 6.0


def partitions(num_cores: int) -> list[tuple[int, ...]]:
    """Returns all plans: all ways to split cores into groups of neighbours."""
    return [
        tuple(
            end - start
            for start, end in itertools.pairwise((0, *cuts, num_cores))
        )
        for count in range(num_cores)
        for cuts in itertools.combinations(range(1, num_cores), count)
    ]


def grouped(
    items: Sequence[_Item], plan: Sequence[int]
) -> list[Sequence[_Item]]:
    """Returns the items of each group of a plan."""
    ends = list(itertools.accumulate(plan))
    return [
        items[end - size : end] for end, size in zip(ends, plan, strict=True)
    ]


def merged_cores(
    cores: Sequence[Tensor], plan: Sequence[int], xp: Any = ops
) -> list[Tensor]:
    """Returns one core `(I, R, J, R')` for each group of a plan.

    Args:
        cores: Tensors, or arrays if `xp` is `numpy`.
        plan: How many neighbours each merged core takes in.
        xp: `keras.ops` or `numpy`.
    """
    merged = []
    for first, *rest in grouped(list(cores), plan):
        for core in rest:
            first = _merged_pair(first, core, xp)
        merged.append(first)
    return merged


def _merged_pair(left: Tensor, right: Tensor, xp: Any) -> Tensor:
    modes = zip(left.shape, right.shape, strict=True)
    (rows, more_rows), (rank, middle), (columns, more_columns), ranks = modes
    right = xp.reshape(xp.transpose(right, (1, 0, 2, 3)), (middle, -1))
    product = xp.matmul(xp.reshape(left, (-1, middle)), right)
    product = xp.reshape(
        product,
        (rows, rank, columns, more_rows, more_columns * ranks[1]),
    )
    return xp.reshape(
        xp.transpose(product, (0, 3, 1, 2, 4)),
        (rows * more_rows, rank, columns * more_columns, ranks[1]),
    )


def merged_shape(shapes: Sequence[CoreShape]) -> CoreShape:
    """Returns the shape `(I, R, J, R')` of neighbours merged into one core."""
    return (
        math.prod(shape[0] for shape in shapes),
        shapes[0][1],
        math.prod(shape[2] for shape in shapes),
        shapes[-1][3],
    )


def merged_shapes(
    shapes: Sequence[CoreShape], plan: Sequence[int]
) -> list[CoreShape]:
    """Returns the shapes of the merged cores of a plan."""
    return [merged_shape(group) for group in grouped(shapes, plan)]


@functools.lru_cache
def plan_rows(shapes: tuple[CoreShape, ...], count: int) -> tuple[int, ...]:
    """Returns the plan for which `count` rows cost least.

    The plan holds at most twice the numbers of the dense table, or the fewest
    that any plan holds. With gradients that is four times the dense table, as
    much as a dense layer holds with Adam.
    """
    plans = [plan for plan in partitions(len(shapes)) if len(plan) > 1]
    numbers = {plan: _rows_numbers(shapes, plan, count) for plan in plans}
    dense = math.prod(shape[0] * shape[2] for shape in shapes)
    most = max(2 * dense, min(numbers.values()))
    return min(
        (plan for plan in plans if numbers[plan] <= most),
        key=lambda plan: (
            merge_cost(shapes, plan)
            + count * row_cost(merged_shapes(shapes, plan))
        ),
    )


def _rows_numbers(
    shapes: Sequence[CoreShape], plan: Sequence[int], count: int
) -> int:
    """Returns how many numbers the merged cores and the slices hold."""
    merged = merged_shapes(shapes, plan)
    stored = sum(
        math.prod(shape)
        for size, shape in zip(plan, merged, strict=True)
        if size > 1
    )
    return stored + count * sum(math.prod(shape[1:]) for shape in merged)


@functools.lru_cache
def plan_logits(shapes: tuple[CoreShape, ...], count: int) -> tuple[int, ...]:
    """Returns the plan for which the logits of `count` tokens cost least.

    A plan of one group materialises the dense table for the step.
    """
    return min(
        partitions(len(shapes)),
        key=lambda plan: (
            merge_cost(shapes, plan)
            + count * _token_cost(merged_shapes(shapes, plan))
        ),
    )


def merge_cost(shapes: Sequence[CoreShape], plan: Sequence[int]) -> float:
    """Returns the nanoseconds to merge, and to transpose each result."""
    cost = 0.0
    for group in grouped(shapes, plan):
        for size in range(2, len(group) + 1):
            left = merged_shape(group[: size - 1])
            merged = math.prod(merged_shape(group[:size]))
            cost += 2 * merged * left[3] / GEMM_FLOPS + 12 * merged / BYTES
    return cost


def row_cost(shapes: Sequence[CoreShape]) -> float:
    """Returns the nanoseconds to gather one row's slices and multiply them."""
    cost = 8 * sum(math.prod(shape[1:]) for shape in shapes) / BYTES
    columns = shapes[0][2]
    for _, rank, mode, next_rank in shapes[1:]:
        flops = 2 * columns * rank * mode * next_rank
        used = min(1, mode * next_rank / 8)  # of the lanes of a vector
        cost += flops / SMALL_PRODUCT_FLOPS / used
        columns *= mode
    return cost


def _token_cost(shapes: Sequence[CoreShape]) -> float:
    """Returns the nanoseconds of one token's logits, from the last core on."""
    columns = math.prod(shape[2] for shape in shapes)
    rows, cost = 1, 0.0
    for mode, rank, column_mode, next_rank in reversed(shapes):
        columns //= column_mode
        written = columns * rank * mode * rows
        cost += 2 * written * column_mode * next_rank / GEMM_FLOPS
        cost += 4 * written / BYTES
        rows *= mode
    return cost
