"""LoRA: a difference that trains where the table does not."""

import json

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from contract import assert_close, assert_equal
from keras import ops
from random_layers import (
    BOTH,
    BOTH_IN_TURN,
    expected_of,
    in_turn,
    inputs_of,
    made,
    model_of,
    with_one_of,
)

from keras_embcomp import (
    EmbedReduce,
    GroupReduceEmbedding,
    LowRankEmbedding,
    ProductQuantizedEmbedding,
    compressed_crossentropy,
    export_litert,
    resize_vocabulary,
    to_keras,
)

WITH_FLOATS = in_turn([*EMBEDDINGS, *SOFTMAXES], floats=True)


def adapted(case, mode=None, **kwargs):
    """Returns a layer whose difference is as large as its table."""
    layer = made(case, **kwargs)
    if mode is not None:
        if not layer._factors:
            pytest.skip("it has no factors of floats")
        layer.quantize(mode)
    before = layer.to_dense()
    layer.enable_lora(3, lora_alpha=5)
    assert_equal(layer.to_dense(), before)  # until it is trained
    a, b = layer.lora_embeddings_a, layer.lora_embeddings_b
    generator = np.random.default_rng(0)
    a.assign(generator.normal(size=a.shape))
    b.assign(generator.normal(size=b.shape) * before.std())
    expected = before + 5 / 3 * np.matmul(*map(ops.convert_to_numpy, (a, b)))
    assert_close(layer.to_dense(), expected, rtol=1e-5, atol=1e-5)
    return layer


def logits_of(layer, hidden):
    logits = hidden @ layer.to_dense().T
    if layer.bias is not None:
        logits = logits + ops.convert_to_numpy(layer.bias)
    return logits


@WITH_FLOATS
def test_law(case, mode):
    layer = adapted(case, mode)
    found = layer(inputs_of(case))
    assert_close(found, expected_of(case, layer), rtol=1e-4, atol=1e-5)


@BOTH
def test_logits_in_every_form(case, generator):
    layer = adapted(case)
    hidden = generator.normal(size=(5, WIDTH)).astype("float32")
    labels = generator.integers(0, VOCABULARY, 5)
    logits = logits_of(layer, hidden)
    least = logits - logits.max(axis=1, keepdims=True)
    logs = least - np.log(np.exp(least).sum(axis=1, keepdims=True))
    own = logs[np.arange(5), labels]
    losses = compressed_crossentropy(layer, hidden, labels, block_size=100)
    assert_close(losses, -own, rtol=1e-4, atol=1e-4)
    if case in EMBEDDINGS:
        found = layer(hidden, reverse=True)
        assert_close(found, logits, rtol=1e-4, atol=1e-4)
        return
    assert_close(layer.log_prob(hidden, labels), own, rtol=1e-4, atol=1e-4)
    scores, units = layer.top_k(hidden, 4)
    best = np.argsort(-logits, axis=1)[:, :4]
    assert_equal(units, best)
    expected = np.take_along_axis(logits, best, axis=1)
    assert_close(scores, expected, rtol=1e-4, atol=1e-4)


@WITH_FLOATS
def test_only_the_difference_and_a_bias_train(case, mode, generator):
    layer = adapted(case, mode)
    model = model_of(case, layer)
    names = {weight.name for weight in layer.trainable_weights}
    bias = {"bias"} if case in SOFTMAXES else set()
    assert names == {"lora_embeddings_a", "lora_embeddings_b"} | bias
    table = layer._table()
    inputs = inputs_of(case)
    shape = ops.shape(model(inputs))
    model.compile("sgd", "mse")
    before = [ops.convert_to_numpy(w) for w in model.trainable_weights]
    targets = generator.normal(size=shape).astype("float32")
    losses = model.fit(inputs, targets, epochs=3, verbose=0).history["loss"]
    assert losses == sorted(losses, reverse=True)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert not np.array_equal(ops.convert_to_numpy(weight), old)
    assert_equal(layer._table(), table)


