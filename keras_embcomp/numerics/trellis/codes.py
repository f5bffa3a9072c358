"""A table whose rows are strings of bits, in NumPy."""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np

from keras_embcomp._types import Array
from keras_embcomp.numerics.blocks import row_blocks
from keras_embcomp.numerics.covariance import Turning
from keras_embcomp.numerics.trellis.strings import (
    places_of_states,
    unpacked_states,
)

BLOCK = 32  # rows whose first byte is stored
MOST_GROUPS = 16  # so that two rows' groups take a byte


class TrellisCodes(NamedTuple):
    """A table in trellis codes, as NumPy arrays.

    Row `i` of group `g` is `concatenate(values[places[i, p]] for p) * scales[g]
    @ projection + mean`, with `places` as `places_of_states` of its states.

    Attributes:
        codes: Bytes of all rows, in the order of the rows.
        groups: Integers of shape `(vocabulary,)`, the group of each row.
        bits: Integers of shape `(num_groups, num_parts)`: the new bits of each
            step of a row.
        values: Shape `(states, part_width)`.
        scales: Shape `(num_groups, num_parts * part_width)`.
        projection: Shape `(num_parts * part_width, width)`.
        mean: Shape `(width,)`.
    """

    codes: Array
    groups: Array
    bits: Array
    values: Array
    scales: Array
    projection: Array
    mean: Array

    def returned(self, turning: Turning) -> Self:
        """Returns the codes of a table whose columns were turned."""
        return self._replace(
            projection=turning.returned(self.projection),
            mean=turning.returned(self.mean[None])[0],
        )


def group_bytes_of(bits: Array) -> Array:
    """Returns the bytes of a row of each group."""
    return bits.sum(axis=1, dtype="int64") // 8


def first_bytes(groups: Array, group_bytes: Array) -> Array:
    """Returns the number of the first byte of each row, and of all bytes."""
    return np.append(0, np.cumsum(group_bytes[groups], dtype="int64"))


def packed_groups(groups: Array) -> Array:
    """Returns two groups a byte, of whole blocks: the first in the low half."""
    missing = -len(groups) % BLOCK
    pairs = np.pad(groups, (0, missing)).astype("uint8").reshape(-1, 2)
    return pairs[:, 0] + 16 * pairs[:, 1]


def unpacked_groups(packed: Array, vocabulary: int) -> Array:
    """Returns the groups of `packed_groups`."""
    pairs = np.stack([packed % 16, packed // 16], axis=1)
    return pairs.reshape(-1)[:vocabulary]


def rows_of_group(groups: Array, group: int, size: int) -> Iterator[Array]:
    """Yields the numbers of a group's rows, in blocks."""
    rows = np.flatnonzero(groups == group)
    for part in row_blocks(len(rows), size):
        yield rows[part]


def scaled_parts(
    found: TrellisCodes, size: int
) -> Iterator[tuple[Array, Array]]:
    """Yields numbers of rows, and these rows before they are projected.

    Args:
        found: Codes of a table.
        size: Integer. Rows of a block.
    """
    counts = group_bytes_of(found.bits)
    starts = first_bytes(found.groups, counts)
    state_bits = len(found.values).bit_length() - 1
    for group, scales in enumerate(found.scales):
        for rows in rows_of_group(found.groups, group, size):
            own = starts[rows][:, None] + np.arange(counts[group])
            states = unpacked_states(
                found.codes[own], found.bits[group], state_bits
            )
            parts = found.values[places_of_states(states, state_bits)]
            parts = parts.reshape(len(rows), -1)
            yield rows, (parts * scales).astype("float32")


def decoded_rows(found: TrellisCodes, size: int = 4_096) -> Array:
    """Returns the table as a float32 array `(vocabulary, width)`."""
    table = np.empty((len(found.groups), len(found.mean)), "float32")
    for rows, parts in scaled_parts(found, size):
        table[rows] = parts @ found.projection + found.mean
    return table


def chosen_rows(found: TrellisCodes, rows: Array) -> TrellisCodes:
    """Returns the codes of some rows, in a new order."""
    counts = group_bytes_of(found.bits)
    starts = first_bytes(found.groups, counts)
    groups = found.groups[rows]
    ends = first_bytes(groups, counts)
    offsets = np.repeat(starts[:-1][rows] - ends[:-1], counts[groups])
    codes = found.codes[np.arange(ends[-1]) + offsets]
    return found._replace(codes=codes, groups=groups)
