"""Decomposition and rounding of tables by t3f, which owns the format.

Cores are NumPy arrays of shape `(I, R, J, R')` here, and `(R, I, J, R')` in a
`t3f.TensorTrain`.
"""

import math
from pathlib import Path

import numpy as np

from keras_embcomp.checks import frequency_weights
from keras_embcomp.numerics.blocks import row_blocks
from keras_embcomp.numerics.tensor_train.contraction import (
    merge_cost,
    merged_cores,
    merged_shapes,
    partitions,
    row_cost,
)
from keras_embcomp.numerics.tensor_train.shapes import attainable_ranks

# What the decomposition holds at its peak, in tables of float32: the padded
# table, its transposed copy, an unfolding and its singular vectors.
_COPIES = 5
_BLOCK_COLUMNS = 65_536


def to_t3f(cores):
    """Returns cores as a `t3f.TensorTrain` of TensorFlow tensors."""
    import t3f
    import tensorflow as tf

    return t3f.TensorTrain([tf.transpose(c, (1, 0, 2, 3)) for c in cores])


def cores_of(tensor_train):
    """Returns the cores of a TT-matrix.

    Raises:
        ValueError: for anything but a matrix in the format of t3f.
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


def from_t3f(tensor_train):
    """Returns the cores of a TT-matrix, no rank above what its modes allow."""
    import t3f

    cores = cores_of(tensor_train)
    structure = structure_of(cores)
    allowed = attainable_ranks(structure["tt_shape"])
    pairs = zip(structure["tt_ranks"], allowed, strict=True)
    if any(rank > most for rank, most in pairs):
        # Loses nothing, as the rank of the table is within these.
        cores = cores_of(t3f.round(tensor_train, max_tt_rank=max(allowed)))
    return cores


def with_ranks_of(cores, shapes):
    """Returns cores with zeros added up to the ranks of other cores.

    Raises:
        ValueError: if their modes differ, or their ranks are higher.
    """
    found = [core.shape for core in cores]
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


def rounded_cores(cores, max_tt_rank):
    """Returns cores of lower ranks for nearly the same table."""
    import t3f

    return from_t3f(t3f.round(to_t3f(cores), max_tt_rank=max_tt_rank))


def full_table(cores, vocabulary):
    """Returns the float32 table, its padded rows cut off."""
    cores = [np.asarray(core).astype("float32") for core in cores]
    (core,) = merged_cores(cores, (len(cores),), np)
    return core.reshape(-1, width_of(cores))[:vocabulary]


def decompose(table, tt_shape, tt_ranks, max_error, frequencies):
    """Returns the cores of a TT-SVD of a table.

    Args:
        table: Array of shape `(vocabulary, width)`.
        tt_shape: Pair of tuples, row and column modes.
        tt_ranks: The largest rank at each cut, or `None` for those that
            `max_error` asks for.
        max_error: Relative error that is not exceeded, of the table whose
            rows are weighed if `frequencies` are given.
        frequencies: Counts of shape `(vocabulary,)` or `None`. The weights
            used are the product of one for each digit of the row that is
            nearest to the counts, as other weights do not survive in the
            format.
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


def ranks_for_error(table, tt_shape, max_error) -> tuple[int, ...]:
    """Returns ranks whose TT-SVD has at most a relative Frobenius error.

    A TT-SVD's squared error is at most the sum, over the cuts, of the squared
    singular values that are left out of the unfolding at that cut (Oseledets
    2011, Theorem 2.2): each cut may leave out its share of `max_error**2`.
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


def _gram(matrix):
    gram = np.zeros((len(matrix), len(matrix)))
    for columns in row_blocks(matrix.shape[1], _BLOCK_COLUMNS):
        part = matrix[:, columns].astype("float64")
        gram += part @ part.T
    return gram


def merged(cores, max_bytes):
    """Returns fewer cores for the same table: the cheapest to look up.

    Args:
        cores: Two cores or more.
        max_bytes: What they may take in float32.

    Raises:
        ValueError: if `max_bytes` is less than the least that fits.
    """
    cores = from_t3f(to_t3f(cores))
    shapes = [core.shape for core in cores]
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


def width_of(cores):
    """Returns the width of the table that cores stand for."""
    return math.prod(core.shape[2] for core in cores)


def structure_of(cores):
    """Returns the structural arguments of a layer with these cores."""
    rows = tuple(core.shape[0] for core in cores)
    columns = tuple(core.shape[2] for core in cores)
    return {
        "tt_shape": (rows, columns),
        "tt_ranks": tuple(core.shape[1] for core in cores[1:]),
    }


def _digit_scales(weights, modes):
    """Returns a scale for each digit; their product is near `sqrt(weights)`.

    The least-squares fit of logarithms. A row that was never counted, or that
    is padding, weighs as the least that was.
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


def _outer(scales):
    """Returns the product of a scale for each digit, for every row."""
    product = np.ones(1)
    for scale in scales:
        product = np.outer(product, scale).ravel()
    return product.astype("float32")


def available_bytes():
    """Returns the memory that Linux can give; infinity on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    sizes = dict(line.split(":") for line in lines)
    return 1024 * int(sizes["MemAvailable"].split()[0])


def _check_memory(table, padded):
    """Raises if the decomposition would not fit into free memory."""
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
