"""Sizes of trellis codes for a budget of bytes, and what they lose."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_embcomp._types import Array
from keras_embcomp.numerics.trellis.allocation import (
    Rotation,
    above_zero,
    group_variances,
    most_bits,
    rates,
    rotation_of,
    row_keys,
    water_level,
)
from keras_embcomp.numerics.trellis.codes import BLOCK, MOST_GROUPS
from keras_embcomp.numerics.trellis.fitting import (
    Structure,
    groups_by,
    groups_in_order,
)

_BINS, _GROUPS = 256, 8
_FACTOR_BYTES = {"float32": (4, 4), "int8": (2, 1)}  # of values, the projection
_ROUNDED = {"float32": 0, "int8": 5e-5}  # of the squares is lost by rounding
_LEAST_RATE = 0.1  # bits of a direction that is worth its row of the projection
_PER_BIT = 2 * np.log(2) ** 2  # loss of a direction with a bit too few, squared
_ROUNDS = 3  # as fewer directions leave more bytes for rows
# Squared error over that of a perfect code, by the bits of a direction. Of a
# step's bits and a state's bits: `benchmarks/trellis_codes.py` prints it.
_RATES = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8)
_EXCESS = {
    (1, 6): (1, 1.06, 1.1, 1.13, 1.18, 1.26, 1.32, 1.52, 1.76, 4.4, 40),
    (1, 8): (1, 1.05, 1.06, 1.1, 1.1, 1.16, 1.2, 1.27, 1.41, 2.0, 2.87),
    (1, 10): (1, 1.04, 1.04, 1.06, 1.07, 1.11, 1.12, 1.17, 1.24, 1.36, 1.95),
    (1, 12): (1, 1.04, 1.05, 1.06, 1.06, 1.08, 1.07, 1.12, 1.14, 1.27, 1.76),
}


class _Rows(NamedTuple):
    """What sizes depend on.

    Attributes:
        keys: How much rows count times how long they are, in bins: the mean of
            each bin, falling.
        counts: Rows of each bin.
        variances: Variances along the principal directions, falling.
        shape: Rows and width of the table.
        max_bytes: The budget.
    """

    keys: Array
    counts: Array
    variances: Array
    shape: tuple[int, int]
    max_bytes: float


def trellis_bytes(structure: Structure, shape: tuple[int, int]) -> int:
    """Returns the bytes of a layer without a bias.

    Args:
        structure: Its sizes.
        shape: Rows and width of the table.
    """
    vocabulary, width = shape
    s = structure
    of_value, of_entry = _FACTOR_BYTES[s.factors_dtype]
    held = int(np.dot(s.group_sizes, s.group_bytes))
    held += of_value * 2**s.state_bits * s.part_width
    held += of_entry * s.directions * width + 4 * width
    held += s.num_groups * (s.num_parts + 4 * s.directions)
    if s.num_groups > 1:
        held += (BLOCK // 2 + 4) * -(-vocabulary // BLOCK)
    return held


def trellis_sizes(
    table: Array,
    max_bytes: float,
    weights: Array,
    state_bits: int = 12,
    step_bits: int = 1,
    part_width: int = 1,
) -> dict[str, Any]:
    """Returns the sizes of trellis codes that fit a budget of bytes.

    Rows are put into groups by their weights times their energies. The bytes of
    a row follow from reverse water-filling over all groups and directions. Of
    several numbers of groups and of states, and of factors in floats and in 8
    bits, those with the least expected error win.

    Args:
        table: Array of shape `(vocabulary, width)`.
        max_bytes: Number. The budget for all weights of a layer.
        weights: Array of shape `(vocabulary,)`, of mean 1.
        state_bits: Integer. The most bits of a state.
        step_bits: 1, 4 or 8.
        part_width: Integer. Directions of a step.

    Returns:
        The structural arguments of `TrellisCodedEmbedding`.

    Raises:
        ValueError: if even one byte a row exceeds the budget.
    """
    vocabulary, width = table.shape
    weights = above_zero(weights)
    rotation = rotation_of(table, weights)
    bits = min(8 * max_bytes / vocabulary, 8 * width)
    keys = row_keys(table, weights, rotation, bits)
    rows = _Rows(*_binned(keys), rotation.variances, table.shape, max_bytes)
    base = Structure((), (), 1, part_width, step_bits, state_bits)
    found = [
        cut
        for sized in _of_several_groups(rows, base)
        for cut in _by_energy(*sized, rows, keys, weights)
    ]
    if not found:
        least = smallest_structure(vocabulary, width, step_bits, part_width)
        raise ValueError(
            "`max_bytes` must be at least "
            f"{trellis_bytes(least, table.shape)}, which is one byte a row. "
            f"Received: max_bytes={max_bytes}"
        )
    _, best = min(found, key=lambda pair: pair[0])
    if best.num_groups > 1:
        groups = groups_in_order(keys, weights, best)
        best = _by_group(rows, best, table, weights, groups, rotation)
    return arguments_of(best)


def smallest_structure(
    vocabulary: int, width: int, step_bits: int = 1, part_width: int = 1
) -> Structure:
    """Returns the structure of the smallest layer."""
    bits = max(step_bits, 6 if width > 1 else 8)
    most = most_bits(step_bits, bits)
    return Structure(
        (vocabulary,),
        (1,),
        -(-8 // most),
        part_width,
        step_bits,
        bits,
        "int8",
    )


def arguments_of(structure: Structure) -> dict[str, Any]:
    """Returns a structure as arguments of a layer."""
    found = structure._asdict()
    if structure.num_groups == 1:
        found["group_sizes"] = None
    return found


def expected_loss(structure: Structure, table: Array, weights: Array) -> float:
    """Returns the expected weighted squared error of trellis codes."""
    weights = above_zero(weights)
    rotation = rotation_of(table, weights)
    groups = groups_by(table, weights, structure, rotation)
    count = structure.num_groups
    variances, totals = group_variances(table, weights, groups, count, rotation)
    directions = structure.directions
    lost = totals @ variances[:, directions:].sum(axis=1)
    coded = variances[:, :directions]
    lost += _ROUNDED[structure.factors_dtype] * (totals @ coded.sum(axis=1))
    for own, total, size in zip(
        coded, totals, structure.group_bytes, strict=True
    ):
        lost += total * _lost(own, 8 * size, structure)
    return float(lost)


def _lost(variances: Array, bits: float, structure: Structure) -> float:
    """Returns the expected squared error of a row's directions."""
    of_step = most_bits(structure.step_bits, structure.state_bits)
    most = of_step / structure.part_width
    level = water_level(variances, np.ones(1), bits, most)
    given = rates(variances, level, most)
    wanted = structure.step_bits, structure.state_bits
    nearest = min(
        _EXCESS,
        key=lambda key: (abs(key[0] - wanted[0]), abs(key[1] - wanted[1])),
    )
    excess = np.interp(given, _RATES, _EXCESS[nearest])
    return float((variances * 4.0**-given * excess).sum())


