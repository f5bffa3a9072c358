"""Words made of shared sub-vectors (Li et al. 2018, "Slim").

Every word has `num_parts` pieces, and each piece is a sub-vector of a pool. The
assignment is random, balanced (usage counts differ by at most one) and fixed.
Here it is computed from `(id, part, seed)`, so it takes no weight.

The first words may have private rows: pieces of their own, behind the pools.
"""

import functools
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_embcomp._types import Array, Factor, Tensor
from keras_embcomp.checks import at_most
from keras_embcomp.numerics.execution import Execution
from keras_embcomp.numerics.hashed.shuffles import shuffle_constants, shuffled
from keras_embcomp.numerics.lookup import likely_count
from keras_embcomp.numerics.streaming import RowScores, products


class Assignment(NamedTuple):
    """Which sub-vectors a word is made of.

    Part `k` is sub-vector `offsets[k] + (place + starts[k]) % sizes[k]`, where
    `place` is the place of the word in shuffle `k`. Part `k` of private word
    `i` is sub-vector `sum of sizes + i * num_parts + k`; with one pool, that of
    all parts, the sum is its size.

    Attributes:
        vocabulary: Number of words that share sub-vectors.
        num_parts: Number of parts of a word.
        seed: Seed of the shuffles.
        starts: For each part, what is added to the place.
        sizes: For each part, the number of sub-vectors in its pool.
        offsets: For each part, the first sub-vector of its pool.
        num_subvectors: Sub-vectors of all pools together.
        num_private: How many words, the first ones, share none.
    """

    vocabulary: int
    num_parts: int
    seed: int
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    offsets: tuple[int, ...]
    num_subvectors: int
    num_private: int = 0

    @property
    def num_pieces(self) -> int:
        """Sub-vectors that are shared or private."""
        return self.num_subvectors + self.num_private * self.num_parts


def check_pool(
    name: str,
    vocabulary: int,
    num_subvectors: int,
    num_parts: int,
    num_private: int,
) -> None:
    """Raises a `ValueError` if the pool is too large, or the places are."""
    if num_private >= vocabulary:
        raise ValueError(
            f"`num_private` must be below `{name}`. "
            f"Received: num_private={num_private}, {name}={vocabulary}"
        )
    pieces = vocabulary * num_parts
    if pieces >= 2**31:
        raise ValueError(
            f"`{name} * num_parts` must be below 2**31. "
            f"Received: {name}={vocabulary}, num_parts={num_parts}"
        )
    of_words = f"{name} * num_parts"
    if num_private:
        of_words = f"({name} - num_private) * num_parts"
        pieces -= num_private * num_parts
    at_most("num_subvectors", num_subvectors, of_words, pieces)


def check_parts(name: str, width: int, num_parts: int) -> None:
    """Raises a `ValueError` unless `num_parts` divides the width."""
    if width % num_parts == 0:
        return
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    nearest = [n for n in divisors if n < num_parts][-1:]
    nearest += [n for n in divisors if n > num_parts][:1]
    raise ValueError(
        f"`num_parts` must divide `{name}`; the nearest that do are "
        f"{' and '.join(map(str, nearest))}. "
        f"Received: num_parts={num_parts}, {name}={width}"
    )


def assign(
    vocabulary: int,
    num_subvectors: int,
    num_parts: int,
    seed: int,
    shared: bool,
    num_private: int = 0,
) -> Assignment:
    """Returns a balanced assignment.

    With one pool for all parts, the places of the parts follow each other, so
    that usage counts over all parts differ by at most one.

    Args:
        vocabulary: Integer. Number of words.
        num_subvectors: Integer. Size of the pool, or of all pools together.
        num_parts: Integer. Parts of a word.
        seed: Integer. Seed of the shuffles.
        shared: Boolean. Whether all parts share one pool.
        num_private: Integer. How many words, the first ones, share none.
    """
    vocabulary -= num_private
    if shared:
        starts = tuple(k * vocabulary for k in range(num_parts))
        sizes, offsets = (num_subvectors,) * num_parts, (0,) * num_parts
    else:
        sizes, offsets = pools_of_parts(num_subvectors, num_parts)
        starts = (0,) * num_parts
    return Assignment(
        vocabulary,
        num_parts,
        seed,
        starts,
        sizes,
        offsets,
        num_subvectors,
        num_private,
    )


