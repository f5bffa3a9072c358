"""Which rows and directions of a table get how many bits.

Squared errors are least if every direction of every row that gets bits loses
the same, its weight included (reverse water-filling, Cover and Thomas 2006,
Theorem 10.3.3).
"""

from typing import NamedTuple

import numpy as np

from keras_embcomp._types import Array
from keras_embcomp.numerics.blocks import row_blocks
from keras_embcomp.numerics.low_rank import weighted_gram

_NOISE = 1e-12  # of the largest variance
_LEAST_WEIGHT = 1e-6  # relative to the mean
_SURE = 1_000  # rows of a group whose own variances are believed as to a half


class Rotation(NamedTuple):
    """The principal directions of a table.

    Attributes:
        mean: Shape `(width,)`.
        directions: Shape `(width, width)`; a column is a direction, that of the
            largest variance first. Those of rounding errors are zeros.
        variances: Shape `(width,)`, falling.
    """

    mean: Array
    directions: Array
    variances: Array


def above_zero(weights: Array) -> Array:
    """Returns weights of rows of which none is nothing."""
    return np.maximum(weights, _LEAST_WEIGHT)


def rotation_of(table: Array, weights: Array) -> Rotation:
    """Returns the weighted principal directions of a table."""
    total = weights.sum()
    mean = (weights @ table / total).astype("float32")
    gram = weighted_gram(table, weights, mean) / total
    variances, directions = np.linalg.eigh(gram)
    variances, directions = variances[::-1], directions[:, ::-1]
    noise = variances <= _NOISE * max(variances[0], 0)
    return Rotation(
        mean,
        np.where(noise, 0, directions).astype("float32"),
        np.where(noise, 0, variances),
    )


def row_gains(table: Array, rotation: Rotation, used: Array) -> Array:
    """Returns the energy of each row over that of a typical one.

    It is the mean of the squares along some directions, each over its variance:
    the most likely scale of a Gaussian row with these variances.

    Args:
        table: Array of shape `(vocabulary, width)`.
        rotation: The principal directions.
        used: Boolean array of shape `(width,)`.
    """
    used = used & (rotation.variances > 0)
    if not used.any():
        return np.ones(len(table))
    scaled = rotation.directions[:, used]
    scaled = scaled / np.sqrt(rotation.variances[used]).astype("float32")
    gains = np.empty(len(table))
    for part in row_blocks(len(table)):
        rows = (table[part] - rotation.mean) @ scaled
        gains[part] = np.einsum("ij,ij->i", rows, rows) / rows.shape[1]
    return gains


def row_keys(
    table: Array, weights: Array, rotation: Rotation, bits: float
) -> Array:
    """Returns how much each row counts, times its energy.

    Args:
        table: Array of shape `(vocabulary, width)`.
        weights: Array of shape `(vocabulary,)`.
        rotation: The principal directions.
        bits: Number. Bits of a row: directions that get some have a say.
    """
    level = water_level(rotation.variances, np.ones(1), bits)
    used = rotation.variances > level
    return row_gains(table, rotation, used) * weights


def group_variances(
    table: Array,
    weights: Array,
    groups: Array,
    count: int,
    rotation: Rotation,
) -> tuple[Array, Array]:
    """Returns the variances of groups of rows, and their weights.

    The variances of a small group are drawn to those of the table.

    Args:
        table: Array of shape `(vocabulary, width)`.
        weights: Array of shape `(vocabulary,)`.
        groups: Integers of shape `(vocabulary,)`.
        count: Integer. Number of groups.
        rotation: The principal directions.

    Returns:
        Arrays of shape `(count, width)`, and `(count,)`.
    """
    width = table.shape[1]
    squares, totals = np.zeros((count, width)), np.zeros(count)
    for part in row_blocks(len(table)):
        rows = (table[part] - rotation.mean) @ rotation.directions
        rows = np.square(rows, dtype="float64") * weights[part, None]
        for group in range(count):
            own = groups[part] == group
            squares[group] += rows[own].sum(axis=0)
            totals[group] += weights[part][own].sum()
    own = squares / np.maximum(totals, 1e-300)[:, None]
    typical = rotation.variances
    energy = own.sum(axis=1, keepdims=True) / max(typical.sum(), 1e-300)
    sizes = np.bincount(groups, minlength=count)[:, None]
    return (sizes * own + _SURE * energy * typical) / (sizes + _SURE), totals


def water_level(
    variances: Array, counts: Array, bits: float, most: float = np.inf
) -> float:
    """Returns the level at which so many bits are used.

    Args:
        variances: Array of any shape, times weights.
        counts: Array that multiplies with it: how many rows have each.
        bits: Number of bits of all rows.
        most: Number. The most bits of a direction.
    """
    low, high = 0.0, float(variances.max(initial=0))
    for _ in range(60):
        level = (low + high) / 2
        used = (counts * rates(variances, level, most)).sum()
        low, high = (level, high) if used > bits else (low, level)
    return high


def rates(variances: Array, level: float, most: float = np.inf) -> Array:
    """Returns the bits that directions get at a level, not rounded."""
    ratio = variances / max(level, 1e-300)
    return np.clip(0.5 * np.log2(np.maximum(ratio, 1)), 0, most)


def most_bits(step_bits: int, state_bits: int) -> int:
    """Returns the most new bits of a step."""
    return state_bits // step_bits * step_bits


def bits_of_steps(
    variances: Array, num_bytes: int, step_bits: int, most: int
) -> Array:
    """Returns the new bits of each step of a row.

    Args:
        variances: Array of shape `(num_parts, part_width)`, in the order of the
            steps.
        num_bytes: Integer. Bytes of a row.
        step_bits: Integer. What the new bits of a step are multiples of.
        most: Integer. The most new bits of a step, a multiple too.

    Returns:
        Integers of shape `(num_parts,)` whose sum is `8 * num_bytes`.
    """
    total = 8 * num_bytes
    low, high = -120.0, 0.0  # logarithms of the level
    largest = max(float(variances.max(initial=0)), 1e-300)
    for _ in range(60):
        middle = (low + high) / 2
        wanted = rates(variances, largest * 2.0**middle).sum(axis=1)
        wanted = np.minimum(wanted, most)
        low, high = (low, middle) if wanted.sum() < total else (middle, high)
    wanted = np.minimum(rates(variances, largest * 2.0**low).sum(axis=1), most)
    # Directions without variance get the bits that nothing else can use.
    room = most - wanted
    wanted += room * (total - wanted.sum()) / max(room.sum(), 1e-300)
    ends = np.round(np.cumsum(wanted) / step_bits - 1e-9).astype("int64")
    ends[-1] = total // step_bits
    return np.diff(ends, prepend=0) * step_bits
