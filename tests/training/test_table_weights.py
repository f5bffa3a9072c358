"""Optimizers that treat the weights of tables apart from the others."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_embcomp import (
    HashedFeatures,
    LowRankEmbedding,
    LowRankSoftmax,
    table_weights,
)

WORDS, WIDTH, RATE = 1_200, 16, 1e-3


def language_model(embedding, head):
    ids = keras.Input((4,), dtype="int32")
    x = keras.layers.Dense(WIDTH, name="hidden")(embedding(ids))
    return keras.Model(ids, head(x))


def moved(model, optimizer, generator):
    """Returns how far one step moves each weight, by path."""
    ids = generator.integers(0, WORDS, (8, 4)).astype("int32")
    before = [ops.convert_to_numpy(w) for w in model.trainable_weights]
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.train_on_batch(ids, ids)
    return {
        weight.path: np.abs(ops.convert_to_numpy(weight) - old)
        for weight, old in zip(model.trainable_weights, before, strict=True)
    }


@pytest.fixture
def compressed():
    return language_model(
        LowRankEmbedding(WORDS, WIDTH, 4, name="words"),
        LowRankSoftmax(WORDS, 4, activation=None, name="next"),
    )


def test_tables_and_no_other_weights(compressed):
    assert [w.path for w in table_weights(compressed)] == [
        "words/embeddings",
        "words/projection",
        "next/embeddings",
        "next/projection",
        "next/bias",
    ]


def test_dense_tables_have_the_same_weights():
    model = language_model(
        keras.layers.Embedding(WORDS, WIDTH, name="words"),
        keras.layers.Dense(WORDS, name="next"),
    )
    assert [w.path for w in table_weights(model)] == [
        "words/embeddings",
        "next/kernel",
        "next/bias",
    ]


def test_a_shared_table_is_there_once():
    words = LowRankEmbedding(WORDS, WIDTH, 4, name="words")
    model = language_model(words, lambda x: words(x, reverse=True))
    assert len(table_weights(model)) == 2


def test_a_pool_of_features():
    layer = HashedFeatures(["user", "item"], 8, 64, name="ids")
    inputs = {
        name: keras.Input((), dtype="int32", name=name)
        for name in ("user", "item")
    }
    rows = layer(inputs)
    outputs = keras.layers.Dense(1)(rows["user"] + rows["item"])
    model = keras.Model(inputs, outputs)
    assert table_weights(model) == layer.trainable_weights


def test_frozen_tables_have_none(compressed):
    compressed.get_layer("words").trainable = False
    assert len(table_weights(compressed)) == 3


def test_muon_leaves_tables_to_adam(compressed, generator):
    """Adam's first step is the rate for each number; Muon's is not."""
    tables = [weight.path for weight in table_weights(compressed)]
    optimizer = keras.optimizers.Muon(
        RATE,
        exclude_layers=[f"^{path}$" for path in tables],
        epsilon=1e-12,
        weight_decay=None,
        adam_weight_decay=None,
    )
    found = moved(compressed, optimizer, generator)
    for path in tables:
        steps = found[path][found[path] > 0]
        np.testing.assert_allclose(steps, RATE, rtol=0.01, err_msg=path)
    assert found["hidden/kernel"].mean() < 0.5 * RATE


def test_tables_without_weight_decay(compressed, generator):
    optimizer = keras.optimizers.AdamW(0.1 * RATE, weight_decay=50.0)
    optimizer.exclude_from_weight_decay(var_list=table_weights(compressed))
    embeddings = compressed.get_layer("words").embeddings
    before = ops.convert_to_numpy(embeddings)
    unused = np.arange(WORDS) > WORDS - 2  # no gradient but for the decay
    ids = generator.integers(0, WORDS - 2, (8, 4)).astype("int32")
    hidden = ops.convert_to_numpy(compressed.get_layer("hidden").kernel)
    compressed.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    compressed.train_on_batch(ids, ids)
    after = ops.convert_to_numpy(embeddings)
    np.testing.assert_array_equal(after[unused], before[unused])
    kernel = ops.convert_to_numpy(compressed.get_layer("hidden").kernel)
    decayed = hidden * (1 - 0.1 * RATE * 50)
    np.testing.assert_allclose(kernel, decayed, atol=1.01 * 0.1 * RATE)


def test_refuses_what_is_no_model():
    with pytest.raises(ValueError, match="must be a Keras model"):
        table_weights(keras.layers.Dense(3))
