"""`FrequentHead` scores as the layer that it comes from."""

import keras
import numpy as np
import pytest
from contract import assert_close, assert_equal

from keras_embcomp import (
    FrequentHead,
    GroupReduceSoftmax,
    LowRankEmbedding,
    LowRankSoftmax,
    ProductQuantizedSoftmax,
)

WORDS, WIDTH = 60, 8
LAYERS = {
    "Dense": lambda: keras.layers.Dense(WORDS),
    "ReversibleEmbedding": lambda: keras.layers.ReversibleEmbedding(
        WORDS, WIDTH
    ),
    "low rank": lambda: LowRankSoftmax(WORDS, 3, activation=None),
    "tied": lambda: LowRankEmbedding(WORDS, WIDTH, 3),
    "codes": lambda: ProductQuantizedSoftmax(
        WORDS, 3, 2, codebook_size=10, activation=None
    ),
    "grouped": lambda: GroupReduceSoftmax(
        WORDS, (20, 40), (5, 2), permuted=True, activation=None
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_scores_are_those_of_the_layer(kind, generator, tmp_path):
    layer = LAYERS[kind]()
    layer.build((None, WIDTH))
    for weight in layer.trainable_weights:
        weight.assign(generator.normal(size=weight.shape))
    hidden = generator.normal(size=(2, 3, WIDTH)).astype("float32")
    reverse = {"reverse": True} if "mbedding" in type(layer).__name__ else {}
    logits = keras.ops.convert_to_numpy(layer(hidden, **reverse))
    counts = generator.permutation(WORDS)
    head = FrequentHead.from_layer(layer, counts=counts, size=25)
    ids = np.flatnonzero(counts >= WORDS - 25)
    assert_equal(head.ids, ids)
    found = keras.ops.convert_to_numpy(head(hidden))
    np.testing.assert_allclose(found, logits[..., ids], atol=1e-5)
    scores, best = head.top_k(hidden, 4)
    order = np.argsort(-logits[..., ids], axis=-1)[..., :4]
    assert_equal(best, ids[order])
    wanted = np.take_along_axis(logits[..., ids], order, axis=-1)
    assert_close(scores, wanted, atol=1e-5)
    inputs = keras.Input((3, WIDTH))
    model = keras.Model(inputs, head(inputs))
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras")
    assert_equal(loaded(hidden), found)
    assert_equal(loaded.layers[-1].ids, ids)


@pytest.mark.parametrize("kind", LAYERS)
def test_words_may_be_in_any_order(kind, generator):
    layer = LAYERS[kind]()
    layer.build((None, WIDTH))
    for weight in layer.trainable_weights:
        weight.assign(generator.normal(size=weight.shape))
    hidden = generator.normal(size=(2, WIDTH)).astype("float32")
    reverse = {"reverse": True} if "mbedding" in type(layer).__name__ else {}
    logits = keras.ops.convert_to_numpy(layer(hidden, **reverse))
    ids = generator.permutation(WORDS)
    head = FrequentHead.from_layer(layer, ids)
    assert_close(head(hidden), logits[..., ids], atol=1e-5)


def test_refuses_what_cannot_be():
    layer = LowRankSoftmax(WORDS, 3)
    layer.build((None, WIDTH))
    for how, message in (
        ({}, "`ids`, or `counts` and `size`, must be given"),
        ({"ids": [60]}, "`ids` must be below 60. Received: ids from 60"),
        ({"ids": [1.0]}, "a list of integer ids"),
        ({"counts": np.ones(60), "size": 61}, "`size` must not exceed `voc"),
    ):
        with pytest.raises(ValueError, match=message):
            FrequentHead.from_layer(layer, **how)
    with pytest.raises(ValueError, match="must be a built `Dense`"):
        FrequentHead.from_layer(keras.layers.Dense(3))
    with pytest.raises(ValueError, match="`head` must be a `Dense` or a com"):
        FrequentHead(keras.layers.Flatten())
    head = FrequentHead.from_layer(layer, [1, 5])
    with pytest.raises(ValueError, match="`k` must not exceed `size`"):
        head.top_k(np.ones((1, WIDTH), "float32"), 3)
