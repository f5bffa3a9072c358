"""What only the distilled layers do."""

import keras
import numpy as np
import oracles
import pytest
from keras import ops

from keras_embcomp import (
    DistilledEmbedding,
    DistilledSoftmax,
    export_litert,
)
from keras_embcomp.numerics import distilled
from keras_embcomp.numerics.low_rank import truncated_svd


@pytest.mark.parametrize(
    "sizes, ratio",
    [
        ((32_000, 512, 64), 7.87),
        ((32_000, 256, 64), 3.97),
        ((32_000, 256, 16), 15.86),
    ],
)
def test_reproduces_the_ratios_of_the_paper(sizes, ratio):
    layer = DistilledEmbedding(*sizes)
    layer.build()
    assert round(layer.compression_ratio, 2) == ratio


@pytest.mark.parametrize("hidden_dim", [None, 5])
def test_every_row_starts_with_a_gradient(hidden_dim, generator):
    layer = DistilledEmbedding(5_000, 8, 1, hidden_dim=hidden_dim)
    ids = np.arange(5_000)[:, None]
    model = keras.Sequential([keras.Input((1,), dtype="int32"), layer])
    start = layer.get_weights()[0]
    model.compile(keras.optimizers.SGD(100.0), "mse")
    targets = generator.normal(size=(5_000, 1, 8))
    model.fit(ids, targets, batch_size=5_000, verbose=0)
    assert np.all(layer.get_weights()[0] != start)


def correlated_table(generator, vocabulary=400, width=16):
    scales = np.linspace(2, 0.1, width)
    mixed = generator.normal(size=(vocabulary, width)) * scales
    turned = np.linalg.qr(generator.normal(size=(width, width)))[0]
    return (mixed @ turned + 3).astype("float32")


@pytest.mark.parametrize("frequencies", [None, 1 / np.arange(1, 401)])
def test_the_papers_form_starts_at_the_best_affine_table(
    generator, frequencies
):
    table = correlated_table(generator)
    weights = np.ones(400) if frequencies is None else frequencies
    mean = np.average(table, axis=0, weights=weights).astype("float32")
    left, right = truncated_svd(table - mean, 5, frequencies)
    layer = DistilledEmbedding.from_dense(table, 5, frequencies=frequencies)
    np.testing.assert_allclose(
        layer.to_dense(), left @ right + mean, rtol=1e-4, atol=1e-4
    )
    rows, bias, *_ = layer.get_weights()
    assert np.all(rows + bias > 0)


@pytest.mark.parametrize(
    "activation", ["gelu", "relu6", "tanh", "sigmoid", "softplus"]
)
def test_another_activation_starts_near_it(activation, generator):
    table = correlated_table(generator)
    best = DistilledEmbedding.from_dense(table, 5).to_dense()
    layer = DistilledEmbedding.from_dense(
        table, 5, activation=activation, epochs=1, learning_rate=1e-6
    )
    errors = [np.sum((rows - table) ** 2) for rows in (best, layer.to_dense())]
    assert errors[1] < 1.02 * errors[0]


def test_relu_with_an_end_is_not_taken_for_relu(generator):
    def capped(x):
        return keras.activations.relu(x, max_value=20.0)

    table = 1e3 * correlated_table(generator)
    best = DistilledEmbedding.from_dense(table, 5).to_dense()
    layer = DistilledEmbedding.from_dense(table, 5, activation=capped)
    assert np.sum((layer.to_dense() - table) ** 2) < 1.02 * np.sum(
        (best - table) ** 2
    )


def wave_table(generator, rows=900):
    angles = generator.uniform(0, 6, (rows, 2))
    waves = np.concatenate([np.cos(angles * k) for k in (1, 2, 3)], axis=1)
    return waves @ generator.normal(size=(6, 24))


def test_what_is_for_training_leaves_the_fit_alone(generator):
    table = wave_table(generator)
    arguments = {"rank": 3, "hidden_dim": 32, "epochs": 5}
    plain = DistilledEmbedding.from_dense(table, **arguments).to_dense()
    for kwargs in (
        {"trainable": False},
        {"mask_zero": True},
        {"embeddings_regularizer": "l2", "projection_constraint": "non_neg"},
        {"dtype": "bfloat16"},
    ):
        layer = DistilledEmbedding.from_dense(table, **arguments, **kwargs)
        rough = 0.05 if "dtype" in kwargs else 1e-6
        np.testing.assert_allclose(layer.to_dense(), plain, atol=rough * 10)
    softmax = DistilledSoftmax.from_dense(table, **arguments)
    np.testing.assert_allclose(softmax.to_dense(), plain, atol=1e-5)