@WITH_FLOATS
def test_saves_and_loads(case, mode, tmp_path):
    layer = adapted(case, mode)
    model, inputs = model_of(case, layer), inputs_of(case)
    expected = ops.convert_to_numpy(model(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal(loaded(inputs), expected)
    assert loaded.layers[-1].lora_alpha == 5
    names = [weight.name for weight in loaded.layers[-1].trainable_weights]
    assert names == [weight.name for weight in layer.trainable_weights]
    clone = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    clone.build((None, WIDTH))
    clone.set_weights(layer.get_weights())
    assert_equal(clone(inputs), expected)


@BOTH
def test_weights_of_a_layer_without_lora(case, tmp_path):
    """As in Keras: a difference starts from nothing on what was loaded."""
    plain = made(case)
    model_of(case, plain).save_weights(tmp_path / "plain.weights.h5")
    layer = adapted(case)
    model_of(case, layer).load_weights(tmp_path / "plain.weights.h5")
    assert_equal(layer.to_dense(), plain.to_dense())
    assert layer.lora_enabled


@BOTH_IN_TURN
def test_quantized_after(case, mode):
    layer = adapted(case)
    if not layer._factors:
        pytest.skip("it has no factors of floats")
    difference = layer.to_dense() - layer._table()
    layer.quantize(mode)
    assert_close(layer.to_dense() - layer._table(), difference, atol=1e-5)
    assert not any(
        weight.trainable
        for weight in layer.weights
        if weight.name not in ("bias", "lora_embeddings_a", "lora_embeddings_b")
    )
    found = layer(inputs_of(case))
    assert_close(found, expected_of(case, layer), rtol=1e-4, atol=1e-5)


@WITH_FLOATS
def test_merges(case, mode):
    layer = adapted(case, mode)
    plain = made(case)
    if mode is not None:
        plain.quantize(mode)
    table = layer.to_dense()
    error = layer.merge_lora()
    assert not layer.lora_enabled
    assert "lora_rank" not in layer.get_config()
    assert layer.get_config() == {
        **plain.get_config(),
        "name": layer.name,
    }
    found = np.linalg.norm(layer.to_dense() - table) / np.linalg.norm(table)
    assert error == pytest.approx(found, rel=1e-5)
    assert error < 1
    assert [w.shape for w in layer.weights] == [w.shape for w in plain.weights]
    assert [w.trainable for w in layer.weights] == [
        w.trainable for w in plain.weights
    ]
    found = layer(inputs_of(case))
    assert_close(found, expected_of(case, layer), rtol=1e-4, atol=1e-5)
    if case in SOFTMAXES:
        assert_equal(layer.bias, np.linspace(-1, 1, VOCABULARY, dtype="f"))


@BOTH
def test_a_full_size_merges_without_loss(case):
    layer = case.layer.from_dense(made(case).to_dense(), **case.full)
    layer.enable_lora(2, b_initializer="ones")
    near = case.note == "-hidden" or case.lost > 1e-5
    limit = 1e-3 if near else 1e-5
    assert layer.merge_lora() < limit


def test_words_of_groups_keep_their_places(generator):
    table = generator.normal(size=(VOCABULARY, WIDTH)).astype("float32")
    counts = generator.permutation(VOCABULARY) + 1
    structure = {"group_sizes": (7, 300), "group_ranks": (7, 5)}
    layer = GroupReduceEmbedding.from_dense(
        table, **structure, frequencies=counts
    )
    frequent = np.argsort(-counts)[:7]
    layer.enable_lora(3, b_initializer="ones")
    changed = layer.to_dense()
    layer.merge_lora(frequencies=counts)
    assert_close(layer.to_dense()[frequent], changed[frequent], atol=1e-4)


def test_of_the_constructor():
    layer = LowRankEmbedding(50, 8, rank=3, lora_rank=2, lora_alpha=4)
    layer.build()
    assert layer.lora_enabled
    assert layer.get_config()["lora_alpha"] == 4
    assert len(layer.trainable_weights) == 2


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float16", "float64"])
def test_half_and_double_precision(dtype):
    layer = LowRankEmbedding(50, 8, rank=3, dtype=dtype)
    layer.build()
    ids = np.arange(50)
    before = layer(ids).dtype
    layer.enable_lora(2, b_initializer="ones")
    assert layer.lora_embeddings_a.dtype == "float32"
    rows = layer(ids)
    assert rows.dtype == before
    rows = ops.convert_to_numpy(ops.cast(rows, "float32"))
    assert_close(rows, layer.to_dense(), rtol=0.02, atol=0.02)


def test_in_a_bag():
    layer = LowRankEmbedding(50, 8, rank=3)
    layer.build()
    layer.enable_lora(2, b_initializer="ones")
    ids = np.array([[1, 2, 3], [4, 4, 4]])
    expected = layer.to_dense()[ids].sum(axis=1)
    found = EmbedReduce(layer, combiner="sum")(ids)
    assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_resized_vocabulary_keeps_it():
    layer = ProductQuantizedEmbedding(50, 8, 4, 2, codebook_size=16)
    layer.build()
    layer.enable_lora(2, b_initializer="ones")
    table = layer.to_dense()
    new = resize_vocabulary(layer, 60, like=7)
    assert_equal(new.to_dense()[:50], table)
    assert_equal(new.to_dense()[50:], np.repeat(table[7:8], 10, axis=0))
    assert new.lora_enabled


def test_a_dense_model_has_the_sum():
    layer = LowRankEmbedding(50, 8, rank=3)
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer])
    layer.enable_lora(2, b_initializer="ones")
    ids = np.array([[1, 2, 3, 49]])
    assert_close(to_keras(model)(ids), model(ids), rtol=1e-5, atol=1e-6)


