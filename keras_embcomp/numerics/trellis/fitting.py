"""Fits trellis codes to a table.

The table is turned to its principal directions. Rows are put into groups by how
much they count times how long they are. Each direction of each group gets bits
by reverse water-filling, and a Viterbi search finds the string of a row
(Marcellin and Fischer 1990; Tseng et al. 2024, section 3).
"""

from collections.abc import Callable, Iterable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from keras_embcomp._types import Array
from keras_embcomp.numerics.blocks import unit_of
from keras_embcomp.numerics.covariance import Turning
from keras_embcomp.numerics.product_quantized.fitting import (
    deal_directions,
    regression,
)
from keras_embcomp.numerics.trellis.allocation import (
    Rotation,
    above_zero,
    bits_of_steps,
    group_variances,
    most_bits,
    rotation_of,
    row_keys,
    water_level,
)
from keras_embcomp.numerics.trellis.codes import (
    TrellisCodes,
    first_bytes,
    rows_of_group,
    scaled_parts,
)
from keras_embcomp.numerics.trellis.search import nearest_states
from keras_embcomp.numerics.trellis.strings import (
    packed_states,
    places_of_states,
)

_SAMPLE, _ROUNDS, _MOST_ROUNDS = 4_096, 2, 8
_BLOCK = 2_048  # rows that are in memory as states
# Values are spread more than the numbers that they stand for, so that the few
# far from 0 do not cost more than the many near it (Panter and Dite 1951).
_BITS = 0, 3, 4, 5, 6, 7, 8, 10
_SPREADS = 1, 1.08, 1.15, 1.2, 1.25, 1.4, 1.5, 1.73
_HELD = 0.6, 4  # how much first values and scales count beside a sample

# Wraps an iterable to show progress.
Progress = Callable[[Iterable[int]], Iterable[int]]


class Structure(NamedTuple):
    """The sizes of trellis codes.

    Attributes:
        group_sizes: Rows of each group.
        group_bytes: Bytes of a row of each group.
        num_parts: Steps of a row.
        part_width: Directions of a step.
        step_bits: What the new bits of a step are multiples of.
        state_bits: Bits of a state.
        factors_dtype: `"float32"`, or `"int8"` for a projection of integers
            from -127 to 127 and values from -32,767 to 32,767.
    """

    group_sizes: tuple[int, ...]
    group_bytes: tuple[int, ...]
    num_parts: int
    part_width: int = 1
    step_bits: int = 1
    state_bits: int = 12
    factors_dtype: str = "float32"

    @property
    def directions(self) -> int:
        """Numbers of a row before it is projected."""
        return self.num_parts * self.part_width

    @property
    def num_groups(self) -> int:
        """Number of groups."""
        return len(self.group_sizes)


