"""What only the product-quantized layers do."""

import keras
import numpy as np
import pytest
from correlated import correlated_table, relative_error
from keras import ops

from keras_embcomp import (
    LowRankEmbedding,
    ProductQuantizedEmbedding,
    ProductQuantizedSoftmax,
    export_litert,
)
from keras_embcomp.numerics.product_quantized import codes as product_codes
from keras_embcomp.numerics.product_quantized import fitting


def test_directions_are_dealt_so_that_parts_carry_alike():
    variances = 1 / np.arange(1, 25) ** 2
    order = fitting.deal_directions(variances, 4, 5)
    assert sorted(order) == list(range(20))
    products = np.log(variances[order].reshape(4, 5)).sum(axis=1)
    in_turn = np.log(variances[:20].reshape(4, 5)).sum(axis=1)
    assert np.ptp(products) < 0.1 * np.ptp(in_turn)


def test_directions_without_variance_are_dealt_too():
    order = fitting.deal_directions(np.array([1.0, 0, 0, 0]), 2, 2)
    assert sorted(order) == [0, 1, 2, 3]


def test_places_beyond_the_width_are_empty(generator):
    table = correlated_table(generator, width=10)
    order = fitting.deal_directions(1 / np.arange(1, 11), 4, 3)
    assert sorted(order) == [*range(10), 10, 10]
    errors = [
        relative_error(
            ProductQuantizedEmbedding.from_dense(
                table, parts, 3, codebook_size=64
            ),
            table,
        )
        for parts in (3, 4)
    ]
    assert errors[1] < 0.8 * errors[0]


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


@pytest.mark.parametrize("num_kept", [0, 50])
@pytest.mark.parametrize(
    "layer_class", [ProductQuantizedEmbedding, ProductQuantizedSoftmax]
)
def test_factors_are_stored_in_fewer_bytes(
    layer_class, num_kept, generator, tmp_path
):
    table = correlated_table(generator)
    arguments = {
        "num_parts": 6,
        "part_width": 4,
        "codebook_size": 64,
        "num_kept": num_kept,
    }
    full = layer_class.from_dense(table, **arguments)
    small = layer_class.from_dense(table, **arguments, factors_dtype="int8")
    errors = [relative_error(layer, table) for layer in (full, small)]
    assert errors[1] < 1.05 * errors[0]
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


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("tied", [False, True])
def test_factors_stay_bytes_in_a_file(tied, tmp_path):
    layer = ProductQuantizedEmbedding(
        2_000, 64, 8, 8, num_kept=200, factors_dtype="int8"
    )
    ids = keras.Input((3,), dtype="int32")
    rows = layer(ids)
    model = keras.Model(ids, layer(rows, reverse=True) if tied else rows)
    written = export_litert(model, tmp_path / "model.tflite")
    held = sum(weight.nbytes for weight in layer.get_weights())
    # Floats would take 61,000 bytes more.
    assert written.bytes < held + 40_000


@pytest.mark.parametrize("factors_dtype", ["float32", "int8"])
@pytest.mark.parametrize("scale", [3e-8, 1e-3, 1e10])
def test_any_scale_is_fitted_alike(scale, factors_dtype, generator):
    table = correlated_table(generator, 400)
    errors = [
        relative_error(
            ProductQuantizedEmbedding.from_dense(
                rows, 4, 4, codebook_size=16, factors_dtype=factors_dtype
            ),
            rows.astype("float64"),
        )
        for rows in (table, table * np.float32(scale))
    ]
    np.testing.assert_allclose(errors[1], errors[0], rtol=0.05)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
@pytest.mark.parametrize("scale", [1, 1e-3])
def test_small_factors_compute_in_half_precision(policy, scale, generator):
    table = correlated_table(generator, 400) * np.float32(scale)
    layer = ProductQuantizedEmbedding.from_dense(
        table, 4, 4, codebook_size=16, factors_dtype="int8", dtype=policy
    )
    rows = ops.convert_to_numpy(layer(np.arange(400))).astype("float32")
    largest = np.abs(table).max()
    np.testing.assert_allclose(rows, layer.to_dense(), atol=5e-3 * largest)
    assert relative_error(layer, table) < 0.3


def test_rows_that_differ_are_kept_if_there_are_codes_for_them():
    table = np.zeros((300, 16), "float32")
    table[7], table[9] = 1, np.arange(16)
    layer = ProductQuantizedEmbedding.from_dense(table, 4, 4, codebook_size=16)
    np.testing.assert_allclose(layer.to_dense(), table, atol=1e-5)


def test_frequent_rows_are_kept_however_many_others_there_are(generator):
    table = generator.normal(size=(20_000, 8)).astype("float32")
    counts = np.ones(20_000)
    frequent = generator.choice(20_000, 16, replace=False)
    counts[frequent] = 1e7
    layer = ProductQuantizedEmbedding.from_dense(
        table, 1, 8, codebook_size=16, frequencies=counts
    )
    rows = layer.to_dense()[frequent]
    np.testing.assert_allclose(rows, table[frequent], atol=0.05)


@pytest.mark.parametrize("seed", [None, -1, 1.5, True])
def test_refuses_seeds_that_are_none(seed):
    with pytest.raises(ValueError, match=f"0 or more. Received: seed={seed}"):
        ProductQuantizedEmbedding(300, 8, 2, 4, seed=seed)


def test_large_seeds_serve(generator):
    table = correlated_table(generator, 300)
    for seed in (2**31 - 1, np.int64(2**40)):
        layer = ProductQuantizedEmbedding.from_dense(
            table, 4, 4, codebook_size=16, seed=seed
        )
        assert type(layer.get_config()["seed"]) is int


def test_refuses_numbers_of_a_file_beyond_the_kept_rows(tmp_path):
    layer = ProductQuantizedEmbedding(
        300, 8, 2, 4, codebook_size=200, num_kept=9
    )
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layer])
    layer.codes.assign(ops.full((300, 2), 199, dtype="uint8"))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="Received: row 199, num_kept=9"):
        keras.saving.load_model(tmp_path / "model.keras")
