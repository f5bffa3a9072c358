"""Least errors of tables, against those of known distributions."""

import numpy as np
import pytest

from keras_embcomp.numerics.limits import gaussian_limit, scaled_limit


@pytest.mark.parametrize("bits", [1, 2])
def test_white_rows_lose_a_quarter_for_each_bit(generator, bits):
    table = generator.normal(size=(20_000, 8)).astype("float32")
    weights = np.ones(len(table))
    found = gaussian_limit(table, weights, 8 * bits)
    assert found == pytest.approx(2.0**-bits, rel=0.01)


def test_rows_of_unlike_scale_can_lose_less(generator):
    table = generator.normal(size=(20_000, 32)).astype("float32")
    weights = np.ones(len(table))
    alike = scaled_limit(table, weights, 64)
    assert alike == pytest.approx(0.25, rel=0.03)
    scales = np.repeat([1, 4], 10_000)
    table *= scales[:, None]
    # Two bits a number on average, and log2(4) more for the longer half.
    expected = np.sqrt(4.0**-1 + 16 * 4.0**-3) / np.sqrt(1 + 16)
    found = scaled_limit(table, weights, 64)
    assert found == pytest.approx(expected, rel=0.03)
    assert gaussian_limit(table, weights, 64) > 1.1 * found


def test_bits_go_to_rows_that_count(generator):
    table = generator.normal(size=(4_000, 8)).astype("float32")
    weights = np.repeat([0.1, 1.9], 2_000)
    even = gaussian_limit(table, weights, 16)
    assert scaled_limit(table, weights, 16) < 0.8 * even


def test_no_table_of_zeros_loses_anything():
    zeros, ones = np.zeros((10, 4), "float32"), np.ones(10)
    assert gaussian_limit(zeros, ones, 8) == 0
    assert scaled_limit(zeros, ones, 8) == 0
