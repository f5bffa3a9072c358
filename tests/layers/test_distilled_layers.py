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


def test_another_activation_is_fitted_from_there(generator):
    table = correlated_table(generator)
    best = DistilledEmbedding.from_dense(table, 5).to_dense()
    smooth = DistilledEmbedding.from_dense(table, 5, activation="tanh")
    flat = np.sum((table - table.mean(axis=0)) ** 2)
    errors = [np.sum((rows - table) ** 2) for rows in (best, smooth.to_dense())]
    assert errors[0] <= errors[1] < (errors[0] + flat) / 2


def test_a_hidden_layer_fits_a_curved_table_better_than_any_rank(generator):
    angles = generator.uniform(0, 6, (2_000, 2))
    waves = np.concatenate([np.cos(angles * k) for k in (1, 2, 3)], axis=1)
    table = waves @ generator.normal(size=(6, 24))
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
    blocks, _ = layer.logit_blocks(ops.convert_to_tensor(hidden))
    assert [block.shape[-1] for block in blocks] == [100, 100, 100, 100, 31]


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("hidden_dim", [None, 500])
def test_a_tied_file_is_as_small_as_the_layer(hidden_dim, tmp_path):
    layer = DistilledEmbedding(20_000, 64, 8, hidden_dim=hidden_dim)
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, layer(layer(ids), reverse=True))
    written = export_litert(model, tmp_path / "model.tflite")
    assert written.bytes < 4 * layer.count_params() + 20_000