def pools_of_parts(
    num_subvectors: int, num_parts: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the size of the pool of each part, and where it starts."""
    least, more = divmod(num_subvectors, num_parts)
    sizes = tuple(least + (k < more) for k in range(num_parts))
    return sizes, tuple(sum(sizes[:k]) for k in range(num_parts))


def codes(execution: Execution, ids: Tensor, assignment: Assignment) -> Tensor:
    """Returns the number in its pool of each part, `(*ids.shape, parts)`.

    Args:
        execution: How the call runs.
        ids: int32 tensor or NumPy array of numbers of words among those that
            share sub-vectors.
        assignment: The result of `assign`.
    """
    in_numpy = isinstance(ids, np.ndarray)
    convert = np.asarray if in_numpy else ops.convert_to_tensor
    ids = ids[..., None] if in_numpy else ops.expand_dims(ids, -1)
    constants = shuffle_constants(assignment.num_parts, assignment.seed)
    places = shuffled(execution, ids, assignment.vocabulary, convert(constants))
    starts, sizes = (
        convert(np.array(numbers, "int32"))
        for numbers in (assignment.starts, assignment.sizes)
    )
    return (places + starts) % sizes


@functools.lru_cache(maxsize=8)
def code_table(assignment: Assignment) -> Array:
    """Returns the codes of all that share, an array `(vocabulary, parts)`."""
    ids = np.arange(assignment.vocabulary, dtype="int32")
    return codes(Execution(), ids, assignment)


def pieces_of(
    execution: Execution, ids: Tensor, assignment: Assignment
) -> Tensor:
    """Returns the sub-vector of each part, of shape `(*ids.shape, parts)`.

    Args:
        execution: How the call runs.
        ids: int32 tensor or NumPy array of ids below the vocabulary.
        assignment: The result of `assign`.
    """
    offsets = np.array(assignment.offsets, "int32")
    private = assignment.num_private
    in_numpy = isinstance(ids, np.ndarray)
    if not in_numpy:
        offsets = ops.convert_to_tensor(offsets)
    if not private:
        return codes(execution, ids, assignment) + offsets
    library = np if in_numpy else ops
    shared = library.maximum(ids - private, 0)
    found = codes(execution, shared, assignment) + offsets
    first = library.expand_dims(ids * assignment.num_parts, -1)
    parts = library.arange(assignment.num_parts, dtype="int32")
    own = first + (parts + assignment.num_subvectors)
    return library.where(library.expand_dims(ids < private, -1), own, found)


def hashed_rows(
    execution: Execution,
    ids: Tensor,
    outside: Tensor,
    subvectors: Factor,
    assignment: Assignment,
) -> Tensor:
    """Returns the rows of ids, of shape `(*ids.shape, width)`.

    Args:
        execution: How the call runs.
        ids: Tensor of ids below the vocabulary.
        outside: 1 for each id that was out of range, else 0.
        subvectors: Tensor of shape `(num_pieces, width // num_parts)`.
        assignment: The result of `assign`.
    """
    found = pieces_of(execution, ops.cast(ids, "int32"), assignment)
    beyond = ops.cast(outside, "int32") * subvectors.shape[0]
    found = found + ops.expand_dims(beyond, -1)
    pieces = execution.take(subvectors, found)
    width = assignment.num_parts * subvectors.shape[1]
    return execution.with_lead(pieces, ids, 0, width)


def hashed_logits(
    execution: Execution,
    hidden: Tensor,
    subvectors: Tensor,
    assignment: Assignment,
) -> Tensor:
    """Returns `hidden @ table.T` of words that share sub-vectors.

    For fewer tokens than the width, this is Algorithm 1 of Li et al. 2018: each
    part of the hidden states is multiplied with its pool once, and the logit of
    a word is a sum of one product per part. For more tokens, the table takes
    less memory than the logits, and one product with it is faster.

    Args:
        execution: How the call runs.
        hidden: Tensor of shape `(..., width)`.
        subvectors: Tensor of shape `(num_subvectors, width // num_parts)`.
        assignment: The result of `assign`.
    """
    width = assignment.num_parts * subvectors.shape[1]
    tokens = ops.reshape(hidden, (-1, width))
    table = _code_table_of(execution, tokens, assignment)
    many = likely_count(hidden.shape[:-1]) > width
    if many and not execution.exporting:
        places = table + np.array(assignment.offsets)
        rows = execution.take(subvectors, places)
        rows = ops.reshape(rows, (assignment.vocabulary, width))
        logits = ops.matmul(tokens, ops.transpose(rows))
    else:
        sizes = assignment.sizes
        starts = np.cumsum([0, *sizes[:-1]]).astype("int32")
        places = table + starts

        def sums(tokens: Tensor) -> Tensor:
            products = _partial_products(tokens, subvectors, assignment)
            return ops.transpose(sums_of_rows(execution, products, places))

        logits = execution.of_tokens(sums, tokens)
    return execution.with_lead(logits, hidden, 1, assignment.vocabulary)


def hashed_scores(
    execution: Execution,
    tokens: Tensor,
    subvectors: Tensor,
    assignment: Assignment,
) -> RowScores:
    """Returns the `RowScores` of hidden states of shape `(tokens, width)`."""

    def scores(tokens: Tensor, subvectors: Tensor, ids: Tensor) -> Tensor:
        rows = hashed_rows(execution, ids, 0 * ids, subvectors, assignment)
        return products(tokens, rows)

    units = assignment.num_private + assignment.vocabulary
    ids = ops.arange(units, dtype="int32")
    return RowScores(scores, (tokens, subvectors), (), (ids,), units)


def _partial_products(
    tokens: Tensor, subvectors: Tensor, assignment: Assignment
) -> Tensor:
    """Returns the products of each part's pool with that part of the tokens.

    The shape is `(all sub-vectors of all pools, tokens)`, and the pools follow
    each other. Tokens come last, so that a word picks rows, not scattered
    numbers.
    """
    num_parts, width = assignment.num_parts, subvectors.shape[1]
    pieces = ops.reshape(tokens, (-1, num_parts, width))
    pieces = ops.transpose(pieces, (1, 2, 0))
    sizes = assignment.sizes
    if num_parts * sizes[0] == subvectors.shape[0]:  # equal and side by side
        pools = ops.reshape(subvectors, (num_parts, -1, width))
        products = ops.matmul(pools, pieces)
        return ops.reshape(products, (subvectors.shape[0], -1))
    return ops.concatenate(
        [
            ops.matmul(subvectors[offset : offset + size], pieces[part])
            for part, (offset, size) in enumerate(
                zip(assignment.offsets, sizes, strict=True)
            )
        ]
    )


def sums_of_rows(execution: Execution, rows: Tensor, table: Tensor) -> Tensor:
    """Returns for each word the sum of the rows that its codes pick.

    Args:
        execution: How the call runs.
        rows: Tensor of shape `(places, tokens)`.
        table: int32 tensor or array of shape `(vocabulary, parts)`.

    Returns:
        A tensor of shape `(vocabulary, tokens)`.
    """
    if execution.in_xla:
        sums = ops.sum(execution.gather(rows, table), axis=1)
        # XLA would fuse the sum with the transposition that follows, which is
        # slower than one after the other. This update keeps them apart.
        return ops.slice_update(sums, (0, 0), sums[:1])
    sums = execution.gather(rows, table[:, 0])
    for part in range(1, table.shape[1]):
        sums = sums + execution.gather(rows, table[:, part])
    return sums


def _code_table_of(
    execution: Execution, tokens: Tensor, assignment: Assignment
) -> Tensor:
    if not execution.exporting:
        return code_table(assignment)
    ids = execution.range_in_file(tokens, 0, assignment.vocabulary)
    return codes(execution, ids, assignment)


def fitted_subvectors(
    table: Array, weights: Array, assignment: Assignment
) -> Array:
    """Returns the pool with the least weighted squared error.

    A sub-vector is the weighted mean of the pieces that use it.

    Args:
        table: Array of shape `(vocabulary, width)`.
        weights: Array of shape `(vocabulary,)`.
        assignment: The result of `assign`.

    Returns:
        A float32 array of shape `(num_pieces, width // num_parts)`.
    """
    size = assignment.num_pieces
    ids = np.arange(len(table), dtype="int32")
    places = pieces_of(Execution(), ids, assignment)
    sums, counts = _sums_of_users(table, weights, places, size)
    never = counts == 0
    if never.any():  # all their pieces weigh 0: average without weights
        alike = np.ones_like(weights)
        plain, uses = _sums_of_users(table, alike, places, size)
        sums[never], counts[never] = plain[never], np.maximum(uses[never], 1)
    return (sums / counts[:, None]).astype("float32")


def _sums_of_users(
    table: Array, weights: Array, places: Array, num_subvectors: int
) -> tuple[Array, Array]:
    """Returns for each sub-vector the weighted sum of its pieces, and of 1."""
    num_parts = places.shape[1]
    pieces = table.reshape(len(table), num_parts, -1)
    sums = np.zeros((num_subvectors, pieces.shape[2]))
    counts = np.zeros(num_subvectors)
    for part in range(num_parts):
        users = places[:, part]
        counts += np.bincount(users, weights, num_subvectors)
        for column in range(pieces.shape[2]):
            values = weights * pieces[:, part, column]
            sums[:, column] += np.bincount(users, values, num_subvectors)
    return sums, counts
