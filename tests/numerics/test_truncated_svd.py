import time
import tracemalloc

import numpy as np
import pytest

from keras_embcomp.budgets import (
    low_rank_from_fraction,
)
from keras_embcomp.numerics.low_rank import truncated_svd


def test_is_numpys_truncated_svd(generator):
    table = generator.normal(size=(40, 9))
    left, right = truncated_svd(table, 4)
    u, s, vt = np.linalg.svd(table, full_matrices=False)
    expected = (u[:, :4] * s[:4]) @ vt[:4]
    np.testing.assert_allclose(left @ right, expected, rtol=1e-4, atol=1e-5)
    # All the scale is on the left: the right is orthonormal.
    np.testing.assert_allclose(right @ right.T, np.eye(4), atol=1e-5)


def test_weighs_rows_by_their_counts(generator):
    table = generator.normal(size=(40, 9))
    counts = generator.integers(1, 1000, 40)
    left, right = truncated_svd(table, 4, counts)
    scales = np.sqrt(counts)[:, None]
    u, s, vt = np.linalg.svd(scales * table, full_matrices=False)
    expected = (u[:, :4] * s[:4]) @ vt[:4] / scales
    np.testing.assert_allclose(left @ right, expected, rtol=1e-3, atol=1e-5)


def test_rows_that_were_never_counted_keep_their_best_coordinates(generator):
    table = generator.normal(size=(40, 9))
    counts = np.array([0] * 20 + [5] * 20)
    left, right = truncated_svd(table, 9, counts)
    np.testing.assert_allclose(left @ right, table, atol=1e-5)


def test_directions_without_extent_stay_trainable(generator):
    table = np.outer(generator.normal(size=30), generator.normal(size=6))
    left, right = truncated_svd(table, 3)
    np.testing.assert_allclose(left @ right, table, atol=1e-5)
    np.testing.assert_allclose(right @ right.T, np.eye(3), atol=1e-5)
    assert np.isfinite(left).all()


def test_a_table_with_fewer_rows_than_columns_comes_back(generator):
    table = generator.normal(size=(5, 12))
    left, right = truncated_svd(table, 8)
    np.testing.assert_allclose(left @ right, table, atol=1e-5)


@pytest.mark.parametrize("shape", [(400_000, 50), (100_000, 512)])
def test_memory_stays_of_the_order_of_the_table(shape):
    table = np.random.default_rng(0).random(shape, "float32")
    tracemalloc.start()
    start = time.perf_counter()
    truncated_svd(table, shape[1] // 4)
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * table.nbytes
    # V x V would be 640 GB; seconds on two cores, a generous bound here.
    assert seconds < 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": np.ones(3)}, "`table` must be a non-empty array of shape"),
        ({"table": np.ones((2, 2)) * 1j}, "must hold real numbers"),
        ({"table": np.ones((0, 3))}, "Received: table of shape (0, 3)"),
        (
            {"table": np.array([[1.0, 2.0], [np.nan, 1.0]])},
            "NaN or infinity in 1 of its 2 rows, the first of them row 1",
        ),
        ({"rank": 3}, "`rank` must not exceed `width`. Received: rank=3, w"),
        ({"rank": 0}, "`rank` must be a positive integer. Received: rank=0"),
        ({"frequencies": [1, 2, 3]}, "Received: frequencies of shape (3,)"),
        ({"frequencies": [1, -2]}, "frequencies with minimum -2.0"),
        ({"frequencies": [0, 0]}, "must not all be zero"),
        ({"frequencies": [1, np.inf]}, "must be finite and not negative"),
    ],
)
def test_wrong_tables_and_counts_are_refused_in_words(arguments, message):
    arguments = {"table": np.ones((2, 2)), "rank": 1, **arguments}
    with pytest.raises(ValueError) as error:
        truncated_svd(**arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("fraction", "rank"),
    [(0.1, 29), (0.25, 73), (0.5, 147), (1e-9, 1), (1, 294)],
)
def test_the_papers_ranks(fraction, rank):
    assert low_rank_from_fraction(16_185, 300, fraction) == rank


def test_the_rank_is_the_largest_within_the_fraction(generator):
    for _ in range(200):
        vocabulary, width = generator.integers(2, 5000, 2)
        tenths = int(generator.integers(1, 11))
        rank = low_rank_from_fraction(vocabulary, width, tenths / 10)
        budget = tenths * int(vocabulary) * int(width)
        if 1 < rank:
            kept = rank * (int(vocabulary) + int(width))
            assert 10 * kept <= budget
        if rank < width:
            more = (rank + 1) * (int(vocabulary) + int(width))
            assert 10 * more > budget


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_wrong_fractions_are_refused(fraction):
    with pytest.raises(ValueError, match="`fraction` must be above 0"):
        low_rank_from_fraction(100, 10, fraction)