def test_says_what_is_wrong():
    layer = LowRankEmbedding(50, 8, rank=3)
    with pytest.raises(ValueError, match="isn't yet built"):
        layer.enable_lora(2)
    layer.build()
    with pytest.raises(ValueError, match="call `enable_lora` first"):
        layer.merge_lora()
    for rank in (0, 9, 1.5):
        with pytest.raises(ValueError, match=f"rank={rank}"):
            layer.enable_lora(rank)
    layer.enable_lora(2)
    with pytest.raises(ValueError, match="lora is already enabled"):
        layer.enable_lora(2)
    with pytest.raises(ValueError, match="`lora_rank` must be a positive"):
        LowRankEmbedding(50, 8, rank=3, lora_rank=0)


@BOTH
def test_a_table_stays_frozen_when_the_layer_thaws(case):
    layer = adapted(case)
    names = [weight.name for weight in layer.trainable_weights]
    for owner in (layer, model_of(case, layer)):
        owner.trainable = False
        assert not layer.trainable_weights
        owner.trainable = True
        assert [weight.name for weight in layer.trainable_weights] == names
    layer.merge_lora()
    assert "lora_embeddings_a" not in [w.name for w in layer.trainable_weights]
    assert layer.trainable_weights


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("before", [None, "int8"])
@pytest.mark.parametrize("table_format", ["int8", "int4"])
def test_files_have_bytes_of_the_difference(table_format, before, tmp_path):
    layer = LowRankEmbedding(5_000, 64, rank=16)
    ids = keras.Input((None,), dtype="int32", name="ids")
    states = keras.layers.Dense(64)(layer(ids))
    model = keras.Model(ids, layer(states, reverse=True))
    if before is not None:
        layer.quantize(before)
    layer.enable_lora(8, b_initializer="random_normal")
    weights = model.get_weights()
    written = export_litert(model, tmp_path / "a.tflite", table_format)
    bits = 4 if (before or table_format) == "int4" else 8
    held = 5_000 * (16 * bits // 8 + 8)  # and a few numbers for each row
    assert held < written.bytes < held + 80_000
    assert written.error < (0.05 if bits == 8 else 0.2)
    for old, new in zip(weights, model.get_weights(), strict=True):
        assert_equal(new, old)


# The two sides of a method take turns: a row and a logit of each in a format.
@pytest.mark.tensorflow_only
@with_one_of([*EMBEDDINGS, *SOFTMAXES], "table_format", ["float32", "int8"])
def test_files_compute_with_the_difference(case, table_format, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    layer = adapted(case)
    inputs = inputs_of(case)
    item = inputs.shape[2:] if case in EMBEDDINGS else (WIDTH,)
    entry = keras.Input((None, *item), dtype=str(inputs.dtype), name="x")
    model = keras.Model(entry, layer(entry))
    path = tmp_path / "a.tflite"
    lost = {"float32": 1e-5, "int8": 0.03}[table_format]
    assert export_litert(model, path, table_format).error < lost
    runner = Interpreter(str(path)).get_signature_runner()
    (found,) = runner(x=np.zeros((1, 0, *item), inputs.dtype)).values()
    assert found.shape[:2] == (1, 0)
