"""Decomposition, rounding and merging, against t3f and the TT-SVD's bound."""

import numpy as np
import pytest

from keras_embcomp.numerics.tensor_train import decomposition as tt

SHAPE = ((5, 6, 7), (2, 3, 2))
ROWS, WIDTH = 203, 12


@pytest.fixture
def table(generator):
    """A table whose singular values fall, as those of trained ones do."""
    scale = 1 / np.arange(1, WIDTH + 1)
    table = generator.normal(size=(ROWS, WIDTH)) * scale
    return (table / np.arange(1, ROWS + 1)[:, None] ** 0.3).astype("float32")


def error_of(cores, table):
    difference = tt.full_table(cores, len(table)) - table
    return np.linalg.norm(difference) / np.linalg.norm(table)


def unfolding_error(table, ranks):
    """The TT-SVD bound, from NumPy's singular values of each unfolding."""
    padded = np.zeros((210, WIDTH))
    padded[: len(table)] = table
    tensor = padded.reshape(*SHAPE[0], *SHAPE[1]).transpose(0, 3, 1, 4, 2, 5)
    squared = 0
    for cut, rank in enumerate(ranks, start=1):
        unfolding = tensor.reshape(np.prod(tensor.shape[: 2 * cut]), -1)
        values = np.linalg.svd(unfolding, compute_uv=False)
        squared += np.sum(values[rank:] ** 2)
    return np.sqrt(squared) / np.linalg.norm(table)


@pytest.mark.parametrize("max_error", [0.1, 0.3, 0.6])
def test_an_error_that_is_asked_for_is_kept(max_error, table):
    cores = tt.decompose(table, SHAPE, None, max_error, None)
    ranks = [core.shape[1] for core in cores[1:]]
    found = error_of(cores, table)
    assert found <= unfolding_error(table, ranks) * (1 + 1e-4) <= max_error
    # One rank less at any cut would leave out more than its share.
    for cut in range(len(ranks)):
        fewer = [10**3] * len(ranks)
        fewer[cut] = ranks[cut] - 1
        share = max_error / np.sqrt(len(ranks))
        assert unfolding_error(table, fewer) > share * (1 - 1e-4)


def test_cores_survive_the_way_to_t3f_and_back(table):
    import t3f

    cores = tt.decompose(table, SHAPE, (4, 5), None, None)
    tensor_train = tt.to_t3f(cores)
    full = np.asarray(t3f.full(tensor_train))
    np.testing.assert_allclose(
        tt.full_table(cores, ROWS), full[:ROWS], atol=1e-6
    )
    for core, back in zip(cores, tt.from_t3f(tensor_train), strict=True):
        np.testing.assert_array_equal(core, back)


def test_ranks_above_what_the_modes_allow_are_lowered_without_loss(generator):
    shapes = ((5, 1, 2, 16), (6, 16, 3, 40), (7, 40, 2, 1))
    cores = [generator.normal(size=shape).astype("float32") for shape in shapes]
    lowered = tt.from_t3f(tt.to_t3f(cores))
    assert [core.shape[1] for core in lowered] == [1, 10, 14]
    table = tt.full_table(cores, ROWS)
    assert error_of(lowered, table) < 1e-5


def test_rounding_is_that_of_t3f(table):
    import t3f

    cores = tt.decompose(table, SHAPE, (10, 14), None, None)
    rounded = tt.rounded_cores(cores, 3)
    assert [core.shape[1] for core in rounded] == [1, 3, 3]
    expected = t3f.full(t3f.round(tt.to_t3f(cores), max_tt_rank=3))
    np.testing.assert_allclose(
        tt.full_table(rounded, ROWS), expected[:ROWS], atol=1e-5
    )


def test_merging_keeps_the_table_and_the_bytes(table):
    cores = tt.decompose(table, SHAPE, (4, 5), None, None)
    sizes = {}
    for limit in (10**3, 3_000, 10**6):
        try:
            merged = tt.merged(cores, limit)
        except ValueError as error:
            assert "`max_bytes` must be at least" in str(error)
            continue
        sizes[limit] = sum(core.nbytes for core in merged)
        assert sizes[limit] <= limit
        assert error_of(merged, tt.full_table(cores, ROWS)) < 1e-6
    assert list(sizes) == [3_000, 10**6]
    assert len(tt.merged(cores, 10**6)) == 2


def test_weights_that_are_products_of_digits_are_met_exactly(table):
    scales = [np.array([1, 2, 3, 4, 5.0]), np.ones(6), np.arange(1, 8) / 7]
    weights = np.einsum("i,j,k->ijk", *scales).ravel() ** 2
    found = tt._digit_scales(weights, SHAPE[0])
    np.testing.assert_allclose(tt._outer(found) ** 2, weights, rtol=1e-5)


def test_says_what_would_fit_into_memory(table, monkeypatch):
    monkeypatch.setattr(tt, "available_bytes", lambda: 10_000)
    with pytest.raises(
        ValueError, match="must leave room.*at most 40 rows fit"
    ):
        tt.decompose(table, SHAPE, (4, 5), None, None)


def test_refuses_what_is_no_matrix_of_t3f():
    with pytest.raises(ValueError, match="must be a `t3f.TensorTrain` that"):
        tt.from_t3f(np.zeros((3, 4)))
