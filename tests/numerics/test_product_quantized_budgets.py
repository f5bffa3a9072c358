"""Sizes of product codes for a budget of bytes."""

import numpy as np
import pytest
from correlated import correlated_table, relative_error

from keras_embcomp import ProductQuantizedEmbedding
from keras_embcomp.numerics.product_quantized import budgets


@pytest.mark.parametrize("factor_bytes", [4, 1])
def test_sizes_keep_to_their_bytes_and_more_are_better(factor_bytes, generator):
    table = correlated_table(generator)
    dtype = {4: "float32", 1: "int8"}[factor_bytes]
    errors = []
    for budget in (20_000, 30_000, 45_000):
        sizes = budgets.code_sizes(
            table, budget, np.ones(2_000), 64, factor_bytes
        )
        layer = ProductQuantizedEmbedding.from_dense(
            table, **sizes, codebook_size=64, factors_dtype=dtype
        )
        assert sum(w.nbytes for w in layer.get_weights()) <= budget
        errors.append(relative_error(layer, table))
    assert errors == sorted(errors, reverse=True)
    with pytest.raises(ValueError, match="`max_bytes` must be at least"):
        budgets.code_sizes(table, 2_000, np.ones(2_000))


def test_rows_are_kept_where_they_count(generator):
    table = generator.normal(size=(3_000, 16)).astype("float32")
    counts = 1 / (1 + generator.permutation(3_000)) ** 1.2
    sizes = budgets.code_sizes(
        table, 30_000, counts / counts.mean(), 64, factor_bytes=1
    )
    assert sizes["num_kept"] > 0
    layer = ProductQuantizedEmbedding.from_dense(
        table,
        **sizes,
        codebook_size=64,
        frequencies=counts,
        factors_dtype="int8",
    )
    assert sum(w.nbytes for w in layer.get_weights()) <= 30_000
    frequent = np.argsort(-counts)[: sizes["num_kept"] // 2]
    rows = layer.to_dense()[frequent]
    np.testing.assert_allclose(rows, table[frequent], atol=0.03)
    flat = budgets.code_sizes(table, 30_000, np.ones(3_000), 64, 1)
    assert flat["num_kept"] < sizes["num_kept"]


def test_water_fills_up_to_one_level():
    variances = np.array([8.0, 2.0, 0.5])
    # Two bits: levels 8 -> 1 takes 1.5, 2 -> 1 takes 0.5.
    found = budgets.water_filled(variances, 2.0)
    np.testing.assert_allclose(found, [1, 1, 0.5], rtol=1e-6)


@pytest.mark.parametrize("num_kept", [0, 250])
def test_the_sample_knows_what_heavy_rows_lose(num_kept, generator):
    table = generator.normal(size=(40_000, 8)).astype("float32")
    counts = 1 / (1 + generator.permutation(len(table)))
    weights = counts / counts.mean()
    sizes = {"num_parts": 2, "part_width": 4, "codebook_size": 256}
    sizes |= {"num_kept": num_kept, "factors_dtype": "int8"}
    layer = ProductQuantizedEmbedding.from_dense(
        table, **sizes, frequencies=counts
    )
    squares = np.square(layer.to_dense() - table).sum(axis=1)
    found = budgets.sampled_loss(table, weights, **sizes)
    np.testing.assert_allclose(found, weights @ squares, rtol=0.05)
