"""Errors that count as much as what multiplies the columns of a table."""

import numpy as np
import pytest
from contract import assert_close

from keras_embcomp import LowRankEmbedding, LowRankSoftmax
from keras_embcomp.numerics.covariance import Turning

ROWS, WIDTH, RANK = 300, 12, 4


@pytest.fixture
def table(generator):
    return generator.normal(size=(ROWS, WIDTH)).astype("float32")


@pytest.fixture
def covariance(generator):
    hidden = generator.normal(size=(500, WIDTH)) * 0.8 ** np.arange(WIDTH)
    return hidden.T @ hidden / 500


def test_low_rank_is_the_closed_form(table, covariance, generator):
    """Chen et al. 2021: what is left is what an SVD of `Q A C^(1/2)` leaves."""
    counts = generator.uniform(0.1, 3, ROWS)
    values, directions = np.linalg.eigh(covariance)
    root = directions * np.sqrt(values)
    weighed = np.sqrt(counts)[:, None] * table @ root
    least = np.sum(np.linalg.svd(weighed, compute_uv=False)[RANK:] ** 2)
    layer = LowRankEmbedding.from_dense(
        table, RANK, frequencies=counts, covariance=covariance
    )
    errors = (layer.to_dense() - table) @ root
    lost = counts @ np.sum(errors**2, axis=1)
    # Above by what every direction counts at least.
    assert least * (1 - 1e-5) <= lost <= least * 1.002


def test_the_identity_changes_nothing(table):
    plain = LowRankSoftmax.from_dense(table, RANK)
    same = LowRankSoftmax.from_dense(table, RANK, covariance=3 * np.eye(WIDTH))
    assert_close(same.to_dense(), plain.to_dense(), rtol=1e-4, atol=1e-5)


def test_a_turn_and_back_is_the_table(table, covariance):
    turning = Turning.of(covariance, WIDTH)
    assert_close(
        turning.returned(turning.turned(table)), table, rtol=1e-4, atol=1e-4
    )


def test_directions_that_were_never_seen_are_kept(table):
    """Few data must not let a table forget what they do not show."""
    seen = np.zeros((WIDTH, WIDTH))
    seen[0, 0] = 1
    layer = LowRankEmbedding.from_dense(table, WIDTH, covariance=seen)
    assert_close(layer.to_dense(), table, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.eye(WIDTH + 1), "a row and a column for each of the 12 columns"),
        (np.full((WIDTH, WIDTH), np.nan), "finite numbers only"),
        (np.zeros((WIDTH, WIDTH)), "must not be all zero"),
        (np.triu(np.ones((WIDTH, WIDTH))), "must be symmetric"),
        (-np.eye(WIDTH), "no eigenvalue below 0"),
    ],
)
def test_refuses_what_is_no_covariance(table, covariance, message):
    with pytest.raises(ValueError, match=message):
        LowRankEmbedding.from_dense(table, RANK, covariance=covariance)
