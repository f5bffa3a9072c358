import keras
import numpy as np
import pytest
from keras import ops

from keras_embcomp.numerics.score_blocks import (
    inverse,
    largest,
    log_probabilities,
)


def stable_top(scores, k):
    ids = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(scores, ids, axis=-1), ids


# In runs of a divisor, in padded runs, too few for runs.
@pytest.mark.parametrize("sizes", [(6_400,), (6_007,), (5_120, 40, 3_001)])
@pytest.mark.parametrize("ties", [False, True])
def test_finds_the_first_of_the_largest(sizes, ties, compiled, generator):
    scores = generator.normal(size=(3, 2, sum(sizes))).astype("float32")
    if ties:
        scores = np.round(scores)
    blocks = np.split(scores, np.cumsum(sizes)[:-1], axis=-1)
    found = compiled(lambda scores: largest([*scores], 9))(blocks)
    for ours, expected in zip(found, stable_top(scores, 9), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_finds_the_largest_where_a_run_holds_them_all(generator):
    scores = np.zeros((1, 6_400), "float32")
    scores[0, 300:309] = 1 + np.arange(9)
    found = largest([ops.convert_to_tensor(scores)], 9)
    np.testing.assert_array_equal(found[1], [range(308, 299, -1)])


def test_finds_the_largest_below_minus_infinity(generator):
    scores = np.full((1, 6_007), -np.inf, "float32")
    scores[0, 6_000] = -1e30
    best, ids = largest([ops.convert_to_tensor(scores)], 3)
    assert int(ids[0, 0]) == 6_000
    assert np.max(ops.convert_to_numpy(ids)) < 6_007


def test_searches_runs_of_symbolic_scores():
    scores, ids = largest([keras.Input((6_400,))], 9)
    assert scores.shape == ids.shape == (None, 9)


def test_log_probabilities_are_those_of_all_blocks(generator):
    scores = generator.normal(size=(5, 30), scale=40).astype("float32")
    ids = generator.integers(0, 30, 5).astype("int32")
    every = ops.convert_to_numpy(ops.log_softmax(scores))
    expected = every[np.arange(5), ids]
    blocks = [
        ops.convert_to_tensor(block) for block in (scores[:, :7], scores[:, 7:])
    ]
    found = log_probabilities(blocks, ops.convert_to_tensor(ids))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_half_precision_is_summed_in_float32(generator):
    scores = ops.convert_to_tensor(np.zeros((1, 60_000), "float16"))
    found = log_probabilities([scores], ops.convert_to_tensor([3]))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(found, -np.log(60_000), rtol=1e-5)


def test_the_inverse_of_a_permutation(generator):
    places = generator.permutation(50).astype("int32")
    found = inverse(ops.convert_to_tensor(places))
    np.testing.assert_array_equal(found, np.argsort(places))
