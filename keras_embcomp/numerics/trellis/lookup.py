"""Rows and logits of trellis codes, as tensors."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_embcomp._types import Factor, Tensor
from keras_embcomp.numerics.execution import Execution
from keras_embcomp.numerics.lookup import inside_and_outside
from keras_embcomp.numerics.streaming import RowScores, products
from keras_embcomp.numerics.trellis.codes import BLOCK
from keras_embcomp.numerics.trellis.strings import (
    NUM_TURNS,
    multipliers,
)
from keras_embcomp.numerics.wide_sums import plus_broadcast

_MOST_BLOCKS = 16
# Numbers of decoded rows in memory at once. A file repeats the operations of a
# block, so it has fewer.
_BLOCK_NUMBERS, _FILE_NUMBERS = 2**20, 2**22


class Strings(NamedTuple):
    """Where the string of a row is, and how it is read.

    Attributes:
        codes: uint8 tensor of all strings.
        bits: uint8 tensor of shape `(num_groups, num_parts)`.
        groups: uint8 tensor, two groups a byte, or `None` if there is one.
        starts: int32 tensor, the first byte of each block of rows, or `None`.
        group_bytes: Bytes of a row of each group.
        state_bits: Bits of a state.
        vocabulary: Rows of the table.
    """

    codes: Tensor
    bits: Tensor
    groups: Tensor | None
    starts: Tensor | None
    group_bytes: tuple[int, ...]
    state_bits: int
    vocabulary: int


class Reading(NamedTuple):
    """What states and groups stand for.

    Attributes:
        values: Factor of shape `(states, part_width)`.
        scales: float32 tensor of shape `(num_groups, directions)`.
        projection: Tensor of shape `(directions, width)`.
        mean: Tensor of shape `(width,)`.
        unit: What integers are to be multiplied by.
    """

    values: Factor
    scales: Tensor
    projection: Tensor
    mean: Tensor
    unit: float = 1.0


def coded_rows(
    execution: Execution, ids: Tensor, strings: Strings, reading: Reading
) -> Tensor:
    """Returns the rows of ids, of shape `(*ids.shape, width)`.

    Args:
        execution: How the call runs.
        ids: Integer tensor.
        strings: The strings of all rows.
        reading: What they stand for.
    """
    inside, outside = inside_and_outside(execution, ids, strings.vocabulary)
    flat = ops.reshape(ops.cast(inside, "int32"), (-1,))
    beyond = ops.reshape(ops.cast(outside, "int32"), (-1, 1))
    dtype = reading.projection.dtype
    parts = _parts(execution, flat, strings, reading, beyond)
    rows = ops.matmul(ops.cast(parts, dtype), reading.projection)
    rows = plus_broadcast(rows, reading.mean)
    return execution.with_lead(rows, ids, 0, reading.projection.shape[1])


def coded_logits(
    execution: Execution, hidden: Tensor, strings: Strings, reading: Reading
) -> Tensor:
    """Returns `hidden @ table.T`, of shape `(..., vocabulary)`.

    Blocks of words are decoded and multiplied, and decoded again for the
    gradients.

    Args:
        execution: How the call runs.
        hidden: Tensor of shape `(..., width)`.
        strings, reading: As for `coded_rows`.
    """
    width = reading.projection.shape[1]
    vocabulary = strings.vocabulary
    numbers = _FILE_NUMBERS if execution.exporting else _BLOCK_NUMBERS
    directions = reading.projection.shape[0]
    blocks = min(-(-vocabulary * directions // numbers), _MOST_BLOCKS)
    size = -(-vocabulary // blocks)
    # What is recomputed gets tensors: JAX takes no variables, and TensorFlow
    # would count the gradient of a variable twice.
    values, scales = (
        ops.reshape(x, x.shape) for x in (reading.values, reading.scales)
    )

    def logits_of(tokens: Tensor) -> Tensor:
        turned = ops.matmul(reading.projection, ops.transpose(tokens))

        def block(
            turned: Tensor, values: Factor, scales: Tensor, ids: Tensor
        ) -> Tensor:
            own = reading._replace(values=values, scales=scales)
            parts = _parts(execution, ids, strings, own)
            return ops.matmul(ops.cast(parts, turned.dtype), turned)

        if not (isinstance(turned, keras.KerasTensor) or execution.exporting):
            block = keras.remat(block)
        logits = [
            block(
                turned,
                values,
                scales,
                execution.range_in_file(
                    tokens, start, min(start + size, vocabulary)
                ),
            )
            for start in range(0, vocabulary, size)
        ]
        offset = ops.matmul(
            ops.expand_dims(reading.mean, 0), ops.transpose(tokens)
        )
        joined = plus_broadcast(ops.concatenate(logits), offset)
        return ops.transpose(joined)

    tokens = ops.reshape(hidden, (-1, width))
    logits = execution.of_tokens(logits_of, tokens)
    return execution.with_lead(logits, hidden, 1, vocabulary)


def coded_scores(
    execution: Execution, tokens: Tensor, strings: Strings, reading: Reading
) -> RowScores:
    """Returns the `RowScores` of hidden states of shape `(tokens, width)`.

    Args:
        execution: How the call runs.
        tokens: Tensor of shape `(tokens, width)`.
        strings, reading: As for `coded_rows`.
    """
    turned = ops.matmul(tokens, ops.transpose(reading.projection))
    offset = ops.matmul(tokens, ops.expand_dims(reading.mean, 1))
    shared: tuple[Tensor, ...] = (turned, offset, reading.scales)
    if not _are_integers(reading.values):  # these have no gradient
        shared = (*shared, reading.values)

    def scores(turned: Tensor, offset: Tensor, *others: Tensor) -> Tensor:
        scales, *values, ids = others
        own = reading._replace(
            values=values[0] if values else reading.values, scales=scales
        )
        parts = _parts(execution, ids, strings, own)
        logits = products(turned, ops.cast(parts, turned.dtype))
        return plus_broadcast(logits, offset)

    ids = ops.arange(strings.vocabulary, dtype="int32")
    return RowScores(scores, shared, (), (ids,), strings.vocabulary)


def _parts(
    execution: Execution,
    ids: Tensor,
    strings: Strings,
    reading: Reading,
    beyond: Tensor | None = None,
) -> Tensor:
    """Returns rows before they are projected, `(count, directions)`.

    Args:
        execution: How the call runs.
        ids: int32 tensor of shape `(count,)`, in range.
        strings, reading: As for `coded_rows`.
        beyond: int32 tensor of shape `(count, 1)`: 1 for an id out of range.
    """
    starts, groups = _starts(execution, ids, strings)
    places = _places(execution, ids, starts, groups, strings)
    turned = _turned(execution, ids, 2**strings.state_bits)
    if beyond is not None:
        places = places + beyond * turned.shape[0]
    # Steps take the values in four orders. The table in all four is small.
    values = ops.cast(execution.take(reading.values, turned), "float32")
    if reading.unit != 1:  # not of scales, which files hold in float16
        values = values * reading.unit
    scales = ops.cast(reading.scales, "float32")
    if execution.exporting:  # LiteRT looks up nothing that it has in float16
        zero = ops.cast(execution.range_in_file(ids, 0, 1), "float32")
        values, scales = values + zero, scales + zero
    found = execution.gather(values, places)
    found = execution.with_lead(found, ids, 0, reading.scales.shape[1])
    if groups is not None:
        scales = execution.gather(scales, groups)
    return found * scales


def _turned(execution: Execution, ids: Tensor, states: int) -> Tensor:
    """Returns where the value of each state is, turn after turn."""
    numbers = execution.range_in_file(ids, 0, states)
    products = [
        numbers * turn
        for turn in multipliers(NUM_TURNS, states.bit_length() - 1).tolist()
    ]
    numbers = ops.concatenate(products)
    return numbers - numbers // states * states


def _are_integers(values: Factor) -> bool:
    return keras.backend.is_int_dtype(values.dtype)


def _starts(
    execution: Execution, ids: Tensor, strings: Strings
) -> tuple[Tensor, Tensor | None]:
    """Returns the first byte of each row, and its group."""
    if strings.groups is None:
        return ids * strings.group_bytes[0], None
    block = ids // BLOCK
    place = ops.expand_dims(ids - block * BLOCK, 1)
    pairs = ops.reshape(strings.groups, (-1, BLOCK // 2))
    pairs = ops.cast(execution.gather(pairs, block), "int32")
    second = pairs // 16
    groups = ops.stack([pairs - 16 * second, second], axis=2)
    groups = ops.reshape(groups, (-1, BLOCK))
    sizes = np.array(strings.group_bytes, "int32")
    lengths = execution.gather(ops.convert_to_tensor(sizes), groups)
    numbers = ops.arange(BLOCK, dtype="int32")
    before = ops.cast(ops.less(numbers, place), "int32")
    here = ops.cast(ops.equal(numbers, place), "int32")
    first = execution.gather(strings.starts, block)
    return (
        first + ops.sum(lengths * before, axis=1),
        ops.sum(groups * here, axis=1),
    )


def _places(
    execution: Execution,
    ids: Tensor,
    starts: Tensor,
    groups: Tensor | None,
    strings: Strings,
) -> Tensor:
    """Returns which turned value each step of rows has, `(count, num_parts)`.

    The bits of a state lie in three bytes: a number below `2**24`, which is
    exact in float32. Runtimes compute floats faster than integers.
    """
    longest = max(strings.group_bytes)
    numbers = ops.arange(longest, dtype="int32")
    numbers = ops.expand_dims(starts, 1) + numbers
    numbers = ops.minimum(numbers, strings.codes.shape[0] - 1)
    found = ops.cast(execution.gather(strings.codes, numbers), "float32")
    found = ops.pad(found, ((0, 0), (2, 0)))
    words = (found[:, :-2] * 256 + found[:, 1:-1]) * 256 + found[:, 2:]
    bits = execution.kept_out(strings.bits, ids)
    ends = ops.cumsum(ops.cast(bits, "int32"), axis=1)
    last = ops.maximum(ends - 1, 0) // 8
    # Integers: LiteRT looks up no constants of float16. No reciprocals, which
    # TensorFlow's graphs round.
    powers = ops.convert_to_tensor(2 ** np.arange(9, dtype="int32"))
    powers = execution.gather(powers, ends - 8 * last)
    after = ops.cast(powers, "float32") * 2.0**-8
    if groups is not None:
        last = execution.gather(last, groups)
        after = execution.gather(after, groups)
    count = ops.shape(starts)[0]
    if isinstance(count, int):  # a file is not to hold them
        rows = execution.range_in_file(ids, 0, count)
    else:
        rows = ops.arange(count, dtype="int32")
    words = execution.gather(
        ops.reshape(words, (-1,)), ops.expand_dims(rows * longest, 1) + last
    )
    states = 2**strings.state_bits
    read = ops.floor(words * after)
    read = read - ops.floor(read * (1 / states)) * states
    steps = np.arange(strings.bits.shape[1], dtype="int32") % NUM_TURNS
    turned = ops.convert_to_tensor(steps * np.int32(states))
    return ops.cast(read, "int32") + turned