def trellis_codes(
    table: Array,
    structure: Structure,
    weights: Array,
    seed: int = 0,
    progress: Progress | None = None,
    turning: Turning | None = None,
    rounds: int | None = None,
    sample: int = _SAMPLE,
) -> TrellisCodes:
    """Fits trellis codes to a table.

    Args:
        table: Array of shape `(vocabulary, width)`.
        structure: The sizes.
        weights: Array of shape `(vocabulary,)`, of mean 1.
        seed: Integer. Seed of the rows that values and scales are fitted to.
        progress: A function that wraps an iterable to show progress.
        turning: The turn of the table's columns, which the codes undo.
        rounds: Integer. How often values and scales are fitted. `None` is
            twice, and up to eight times for a table that is small.
        sample: Integer. How many rows they are fitted to.

    Returns:
        `TrellisCodes` whose scales, projection and mean have the least weighted
        sum of squared errors for the codes and values.
    """
    if rounds is None:
        rounds = min(max(_ROUNDS * sample // len(table), _ROUNDS), _MOST_ROUNDS)
    in_bytes = structure.factors_dtype == "int8"
    unit = unit_of(table)
    if unit != 1:
        table = table / unit
    fit = _Fit(table, structure, above_zero(weights), seed)
    for _ in range(rounds):
        fit.improve(sample)
    if in_bytes:
        fit.round_values()
    found = fit.regressed(fit.encode(progress))
    if turning is not None:
        found = found.returned(turning)
    step = np.ones(structure.directions)
    if in_bytes:
        largest = np.abs(found.projection).max(axis=1)
        step = np.where(largest > 0, largest, 1) / 127
    projection = found.projection / step[:, None]
    return found._replace(
        scales=(found.scales * step * unit).astype("float32"),
        projection=np.round(projection) if in_bytes else projection,
        mean=found.mean * np.float32(unit),
    )


def encoded_rows(
    found: TrellisCodes, rows: Array, groups: Array
) -> list[Array]:
    """Returns the bytes of other rows, in the groups that are given.

    Args:
        found: Codes of a table.
        rows: Array of shape `(count, width)`.
        groups: Integers of shape `(count,)`.
    """
    rotation = np.linalg.pinv(found.projection)
    narrow = ((rows - found.mean) @ rotation).astype("float32")
    codes = []
    for row, group in zip(narrow, groups, strict=True):
        bits = found.bits[group]
        scales = found.scales[group].reshape(len(bits), -1)
        values = values_of_steps(found.values, scales)
        states = nearest_states(row.reshape(1, len(bits), -1), bits, values)
        codes.append(packed_states(states, bits)[0])
    return codes


def groups_by(
    table: Array, weights: Array, structure: Structure, rotation: Rotation
) -> Array:
    """Returns the group of each row: see `groups_in_order`."""
    if structure.num_groups == 1:
        return np.zeros(len(table), "uint8")
    held = np.dot(structure.group_sizes, structure.group_bytes)
    keys = row_keys(table, weights, rotation, 8 * held / len(table))
    return groups_in_order(keys, weights, structure)


def groups_in_order(keys: Array, weights: Array, structure: Structure) -> Array:
    """Returns the group of each row: rows that would lose most come first.

    Groups that follow each other with as many bytes have rows that would lose
    as much; among these, rows of the largest energy come first.

    Args:
        keys: Weights times energies, of shape `(vocabulary,)`.
        weights: Array of shape `(vocabulary,)`.
        structure: The sizes.
    """
    sizes, group_bytes = structure.group_sizes, structure.group_bytes
    order = np.argsort(-keys, kind="stable")
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    ends = np.cumsum(sizes)
    start = 0
    for end, own, after in zip(
        ends, group_bytes, (*group_bytes[1:], None), strict=True
    ):
        if own == after:
            continue
        block = order[start:end]
        by_energy = np.argsort(-keys[block] / weights[block], kind="stable")
        order[start:end] = block[by_energy]
        start = end
    groups = np.empty(len(keys), "uint8")
    groups[order] = numbers
    return groups


def places_of_directions(variances: Array, structure: Structure) -> Array:
    """Returns which direction each place of the steps has.

    Steps of much variance come last: the first have few bits to look back on.
    An empty place has the number of directions.
    """
    parts = structure.num_parts
    if structure.part_width == 1:
        return np.arange(parts)[::-1]
    order = deal_directions(variances, parts, structure.part_width)
    dealt = np.maximum(np.append(variances, 0)[order], 1e-30)
    carried = np.log(dealt).reshape(parts, -1).sum(axis=1)
    rising = np.argsort(carried, kind="stable")
    return order.reshape(parts, -1)[rising].ravel()


def first_values(states: int, width: int) -> Array:
    """Returns Gaussian numbers for each state, of shape `(states, width)`.

    The first column is in order; others are so that the rows are spread evenly
    (Korobov's lattice, of the root of `x ** (width + 1) = x + 1`).
    """
    inverse = NormalDist().inv_cdf
    quantiles = np.array([inverse((n + 0.5) / states) for n in range(states)])
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (width + 1))
    numbers = np.arange(states)
    columns = [
        quantiles[numbers * (int(states * root**-power) | 1) % states]
        for power in range(width)
    ]
    return np.stack(columns, axis=1).astype("float32")


def values_of_steps(values: Array, scales: Array) -> Array:
    """Returns what each state stands for at each step.

    Args:
        values: Shape `(states, part_width)`.
        scales: Shape `(steps, part_width)`.

    Returns:
        float32 array of shape `(steps, states, part_width)`.
    """
    states, steps = len(values), len(scales)
    numbers = np.broadcast_to(np.arange(states)[:, None], (states, steps))
    places = places_of_states(numbers, states.bit_length() - 1)
    return (values[places.T] * scales[:, None]).astype("float32")


class _Fit:
    """Codes while they are fitted.

    Args:
        table: Array of shape `(vocabulary, width)`.
        structure: The sizes.
        weights: Array of shape `(vocabulary,)`, above 0.
        seed: Integer.
    """

    def __init__(
        self, table: Array, structure: Structure, weights: Array, seed: int
    ) -> None:
        self.table, self.structure, self.weights = table, structure, weights
        self.generator = np.random.default_rng(seed)
        # Of a few heavy rows, variances would fit these alone.
        evened = np.sqrt(weights)
        rotation = rotation_of(table, evened)
        self.mean = rotation.mean
        self.groups = groups_by(table, weights, structure, rotation)
        places = places_of_directions(rotation.variances, structure)
        directions = np.pad(rotation.directions, ((0, 0), (0, 1)))
        self.directions = directions[:, places]
        variances, _ = group_variances(
            table, evened, self.groups, structure.num_groups, rotation
        )
        self.values = first_values(
            2**structure.state_bits, structure.part_width
        )
        self._allot(np.pad(variances, ((0, 0), (0, 1)))[:, places])

    def _allot(self, variances: Array) -> None:
        """Sets the bits of steps, and first scales."""
        sizes = self.structure
        shape = (sizes.num_parts, sizes.part_width)
        self.bits = np.zeros((sizes.num_groups, sizes.num_parts), "int64")
        self.scales = np.zeros((sizes.num_groups, sizes.directions))
        most = most_bits(sizes.step_bits, sizes.state_bits)
        for group, num_bytes in enumerate(sizes.group_bytes):
            own = variances[group]
            self.bits[group] = bits_of_steps(
                own.reshape(shape), num_bytes, sizes.step_bits, most
            )
            level = water_level(own, np.ones(1), 8 * num_bytes)
            kept = np.maximum(own - level, 0.02 * own)
            spread = np.interp(
                self.bits[group] / sizes.part_width, _BITS, _SPREADS
            )
            self.scales[group] = np.sqrt(kept) * np.repeat(spread, shape[1])

    def _turned(self, numbers: Array) -> Array:
        """Returns rows in principal directions, `(rows, parts, part_width)`."""
        turned = (self.table[numbers] - self.mean) @ self.directions
        return turned.reshape(len(numbers), *self._shape)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.structure.num_parts, self.structure.part_width

    def _states(self, group: int, rows: Array) -> Array:
        """Returns the nearest states of rows of a group."""
        scales = self.scales[group].reshape(self._shape)
        values = values_of_steps(self.values, scales)
        return nearest_states(rows, self.bits[group], values)

    def improve(self, sample: int) -> None:
        """Fits values, then scales to a sample of the rows of each group."""
        sizes = self.structure
        quota = -(-sample // sizes.num_groups)
        products, squares = np.zeros((2, *self.values.shape))
        drawn = []
        for group, size in enumerate(sizes.group_sizes):
            if not (size and sizes.group_bytes[group]):
                continue
            numbers = np.flatnonzero(self.groups == group)
            if size > quota:
                chosen = self.generator.choice(size, quota, replace=False)
                numbers = numbers[np.sort(chosen)]
            own = self.weights[numbers] * (size / len(numbers))
            rows = self._turned(numbers)
            states = self._states(group, rows)
            places = places_of_states(states, sizes.state_bits)
            scales = self.scales[group].reshape(self._shape)
            self._add(products, places, own[:, None, None] * rows * scales)
            ones = np.broadcast_to(scales**2, rows.shape)
            self._add(squares, places, own[:, None, None] * ones)
            drawn.append((group, own, places, rows))
        held = _HELD[0] * squares.mean(axis=0)
        total = np.maximum(squares + held, 1e-300)
        values = (products + held * self.values) / total
        self.values = values.astype("float32")
        for group, own, places, rows in drawn:
            self._fit_scales(group, own, self.values[places], rows)

    def _add(self, sums: Array, places: Array, numbers: Array) -> None:
        """Adds numbers to the sums of their places."""
        for column in range(sums.shape[1]):
            sums[:, column] += np.bincount(
                places.ravel(), numbers[..., column].ravel(), len(sums)
            )

    def _fit_scales(
        self, group: int, own: Array, values: Array, rows: Array
    ) -> None:
        """Sets the scales of least error, held to what they are."""
        held = _HELD[1] * own.mean()
        flat = (len(rows), -1)
        products = own @ (values * rows).reshape(flat).astype("float64")
        squares = own @ np.square(values, dtype="float64").reshape(flat)
        self.scales[group] = (products + held * self.scales[group]) / (
            squares + held
        )

    def round_values(self) -> None:
        """Makes values integers of 16 bits."""
        largest = np.abs(self.values).max(axis=0)
        step = np.where(largest > 0, largest, 1) / (2**15 - 1)
        self.values = np.round(self.values / step).astype("float32")
        self.scales = self.scales * np.tile(step, self.structure.num_parts)

    def encode(self, progress: Progress | None) -> Array:
        """Returns the bytes of all rows, and fits the scales to them."""
        sizes = self.structure
        counts = np.array(sizes.group_bytes)
        starts = first_bytes(self.groups, counts)
        codes = np.zeros(starts[-1], "uint8")
        shown = iter(_blocks_shown(self.groups, sizes.num_groups, progress))
        for group in range(sizes.num_groups):
            products, squares = np.zeros((2, sizes.directions))
            for numbers in rows_of_group(self.groups, group, _BLOCK):
                next(shown, None)
                rows = self._turned(numbers)
                states = self._states(group, rows)
                bytes_of_rows = starts[numbers][:, None] + np.arange(
                    counts[group]
                )
                codes[bytes_of_rows] = packed_states(states, self.bits[group])
                own, flat = self.weights[numbers], (len(numbers), -1)
                values = self.values[places_of_states(states, sizes.state_bits)]
                products += own @ (values * rows).reshape(flat)
                squares += own @ np.square(values).reshape(flat)
            self.scales[group] = products / np.maximum(squares, 1e-300)
        for _ in shown:  # so that a bar ends
            pass
        return codes

    def regressed(self, codes: Array) -> TrellisCodes:
        """Returns codes with the projection and mean of least error."""
        found = TrellisCodes(
            codes,
            self.groups,
            self.bits,
            self.values,
            self.scales,
            self.directions.T,
            self.mean,
        )
        projection, mean = regression(
            lambda: scaled_parts(found, _BLOCK), self.table, self.weights
        )
        return found._replace(projection=projection, mean=mean)


def _blocks_shown(
    groups: Array, count: int, progress: Progress | None
) -> Iterable[int]:
    """Returns a range over all blocks, with progress if it is to be shown."""
    sizes = np.bincount(groups, minlength=count)
    blocks = range(int((-(-sizes // _BLOCK)).sum()))
    return blocks if progress is None else progress(blocks)
