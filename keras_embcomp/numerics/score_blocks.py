"""Scores of a vocabulary that come in blocks: the best, and normalised ones.

Blocks are tensors of shape `(..., size)` that follow each other; a position is
one in all of them. Every shape is static, so all of it compiles with XLA.
"""

import math

from keras import ops

_SHORTEST_RUN = 8


def inverse(places):
    """Returns the inverse of a permutation, an int32 tensor."""
    numbers = ops.arange(places.shape[0], dtype="int32")
    return ops.scatter(ops.expand_dims(places, 1), numbers, places.shape)


def with_bias(blocks, bias):
    """Returns the blocks with the bias of each position added."""
    ends = [0]
    for block in blocks:
        ends.append(ends[-1] + block.shape[-1])
    return [
        ops.add(block, bias[start:end])
        for block, start, end in zip(blocks, ends, ends[1:], strict=False)
    ]


def largest(blocks, k):
    """Returns the `k` largest scores, falling, and their positions.

    Of equal scores the first ones are taken, as by `ops.top_k`.
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


def _largest_in_runs(scores, k):
    """Returns `ops.top_k(scores, k)`, which looks at all scores, sooner.

    The `k` largest scores are in the `k` runs whose best scores are largest.
    So the runs' best are found first, a maximum, and only `k` runs are
    searched. Kept in their order, they keep the first of equal scores.
    """
    size = scores.shape[-1]
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
    runs = ops.top_k(ops.reshape(ops.max(rows, axis=-1), (-1, count)), k)[1]
    runs = ops.sort(ops.cast(runs, "int32"), axis=-1)
    # Numbers of the tokens, whose count a symbolic tensor does not tell.
    token = ops.cumsum(ops.ones_like(runs[:, :1]), axis=0) - 1
    searched = ops.take(rows, runs + count * token, axis=0)
    best, places = ops.top_k(ops.reshape(searched, (-1, k * length)), k)
    places = ops.cast(places, "int32")
    runs = ops.take_along_axis(runs, places // length, axis=-1)
    places = length * runs + places % length
    shape = (*ops.shape(scores)[:-1], k)
    return ops.reshape(best, shape), ops.reshape(places, shape)


def _run_length(size, k):
    """Returns a length for which there are as many runs as candidates.

    Of the lengths within a factor of two of that, the nearest that divides
    `size`, so that nothing is padded, or else that itself.
    """
    wanted = max(_SHORTEST_RUN, round(math.sqrt(size / k)))
    lengths = range(-(-wanted // 2), 2 * wanted + 1)
    divisors = [length for length in lengths if size % length == 0]
    return min(divisors, key=lambda one: abs(one - wanted), default=wanted)


def log_probabilities(blocks, positions):
    """Returns the log-softmax of the scores at positions in range.

    Args:
        blocks: Tensors of shape `(..., size)`.
        positions: int32 tensor of shape `(...)`.
    """
    totals, own, start = [], 0, 0
    for block in blocks:
        if block.dtype != "float64":
            block = ops.cast(block, "float32")
        size = block.shape[-1]
        totals.append(ops.logsumexp(block, axis=-1))
        place = positions - start
        inside = ops.logical_and(place >= 0, place < size)
        place = ops.expand_dims(ops.clip(place, 0, size - 1), -1)
        score = ops.take_along_axis(block, place, axis=-1)[..., 0]
        own = own + ops.where(inside, score, 0)
        start += size
    if len(totals) == 1:
        return own - totals[0]
    return own - ops.logsumexp(ops.stack(totals, axis=-1), axis=-1)
