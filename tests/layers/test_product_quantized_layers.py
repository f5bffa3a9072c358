"""What only the product-quantized layers do."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_embcomp import (
    LowRankEmbedding,
    ProductQuantizedEmbedding,
    ProductQuantizedSoftmax,
    export_litert,
)
from keras_embcomp.numerics import product_codes


def correlated_table(generator, vocabulary=2_000, width=24):
    scales = 1 / np.arange(1, width + 1)
    mixed = generator.normal(size=(vocabulary, width)) * scales
    turned = np.linalg.qr(generator.normal(size=(width, width)))[0]
    return (mixed @ turned + 0.3).astype("float32")


def relative_error(layer, table):
    return np.linalg.norm(layer.to_dense() - table) / np.linalg.norm(table)


def test_directions_are_dealt_so_that_parts_carry_alike():
    variances = 1 / np.arange(1, 25) ** 2
    order = product_codes.deal_directions(variances, 4, 5)
    assert sorted(order) == list(range(20))
    products = np.log(variances[order].reshape(4, 5)).sum(axis=1)
    in_turn = np.log(variances[:20].reshape(4, 5)).sum(axis=1)
    assert np.ptp(products) < 0.1 * np.ptp(in_turn)


def test_directions_without_variance_are_dealt_too():
    order = product_codes.deal_directions(np.array([1.0, 0, 0, 0]), 2, 2)
    assert sorted(order) == [0, 1, 2, 3]


def test_random_codes_use_every_vector_alike():
    codes = product_codes.balanced_codes(1_000, 5, 16, seed=1)
    for part in codes.T:
        assert np.ptp(np.bincount(part)) <= 1
    assert len(np.unique(codes, axis=0)) == 1_000
    same = product_codes.balanced_codes(1_000, 5, 16, seed=1)
    np.testing.assert_array_equal(codes, same)


@pytest.mark.parametrize(
    "size, dtype", [(256, "uint8"), (257, "int16"), (40_000, "int32")]
)
def test_codes_take_the_smallest_type(size, dtype, generator):
    layer = ProductQuantizedEmbedding(50_000, 2, 1, 2, codebook_size=size)
    layer.build()
    assert layer.codes.dtype == dtype
    ids = np.array([0, 7, 49_999])
    np.testing.assert_allclose(layer(ids), layer.to_dense()[ids], atol=1e-6)


def test_is_nearer_to_a_table_than_low_rank_at_equal_bytes(generator):
    table = correlated_table(generator)
    layer = ProductQuantizedEmbedding.from_dense(table, 6, 4, codebook_size=32)
    rank = 1
    while LowRankEmbedding.from_dense(table, rank).compression_ratio > (
        layer.compression_ratio
    ):
        rank += 1
    low_rank = LowRankEmbedding.from_dense(table, rank)
    assert relative_error(layer, table) < 0.7 * relative_error(low_rank, table)


def test_more_parts_lose_less_and_equal_bits_prefer_the_rotation(generator):
    table = correlated_table(generator)
    errors = [
        relative_error(
            ProductQuantizedEmbedding.from_dense(
                table, parts, 4, codebook_size=32
            ),
            table,
        )
        for parts in (2, 4, 6)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    "factors_dtype, room", [("float16", 3e-3), ("int8", 0.05)]
)
@pytest.mark.parametrize(
    "layer_class", [ProductQuantizedEmbedding, ProductQuantizedSoftmax]
)
def test_factors_are_stored_in_fewer_bytes(
    layer_class, factors_dtype, room, generator, tmp_path
):
    table = correlated_table(generator)
    arguments = {"num_parts": 6, "part_width": 4, "codebook_size": 64}
    full = layer_class.from_dense(table, **arguments)
    small = layer_class.from_dense(
        table, **arguments, factors_dtype=factors_dtype
    )
    assert relative_error(small, table) < (1 + room) * relative_error(
        full, table
    )
    assert small.compression_ratio > full.compression_ratio
    hidden = generator.normal(size=(3, 24)).astype("float32")
    if layer_class is ProductQuantizedEmbedding:
        ids = np.arange(0, 2_000, 7)
        rows = small(ids)
        np.testing.assert_allclose(rows, small.to_dense()[ids], atol=1e-5)
        logits = small(hidden, reverse=True)
        model = keras.Sequential([keras.Input((3,), dtype="int32"), small])
        inputs = ids[:3][None]
    else:
        logits = ops.log(small(hidden))
        logits = logits - ops.mean(logits, axis=-1, keepdims=True)
        model = keras.Sequential([keras.Input((24,)), small])
        inputs = hidden
    expected = hidden @ small.to_dense().T
    if layer_class is ProductQuantizedSoftmax:
        expected = expected - expected.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


def test_the_same_seed_gives_the_same_codes(generator):
    table = correlated_table(generator, 500)
    tables = [
        ProductQuantizedEmbedding.from_dense(
            table, 3, 4, codebook_size=16, seed=seed
        ).to_dense()
        for seed in (3, 3, 4)
    ]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2])


@pytest.mark.parametrize("tokens", [2, 90])
def test_few_and_many_tokens_have_the_same_logits(tokens, generator):
    layer = ProductQuantizedSoftmax(
        500, 3, 5, codebook_size=30, activation=None
    )
    hidden = generator.normal(size=(tokens, 16)).astype("float32")
    layer.build((None, 16))
    layer.mean.assign(generator.normal(size=16))
    expected = hidden @ layer.to_dense().T
    np.testing.assert_allclose(layer(hidden), expected, rtol=1e-4, atol=1e-5)


def test_refuses_tables_of_equal_rows_and_too_few(generator):
    with pytest.raises(ValueError, match="must have rows that differ"):
        ProductQuantizedEmbedding.from_dense(np.ones((30, 8)), 2, 4)
    with pytest.raises(ValueError, match="codebook_size=256, input_dim=30"):
        ProductQuantizedEmbedding.from_dense(
            generator.normal(size=(30, 8)), 2, 4
        )


def test_refuses_codes_of_a_file_that_are_out_of_range(tmp_path):
    layer = ProductQuantizedEmbedding(300, 8, 2, 4, codebook_size=200)
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layer])
    layer.codes.assign(ops.full((300, 2), 250, dtype="uint8"))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="codes from 250 to 250"):
        keras.saving.load_model(tmp_path / "model.keras")


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("tied", [False, True])
def test_codes_stay_bytes_in_a_file(tied, tmp_path):
    layer = ProductQuantizedEmbedding(50_000, 64, 8, 8)
    ids = keras.Input((3,), dtype="int32")
    rows = layer(ids)
    model = keras.Model(ids, layer(rows, reverse=True) if tied else rows)
    written = export_litert(model, tmp_path / "model.tflite")
    held = sum(weight.nbytes for weight in layer.get_weights())
    assert held < written.bytes < held + 40_000