@pytest.mark.parametrize("rows, hidden_dim", [(60, 200), (1_000, 500)])
def test_few_rows_and_wide_layers_gain_too(rows, hidden_dim, generator):
    table = wave_table(generator, rows)
    linear = DistilledEmbedding.from_dense(table, 3).to_dense()
    layer = DistilledEmbedding.from_dense(table, 3, hidden_dim=hidden_dim)
    assert np.sum((layer.to_dense() - table) ** 2) < 0.8 * np.sum(
        (linear - table) ** 2
    )


@pytest.mark.parametrize("hidden_dim", [None, 32])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_table_of_equal_rows_can_be_trained(value, hidden_dim):
    table = np.full((60, 8), value)
    layer = DistilledEmbedding.from_dense(table, 3, hidden_dim=hidden_dim)
    np.testing.assert_allclose(layer.to_dense(), table, atol=1e-5)
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    x = np.arange(240).reshape(60, 4) % 60
    history = model.fit(x, np.ones((60, 4, 8)), epochs=3, verbose=0).history
    assert history["loss"][-1] <= history["loss"][0]


def test_large_numbers_do_not_overflow(generator):
    table = 1e20 * correlated_table(generator)
    found = DistilledEmbedding.from_dense(table, 16).to_dense()
    np.testing.assert_allclose(found / 1e20, table / 1e20, atol=1e-3)


def test_a_hidden_layer_fits_a_curved_table_better_than_any_rank(generator):
    table = wave_table(generator, 2_000)
    linear = DistilledEmbedding.from_dense(table, 3).to_dense()
    layer = DistilledEmbedding.from_dense(table, 3, hidden_dim=64, epochs=60)
    assert np.sum((layer.to_dense() - table) ** 2) < 0.5 * np.sum(
        (linear - table) ** 2
    )


def test_the_same_seed_gives_the_same_layer(generator):
    table = correlated_table(generator)
    one, same, other = (
        DistilledEmbedding.from_dense(
            table, 3, hidden_dim=9, epochs=2, seed=seed
        ).to_dense()
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("tokens", [2, 300])
def test_logits_come_in_parts(tokens, generator, monkeypatch):
    monkeypatch.setattr(distilled, "_BLOCK_NUMBERS", 100 * 20)
    layer = DistilledSoftmax(
        431, 3, hidden_dim=20, activation=None, bias_initializer="normal"
    )
    hidden = generator.normal(size=(tokens, 6)).astype("float32")
    layer.build((None, 6))
    *weights, bias = layer.get_weights()
    expected = hidden @ oracles.decoded_table(*weights).T + bias
    np.testing.assert_allclose(layer(hidden), expected, rtol=1e-4, atol=1e-4)
    blocks, _ = layer._logit_blocks(ops.convert_to_tensor(hidden))
    assert [block.shape[-1] for block in blocks] == [100, 100, 100, 100, 31]


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("hidden_dim", [None, 500])
def test_a_tied_file_is_as_small_as_the_layer(hidden_dim, tmp_path):
    layer = DistilledEmbedding(20_000, 64, 8, hidden_dim=hidden_dim)
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, layer(layer(ids), reverse=True))
    written = export_litert(model, tmp_path / "model.tflite")
    assert written.bytes < 4 * layer.count_params() + 20_000


@pytest.mark.parametrize("hidden_dim", [None, 20])
def test_the_largest_rank_for_a_budget(hidden_dim):
    rank = distilled.distilled_rank(500, 24, 5_000, hidden_dim)
    counts = []
    for one in (rank, rank + 1):
        layer = DistilledEmbedding(500, 24, one, hidden_dim=hidden_dim)
        layer.build()
        counts.append(layer.count_params())
    assert counts[0] <= 5_000 < counts[1]
    assert distilled.distilled_rank(500, 24, 10, hidden_dim) == 1
