"""In which order a tensor train is contracted: chosen from sizes alone.

Neighbouring cores may be *merged* into one before they are used: a product of
matrices for all rows at once, in place of many small products for each id. A
plan says how many neighbours each merged core takes in: `(2, 1)` merges the
first two of three cores. Sizes are those of cores `(I, R, J, R')`.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_embcomp._types import Tensor

# What a core of a CPU does in a nanosecond, to weigh one way against another.
GEMM_FLOPS, SMALL_PRODUCT_FLOPS, BYTES = 30.0, 10.0, 6.0


def partitions(num_cores: int):
    """Returns all ways to split cores into groups of neighbours."""
    return [
        tuple(
            end - start
            for start, end in itertools.pairwise((0, *cuts, num_cores))
        )
        for count in range(num_cores)
        for cuts in itertools.combinations(range(1, num_cores), count)
    ]


def grouped(items, plan):
    """Returns the neighbours that each group of a plan takes in."""
    ends = list(itertools.accumulate(plan))
    return [
        items[end - size : end] for end, size in zip(ends, plan, strict=True)
    ]


def merged_cores(
    cores: Sequence[Tensor], plan: tuple[int, ...], xp: Any = ops
) -> list[Any]:
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


def merged_shape(shapes):
    """Returns the shape `(I, R, J, R')` of neighbouring cores in one."""
    return (
        math.prod(shape[0] for shape in shapes),
        shapes[0][1],
        math.prod(shape[2] for shape in shapes),
        shapes[-1][3],
    )


def merged_shapes(shapes, plan):
    return [merged_shape(group) for group in grouped(shapes, plan)]


@functools.lru_cache
def plan_rows(shapes, count: int) -> tuple[int, ...]:
    """Returns the plan with which `count` rows cost least.

    It holds twice the numbers of the dense table at most, or the least there
    is: with gradients four times, as the dense layer does with Adam.
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


def _rows_numbers(shapes, plan, count):
    """Returns how many numbers the merged cores and the slices hold."""
    merged = merged_shapes(shapes, plan)
    stored = sum(
        math.prod(shape)
        for size, shape in zip(plan, merged, strict=True)
        if size > 1
    )
    return stored + count * sum(math.prod(shape[1:]) for shape in merged)


@functools.lru_cache
def plan_logits(shapes, count: int) -> tuple[int, ...]:
    """Returns the plan with which the logits of `count` tokens cost least.

    One group of all the cores is the dense table, built for the step.
    """
    return min(
        partitions(len(shapes)),
        key=lambda plan: (
            merge_cost(shapes, plan)
            + count * _token_cost(merged_shapes(shapes, plan))
        ),
    )


def merge_cost(shapes, plan):
    """Nanoseconds to merge, the transposed copy of each result included."""
    cost = 0.0
    for group in grouped(shapes, plan):
        for size in range(2, len(group) + 1):
            left = merged_shape(group[: size - 1])
            merged = math.prod(merged_shape(group[:size]))
            cost += 2 * merged * left[3] / GEMM_FLOPS + 12 * merged / BYTES
    return cost


def row_cost(shapes):
    """Nanoseconds of one row: gathered slices, then their chain of products."""
    cost = 8 * sum(math.prod(shape[1:]) for shape in shapes) / BYTES
    columns = shapes[0][2]
    for _, rank, mode, next_rank in shapes[1:]:
        flops = 2 * columns * rank * mode * next_rank
        used = min(1, mode * next_rank / 8)  # of the lanes of a vector
        cost += flops / SMALL_PRODUCT_FLOPS / used
        columns *= mode
    return cost


def _token_cost(shapes):
    """Nanoseconds of the logits of one token, contracted from the right."""
    columns = math.prod(shape[2] for shape in shapes)
    rows, cost = 1, 0.0
    for mode, rank, column_mode, next_rank in reversed(shapes):
        columns //= column_mode
        written = columns * rank * mode * rows
        cost += 2 * written * column_mode * next_rank / GEMM_FLOPS
        cost += 4 * written / BYTES
        rows *= mode
    return cost