def _of_several_groups(
    rows: _Rows, base: Structure
) -> list[tuple[float, Structure]]:
    """Returns the best structures of several numbers of groups, with losses.

    States and number formats are chosen for some groups, then kept.
    """
    least = max(base.step_bits, 6)
    for start in (_GROUPS, 1):
        tried = [
            _sized(rows, _of_groups(base, start, bits, dtype))
            for bits in {max(base.state_bits - n, least) for n in (0, 2, 4, 6)}
            for dtype in _FACTOR_BYTES
        ]
        fitting = [sized for sized in tried if sized is not None]
        if fitting:
            break
    else:
        return []
    _, best = min(fitting, key=lambda pair: pair[0])
    bits, dtype = best.state_bits, best.factors_dtype
    tried = [
        _sized(rows, _of_groups(base, groups, bits, dtype))
        for groups in (1, 2, 4, 8, MOST_GROUPS)
    ]
    return [sized for sized in tried if sized is not None]


def _of_groups(
    base: Structure, groups: int, state_bits: int, dtype: str
) -> Structure:
    """Returns a structure whose groups have no bytes yet."""
    empty = (0,) * groups
    return base._replace(
        group_sizes=empty,
        group_bytes=empty,
        state_bits=state_bits,
        factors_dtype=dtype,
    )


