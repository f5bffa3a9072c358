"""Computed shuffles: bijections for every size, as random as a stored one."""

import itertools

import numpy as np
import pytest

from keras_embcomp.numerics.execution import Execution
from keras_embcomp.numerics.hashed.shuffles import shuffle_constants, shuffled
from keras_embcomp.numerics.hashed.subvectors import assign, code_table, codes


def test_every_size_is_shuffled_without_a_collision():
    for size in (*range(1, 120), 4_096, 10_007, 65_537):
        ids = np.arange(size, dtype="int32")[:, None]
        places = shuffled(Execution(), ids, size, shuffle_constants(4, seed=1))
        for part in range(4):
            assert np.array_equal(np.sort(places[:, part]), ids[:, 0]), size


def test_large_numbers_stay_in_range():
    size = 2**31 - 1
    ids = np.array([[0], [2**24 + 1], [size - 2], [size - 1]], "int32")
    places = shuffled(Execution(), ids, size, shuffle_constants(8, seed=0))
    assert places.dtype == np.int32
    assert places.min() >= 0
    assert len(np.unique(places[:, 0])) == 4


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("num_subvectors", [7, 100, 921])
def test_sub_vectors_are_used_alike(shared, num_subvectors):
    assignment = assign(307, num_subvectors, 3, 0, shared)
    found = code_table(assignment) + np.array(assignment.offsets)
    uses = np.bincount(found.ravel(), minlength=num_subvectors)
    pools = [uses] if shared else np.split(uses, assignment.offsets[1:])
    for pool in pools:
        assert pool.max() - pool.min() <= 1


def shared_pieces(found):
    """Counts pairs of words by the pieces that they have in common."""
    pairs = {}
    for part in range(found.shape[1]):
        for code in np.unique(found[:, part]):
            words = np.flatnonzero(found[:, part] == code)
            for pair in itertools.combinations(words.tolist(), 2):
                pairs[pair] = pairs.get(pair, 0) + 1
    return np.bincount(list(pairs.values()), minlength=4)


def test_words_share_pieces_as_under_a_stored_shuffle(generator):
    vocabulary, parts = 2_000, 6
    assignment = assign(vocabulary, 100 * parts, parts, 0, False)
    stored = np.stack(
        [generator.permutation(vocabulary) % 100 for _ in range(parts)], 1
    )
    computed = shared_pieces(code_table(assignment))
    random = shared_pieces(stored)
    assert abs(computed[1] - random[1]) < 0.02 * random[1]
    # About 3,000 pairs share two pieces, give or take their square root.
    assert abs(computed[2] - random[2]) < 4 * random[2] ** 0.5


def test_the_backend_computes_what_numpy_does():
    from keras import ops

    for shared in (True, False):
        assignment = assign(1_000_003, 5_000, 7, 3, shared)
        ids = np.arange(0, 1_000_003, 997, dtype="int32")
        found = codes(Execution(), ops.convert_to_tensor(ids), assignment)
        np.testing.assert_array_equal(
            found, codes(Execution(), ids, assignment)
        )


def test_seeds_give_other_assignments():
    first, second = (
        code_table(assign(1_000, 100, 2, seed, False)) for seed in (0, 1)
    )
    assert np.mean(first == second) < 0.05
