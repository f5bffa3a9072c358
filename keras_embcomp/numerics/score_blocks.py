"""Scores of a vocabulary in blocks: the largest, and log-probabilities.

Blocks are tensors of shape `(..., size)` that follow each other. A position
counts the scores of all blocks from 0. Every shape is static, so that XLA
compiles all functions.
"""

import math
from collections.abc import Sequence

from keras import ops

from keras_embcomp._compat import log_sum_exp
from keras_embcomp._types import Tensor

_SHORTEST_RUN = 8


def inverse(places: Tensor) -> Tensor:
    """Returns the inverse of a permutation as an int32 tensor."""
    numbers = ops.arange(places.shape[0], dtype="int32")
    return ops.scatter(ops.expand_dims(places, 1), numbers, places.shape)


def with_bias(blocks: Sequence[Tensor], bias: Tensor) -> list[Tensor]:
    """Returns the blocks plus the bias, of shape `(vocabulary,)`."""
    ends = [0]
    for block in blocks:
        ends.append(ends[-1] + block.shape[-1])
    return [
        ops.add(block, bias[start:end])
        for block, start, end in zip(blocks, ends, ends[1:], strict=False)
    ]


def largest(blocks: Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Returns the `k` largest scores in falling order, and their positions.

    Both have the shape `(..., k)`. Ties go to the lower position, as in
    `ops.top_k`.
    """
    scores, positions, start = [], [], 0
    for block in blocks:
        found, places = _largest_in_runs(block, min(k, block.shape[-1]))
        scores.append(found)
        positions.append(places + start)
        start += block.shape[-1]
    if len(blocks) == 1:
        return scores[0], positions[0]
    best, chosen = ops.top_k(ops.concatenate(scores, axis=-1), k)
    positions = ops.concatenate(positions, axis=-1)
    return best, ops.take_along_axis(positions, chosen, axis=-1)


def _largest_in_runs(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns `ops.top_k(scores, k)`, faster.

    `ops.top_k` searches all scores. Here the scores are cut into runs. The `k`
    largest scores are in the `k` runs with the largest maxima, so only these
    runs are searched. They stay in their order, so that ties still go to the
    lower position.
    """
    size = scores.shape[-1]
    if 0 in scores.shape:  # no tokens: nothing to search
        empty = ops.zeros((*scores.shape[:-1], k), scores.dtype)
        return empty, ops.cast(empty, "int32")
    length = _run_length(size, k)
    if size < 4 * k * length:
        best, places = ops.top_k(scores, k)
        return best, ops.cast(places, "int32")
    missing = -size % length
    if missing:
        padding = [(0, 0)] * (len(scores.shape) - 1) + [(0, missing)]
        scores = ops.pad(scores, padding, constant_values=-math.inf)
    count = (size + missing) // length
    rows = ops.reshape(scores, (-1, length))
    # Without `initial` Keras refuses a batch that is empty at run time.
    maxima = ops.max(rows, axis=-1, initial=-math.inf)
    runs = ops.top_k(ops.reshape(maxima, (-1, count)), k)[1]
    runs = ops.sort(ops.cast(runs, "int32"), axis=-1)
    # Numbers of the tokens. A symbolic tensor does not know how many.
    token = ops.cumsum(ops.ones_like(runs[:, :1]), axis=0) - 1
    searched = ops.take(rows, runs + count * token, axis=0)
    best, places = ops.top_k(ops.reshape(searched, (-1, k * length)), k)
    places = ops.cast(places, "int32")
    runs = ops.take_along_axis(runs, places // length, axis=-1)
    places = length * runs + places % length
    shape = (*ops.shape(scores)[:-1], k)
    return ops.reshape(best, shape), ops.reshape(places, shape)


def _run_length(size: int, k: int) -> int:
    """Returns a run length with about as many runs as scores in `k` runs.

    That length is `sqrt(size / k)`. Within a factor of two of it, the nearest
    divisor of `size` needs no padding; without a divisor, the length stays.
    """
    wanted = max(_SHORTEST_RUN, round(math.sqrt(size / k)))
    lengths = range(-(-wanted // 2), 2 * wanted + 1)
    divisors = [length for length in lengths if size % length == 0]
    return min(divisors, key=lambda one: abs(one - wanted), default=wanted)


def log_probabilities(blocks: Sequence[Tensor], positions: Tensor) -> Tensor:
    """Returns the log-softmax at some positions, of shape `(...)`.

    Args:
        blocks: Tensors of shape `(..., size)`.
        positions: int32 tensor of shape `(...)`. All are in range.
    """
    totals, own, start = [], 0, 0
    for block in blocks:
        if block.dtype != "float64":
            block = ops.cast(block, "float32")
        size = block.shape[-1]
        totals.append(log_sum_exp(block, axis=-1))
        place = positions - start
        inside = ops.logical_and(place >= 0, place < size)
        place = ops.expand_dims(ops.clip(place, 0, size - 1), -1)
        score = ops.take_along_axis(block, place, axis=-1)[..., 0]
        own = own + ops.where(inside, score, 0)
        start += size
    if len(totals) == 1:
        return own - totals[0]
    return own - log_sum_exp(ops.stack(totals, axis=-1), axis=-1)