def _binned(keys: Array) -> tuple[Array, Array]:
    """Returns the mean key and the rows of bins, by logarithms of the keys."""
    logs = np.log(np.maximum(keys, 1e-30))
    low = max(logs.min(), logs.max() - 40)
    edges = np.linspace(low, logs.max(), _BINS + 1)
    which = np.clip(np.searchsorted(edges, logs, "right") - 1, 0, _BINS - 1)
    counts = np.bincount(which, minlength=_BINS)
    sums = np.bincount(which, keys, _BINS)
    there = counts > 0
    return (sums[there] / counts[there])[::-1], counts[there][::-1]


def _sized(rows: _Rows, base: Structure) -> tuple[float, Structure] | None:
    """Returns an expected loss and a structure that fits, or `None`."""
    if min(len(rows.keys), rows.shape[0] // 4) < base.num_groups > 1:
        return None
    used = max(int(np.count_nonzero(rows.variances > 0)), 1)
    for _ in range(_ROUNDS):
        base = base._replace(num_parts=_parts(used, rows.shape[1], base))
        left = rows.max_bytes - trellis_bytes(base, rows.shape)
        if left < 1:
            return None
        variances = rows.variances[: base.directions]
        energies = rows.keys[:, None] * variances
        level = water_level(energies, rows.counts[:, None], 8 * left)
        given = rates(energies, level).sum(axis=1)
        which = _nearest_centres(given, rows.counts, base.num_groups)
        sizes = np.bincount(which, rows.counts, base.num_groups)
        if not sizes.all():
            return None
        keys = np.bincount(which, rows.counts * rows.keys) / sizes
        given = rates(keys[:, None] * variances, level)
        needed = max(int((given.max(axis=0) > _LEAST_RATE).sum()), 1)
        if needed >= used:
            break
        used = needed
    found = base._replace(
        group_sizes=tuple(map(int, sizes)),
        group_bytes=_whole_bytes(given.sum(axis=1), sizes, left, base),
    )
    if not any(found.group_bytes):
        return None
    squares = rows.variances.sum()
    lost = _ROUNDED[base.factors_dtype] * squares * (sizes @ keys)
    rest = rows.variances[base.directions :].sum()
    for size, key, num_bytes in zip(
        sizes, keys, found.group_bytes, strict=True
    ):
        lost += size * key * (_lost(variances, 8 * num_bytes, base) + rest)
    return lost, found


def _by_energy(
    lost: float, found: Structure, rows: _Rows, keys: Array, weights: Array
) -> Iterator[tuple[float, Structure]]:
    """Yields structures whose groups are cut in parts by energy, and losses.

    A code that a row shares with others is wrong for it by the bits that it has
    too few or too many, and by its scale. Each costs a direction as much for a
    bit, squared, if they are few (Bennett's integral).
    """
    even = weights.max() == weights.min()
    for parts in (1,) if even else (1, 2, 4):
        if found.num_groups * parts > MOST_GROUPS:
            return
        sizes = tuple(
            part
            for size in found.group_sizes
            for part in _equal_parts(size, parts)
        )
        if not all(sizes):
            return
        cut = found._replace(
            group_sizes=sizes,
            group_bytes=tuple(np.repeat(found.group_bytes, parts).tolist()),
        )
        extra = trellis_bytes(cut, rows.shape) - trellis_bytes(
            found, rows.shape
        )
        if extra > 0.01 * rows.max_bytes:
            return
        groups = groups_in_order(keys, weights, cut)
        wrong = sum(
            _scatter(0.5 * np.log2(np.maximum(x, 1e-30)), groups, cut)
            for x in (keys, keys / weights)
        )
        yield lost * (1 + _PER_BIT * wrong), cut


def _equal_parts(size: int, parts: int) -> list[int]:
    ends = np.arange(parts + 1) * size // parts
    return np.diff(ends).tolist()


def _scatter(numbers: Array, groups: Array, structure: Structure) -> float:
    """Returns the mean variance of numbers within groups that have bytes."""
    count = structure.num_groups
    sizes = np.array(structure.group_sizes)
    means = np.bincount(groups, numbers, count) / sizes
    squares = np.bincount(groups, (numbers - means[groups]) ** 2, count)
    coded = np.array(structure.group_bytes) > 0
    return float(squares[coded].sum() / sizes[coded].sum())


def _parts(directions: int, width: int, base: Structure) -> int:
    """Returns how many steps have so many directions."""
    parts = -(-directions // base.part_width)
    if base.part_width > 1:  # no step may be empty
        parts = min(parts, (width - 1) // (base.part_width - 1))
    return max(parts, 1)


def _nearest_centres(given: Array, counts: Array, groups: int) -> Array:
    """Returns a group for each bin, most bits first: k-means of one number."""
    if groups == 1:
        return np.zeros(len(given), "int64")
    order = np.argsort(given)
    shares = np.cumsum(counts[order]) / counts.sum()
    middles = (np.arange(groups) + 0.5) / groups
    by_count = np.interp(middles, shares, given[order])
    by_range = np.linspace(given.min(), given.max(), groups)
    centres = (by_count + by_range) / 2
    for _ in range(50):
        which = np.searchsorted((centres[1:] + centres[:-1]) / 2, given)
        sizes = np.bincount(which, counts, groups)
        sums = np.bincount(which, counts * given, groups)
        found = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres)
        centres = np.sort(found)
    return groups - 1 - which


def _whole_bytes(
    given: Array, sizes: Array, left: float, base: Structure
) -> tuple[int, ...]:
    """Returns the bytes of a row of each group, which together fit.

    Args:
        given: Bits of a row of each group, not rounded.
        sizes: Rows of each group.
        left: The bytes of all rows.
        base: The structure.
    """
    most = base.num_parts * most_bits(base.step_bits, base.state_bits) // 8

    def rounded(share: float) -> Array:
        found = np.minimum(np.round(share * given / 8), most)
        return found.astype("int64")

    low, high = 0.0, 4.0
    for _ in range(50):
        share = (low + high) / 2
        fits = sizes @ rounded(share) <= left
        low, high = (share, high) if fits else (low, share)
    return tuple(sorted(map(int, rounded(low)), reverse=True))


def _by_group(
    rows: _Rows,
    found: Structure,
    table: Array,
    weights: Array,
    groups: Array,
    rotation: Rotation,
) -> Structure:
    """Returns a structure whose bytes follow from the groups' own variances."""
    count = found.num_groups
    variances, totals = group_variances(table, weights, groups, count, rotation)
    sizes = np.array(found.group_sizes)
    energies = variances[:, : found.directions] * (totals / sizes)[:, None]
    empty = found._replace(group_bytes=(0,) * count)
    left = rows.max_bytes - trellis_bytes(empty, rows.shape)
    level = water_level(energies, sizes[:, None], 8 * left)
    given = rates(energies, level).sum(axis=1)
    # Groups of one block, which differ in their energies, have as many bytes.
    changes = np.diff(found.group_bytes, prepend=-1) != 0
    block = np.cumsum(changes) - 1
    shares = np.bincount(block, sizes * given) / np.bincount(block, sizes)
    group_bytes = _whole_bytes(shares[block], sizes, left, found)
    if not any(group_bytes):
        return found
    return found._replace(group_bytes=group_bytes)
