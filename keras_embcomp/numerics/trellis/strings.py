"""Rows as strings of bits, and the states of a trellis that they name.

Step `p` of a row reads some new bits of its string. The state is then the last
`state_bits` bits that were read, with zeros before the first one (a bit-shift
trellis, Marcellin and Fischer 1990, section III).
"""

import numpy as np

from keras_embcomp._types import Array

# With 7 bits of shift they lie in three bytes.
MOST_STATE_BITS = 15
# Irrational numbers that fractions are far from: the golden ratio and others.
_GOLDEN = 2_654_435_769  # odd; 2**32 over the golden ratio
_TURNS = (5**0.5 - 1) / 2, 2**0.5 - 1, 3**0.5 - 1, (13**0.5 - 3) / 2
NUM_TURNS = len(_TURNS)


def ends_of(bits: Array) -> Array:
    """Returns how many bits have been read after each step."""
    return np.cumsum(bits, axis=-1, dtype="int64")


def windows_of(bits: Array) -> tuple[Array, Array]:
    """Returns where the state of each step is in the bytes of a row.

    Args:
        bits: Integers of shape `(..., steps)`, the new bits of each step.

    Returns:
        The number of the last byte that the state reaches into, and how many
        bits of this byte come after the state. Both have the shape of `bits`.
    """
    ends = ends_of(bits)
    last = np.maximum(ends - 1, 0) // 8
    return last, 8 * (last + 1) - ends


def multipliers(steps: int, state_bits: int) -> Array:
    """Returns an odd number for each step, of which there are four.

    A state names the value at the number of the state, times that of the step,
    modulo the number of states. Values are in order at first, so the values
    that the new bits of a step choose from are spread evenly, whatever the
    older bits are (Weyl's sequence). A step that reads no bits keeps the state,
    but does not repeat the value.

    Args:
        steps: Integer.
        state_bits: Integer.
    """
    turns = [int(2**state_bits * turn) | 1 for turn in _TURNS]
    return np.resize(np.array(turns, "int64"), steps)


def packed_states(states: Array, bits: Array) -> Array:
    """Returns the bytes of rows, of shape `(rows, sum(bits) / 8)`.

    Args:
        states: Integers of shape `(rows, steps)`.
        bits: Integers of shape `(steps,)`, whose sum is a multiple of 8.
    """
    step = np.repeat(np.arange(len(bits)), bits)
    shift = (ends_of(bits)[step] - 1) - np.arange(len(step))
    return np.packbits(((states[:, step] >> shift) & 1).astype("uint8"), axis=1)


def random_strings(rows: int, size: int, seed: int) -> Array:
    """Returns random bytes of shape `(rows, size)`: rows that differ.

    If there are more rows than strings, all strings are used alike.

    Args:
        rows: Integer.
        size: Integer. Bytes of a row.
        seed: Integer.
    """
    generator = np.random.default_rng(seed)
    found = generator.integers(0, 256, (rows, size), "uint8")
    own = min(size, 4)  # bytes that number the rows
    order = generator.permutation(rows) + generator.integers(2**30)
    numbers = order.astype("uint64") * np.uint64(_GOLDEN)
    for byte in range(own):
        high = numbers >> np.uint64(8 * byte)
        found[:, size - 1 - byte] = high & np.uint64(255)
    return found


def places_of_states(states: Array, state_bits: int) -> Array:
    """Returns where the values of states are, of the shape of the states.

    Args:
        states: Integers of shape `(..., steps)`.
        state_bits: Integer.
    """
    turns = multipliers(states.shape[-1], state_bits)
    return (states.astype("int64") * turns) & (2**state_bits - 1)


def unpacked_states(codes: Array, bits: Array, state_bits: int) -> Array:
    """Returns the states of rows, of shape `(rows, steps)`.

    Args:
        codes: Bytes of shape `(rows, sum(bits) / 8)`.
        bits: Integers of shape `(steps,)`.
        state_bits: Integer.
    """
    if not codes.shape[1]:
        return np.zeros((len(codes), len(bits)), "int64")
    last, after = windows_of(bits)
    padded = np.pad(codes, ((0, 0), (2, 0))).astype("int64")
    words = (padded[:, :-2] << 16) | (padded[:, 1:-1] << 8) | padded[:, 2:]
    return (words[:, last] >> after) & (2**state_bits - 1)
