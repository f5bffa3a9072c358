"""Decomposition and rounding of tables with t3f.

Cores are NumPy arrays of shape `(I, R, J, R')` here. In a `t3f.TensorTrain`
they have the shape `(R, I, J, R')`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import frequency_weights
from keras_embcomp.numerics.blocks import row_blocks
from keras_embcomp.numerics.tensor_train.contraction import (
    CoreShape,
    merge_cost,
    merged_cores,
    merged_shapes,
    partitions,
    row_cost,
)
from keras_embcomp.numerics.tensor_train.shapes import Shape, attainable_ranks

# Float32 tables in memory at the peak of the decomposition: the padded table,
# its transposed copy, an unfolding and its singular vectors.
_COPIES = 5
_BLOCK_COLUMNS = 65_536


def to_t3f(cores: Sequence[ArrayLike]) -> Any:
    """Returns cores as a `t3f.TensorTrain` of TensorFlow tensors."""
    import t3f
    import tensorflow as tf

    return t3f.TensorTrain([tf.transpose(c, (1, 0, 2, 3)) for c in cores])


def cores_of(tensor_train: Any) -> list[Array]:
    """Returns the cores of a `t3f.TensorTrain`.

    Raises:
        ValueError: unless `tensor_train` is one, and holds a matrix.
    """
    import t3f

    if not (
        isinstance(tensor_train, t3f.TensorTrain)
        and tensor_train.is_tt_matrix()
    ):
        raise ValueError(
            "`tensor_train` must be a `t3f.TensorTrain` that holds a matrix. "
            f"Received: tensor_train={tensor_train!r}"
        )
    return [
        np.asarray(core).transpose(1, 0, 2, 3) for core in tensor_train.tt_cores
    ]


def from_t3f(tensor_train: Any) -> list[Array]:
    """Returns the cores of a `t3f.TensorTrain`, with attainable ranks.

    Ranks above what the modes allow are rounded down, without loss.

    Raises:
        ValueError: unless `tensor_train` is one, and holds a matrix.
    """
    import t3f

    cores = cores_of(tensor_train)
    structure = structure_of(cores)
    allowed = attainable_ranks(structure["tt_shape"])
    pairs = zip(structure["tt_ranks"], allowed, strict=True)
    if any(rank > most for rank, most in pairs):
        # Nothing is lost: the table itself has no higher rank.
        cores = cores_of(t3f.round(tensor_train, max_tt_rank=max(allowed)))
    return cores


def with_ranks_of(
    cores: Sequence[Array], shapes: Sequence[tuple[int, ...]]
) -> list[Array]:
    """Returns cores padded with zeros to the ranks of other shapes.

    Args:
        cores: Arrays of shape `(I, R, J, R')`.
        shapes: The wanted shape of each core.

    Raises:
        ValueError: if the modes differ, or a rank is higher than wanted.
    """
    found = shapes_of(cores)
    fits = len(found) == len(shapes) and all(
        mine[::2] == other[::2] and mine[1] <= other[1] and mine[3] <= other[3]
        for mine, other in zip(found, shapes, strict=True)
    )
    if not fits:
        raise ValueError(
            "`tensor_train` must have the modes of the layer, and ranks up to "
            "its own; `from_tensor_train` makes another layer. Received: cores "
            f"of shapes {found}, where the layer has {shapes}"
        )
    return [
        np.pad(
            core,
            [(0, more - n) for n, more in zip(core.shape, shape, strict=True)],
        )
        for core, shape in zip(cores, shapes, strict=True)
    ]


def rounded_cores(cores: Sequence[Array], max_tt_rank: int) -> list[Array]:
    """Returns cores of ranks up to `max_tt_rank` for nearly the same table."""
    import t3f

    return from_t3f(t3f.round(to_t3f(cores), max_tt_rank=max_tt_rank))


def full_table(cores: Sequence[ArrayLike], vocabulary: int) -> Array:
    """Returns the float32 table `(vocabulary, width)`, without padded rows."""
    cores = [np.asarray(core).astype("float32") for core in cores]
    (core,) = merged_cores(cores, (len(cores),), np)
    return core.reshape(-1, width_of(cores))[:vocabulary]


def decompose(
    table: Array,
    tt_shape: Shape,
    tt_ranks: Sequence[int] | None,
    max_error: float | None,
    frequencies: ArrayLike | None,
) -> list[Array]:
    """Returns the cores of a TT-SVD of a table.

    Args:
        table: Array of shape `(vocabulary, width)`.
        tt_shape: Pair of tuples, row and column modes.
        tt_ranks: The largest rank at each cut. `None` takes the ranks that
            `max_error` needs.
        max_error: The largest relative error, without `tt_ranks`. With
            `frequencies`, it is the error of the weighted table.
        frequencies: Counts of shape `(vocabulary,)` or `None`. The format
            keeps only weights that are a product of one number for each digit
            of the row. The nearest such product to the counts is used.

    Raises:
        ValueError: if free memory is too small, or the counts do not fit.
    """
    import t3f

    padded = np.zeros((math.prod(tt_shape[0]), table.shape[1]), "float32")
    _check_memory(table, padded)
    padded[: len(table)] = table
    scales = None
    if frequencies is not None:
        weights = frequency_weights(frequencies, len(table))
        scales = _digit_scales(weights, tt_shape[0])
        padded *= _outer(scales)[:, None]
    if tt_ranks is None:
        assert max_error is not None  # one of both is given
        tt_ranks = ranks_for_error(padded, tt_shape, max_error)
    tensor_train = t3f.to_tt_matrix(
        padded, tt_shape, max_tt_rank=[1, *tt_ranks, 1]
    )
    cores = from_t3f(tensor_train)
    if scales is None:
        return cores
    return [
        core / scale[:, None, None, None].astype("float32")
        for core, scale in zip(cores, scales, strict=True)
    ]


def ranks_for_error(
    table: Array, tt_shape: Shape, max_error: float
) -> tuple[int, ...]:
    """Returns ranks whose TT-SVD has at most a relative Frobenius error.

    The squared error of a TT-SVD is at most the sum, over the cuts, of the
    squared singular values that are left out of the unfolding at that cut
    (Oseledets 2011, Theorem 2.2). So each cut may leave out an equal share of
    `max_error**2`.

    Args:
        table: Array of shape `(product of the row modes, width)`.
        tt_shape: Pair of tuples, row and column modes.
        max_error: The largest relative error.
    """
    num_cores = len(tt_shape[0])
    order = [axis for k in range(num_cores) for axis in (k, k + num_cores)]
    tensor = table.reshape(*tt_shape[0], *tt_shape[1]).transpose(order)
    allowed = max_error**2 * np.sum(np.square(table, dtype="float64"))
    ranks = []
    for cut in range(1, num_cores):
        unfolding = tensor.reshape(math.prod(tensor.shape[: 2 * cut]), -1)
        if len(unfolding) > unfolding.shape[1]:
            unfolding = unfolding.T
        # Squared singular values, summed in float64.
        squares = np.linalg.eigvalsh(_gram(unfolding))
        left_out = np.cumsum(np.maximum(squares, 0))
        kept = np.sum(left_out > allowed / (num_cores - 1))
        ranks.append(max(1, int(kept)))
    return tuple(ranks)


def _gram(matrix: Array) -> Array:
    """Returns `matrix @ matrix.T` in float64."""
    gram = np.zeros((len(matrix), len(matrix)))
    for columns in row_blocks(matrix.shape[1], _BLOCK_COLUMNS):
        part = matrix[:, columns].astype("float64")
        gram += part @ part.T
    return gram


def merged(cores: Sequence[ArrayLike], max_bytes: float) -> list[Array]:
    """Returns cores of the same table, merged for the cheapest lookups.

    Args:
        cores: Two cores or more.
        max_bytes: The most bytes that they may take in float32.

    Raises:
        ValueError: if even the smallest plan takes more than `max_bytes`.
    """
    cores = from_t3f(to_t3f(cores))
    shapes = shapes_of(cores)
    sizes = {
        plan: 4 * sum(math.prod(s) for s in merged_shapes(shapes, plan))
        for plan in partitions(len(cores))
        if len(plan) > 1
    }
    if not min(sizes.values()) <= max_bytes:
        raise ValueError(
            f"`max_bytes` must be at least {min(sizes.values()):,} for the "
            f"cores to be merged. Received: max_bytes={max_bytes}"
        )
    plan = min(
        (plan for plan, size in sizes.items() if size <= max_bytes),
        key=lambda plan: (
            row_cost(merged_shapes(shapes, plan)),
            merge_cost(shapes, plan),
        ),
    )
    return merged_cores(cores, plan, np)


def shapes_of(cores: Sequence[Array]) -> list[CoreShape]:
    """Returns the shape `(I, R, J, R')` of each core."""
    shapes = []
    for core in cores:
        rows, rank, columns, next_rank = core.shape
        shapes.append((rows, rank, columns, next_rank))
    return shapes


def width_of(cores: Sequence[Array]) -> int:
    """Returns the width of the table."""
    return math.prod(core.shape[2] for core in cores)


def structure_of(cores: Sequence[Array]) -> dict[str, Any]:
    """Returns `tt_shape` and `tt_ranks` of a layer with these cores."""
    rows = tuple(core.shape[0] for core in cores)
    columns = tuple(core.shape[2] for core in cores)
    return {
        "tt_shape": (rows, columns),
        "tt_ranks": tuple(core.shape[1] for core in cores[1:]),
    }


def _digit_scales(weights: Array, modes: tuple[int, ...]) -> list[Array]:
    """Returns a scale for each digit; their product is near `sqrt(weights)`.

    The scales are a least-squares fit of logarithms. A row that was never
    counted, and a padded row, weigh as much as the least frequent row.
    """
    least = max(weights[weights > 0].min(), 1e-8 * weights.max())
    padded = np.full(math.prod(modes), least)
    padded[: len(weights)] = np.maximum(weights, least)
    logs = np.log(padded).reshape(modes) / 2
    mean = logs.mean()
    axes = range(len(modes))
    return [
        np.exp(
            logs.mean(axis=tuple(a for a in axes if a != axis))
            - mean * (1 - 1 / len(modes))
        )
        for axis in axes
    ]


def _outer(scales: Sequence[Array]) -> Array:
    """Returns for every row the product of its digits' scales, in float32."""
    product = np.ones(1)
    for scale in scales:
        product = np.outer(product, scale).ravel()
    return product.astype("float32")


def available_bytes() -> float:
    """Returns the free memory of a Linux system; infinity elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    sizes = dict(line.split(":") for line in lines)
    return 1024 * int(sizes["MemAvailable"].split()[0])


def _check_memory(table: Array, padded: Array) -> None:
    """Raises a `ValueError` if the decomposition exceeds free memory."""
    free = available_bytes()
    needed = _COPIES * padded.nbytes
    if needed > free:
        rows = int(free / needed * len(table))
        raise ValueError(
            "`table` must leave room for its decomposition, which takes "
            f"{_COPIES} times its size. Received: table of shape "
            f"{table.shape}, so {needed:,} bytes, with {free:,} free: at most "
            f"{rows:,} rows fit"
        )
