"""Training in half precision ends where training in float32 does."""

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from keras import ops

from keras_embcomp import CrossentropyHead

# TensorFlow compiles for longer than these models train.
JIT = keras.backend.backend() == "jax"

every_case = pytest.mark.parametrize("case", [*SOFTMAXES, *EMBEDDINGS], ids=str)


def next_word_model(case, policy):
    """Returns a model of pairs of words: a head, or a tied layer, on both."""
    ids = keras.Input((), dtype="int32")
    if case in SOFTMAXES:
        words = keras.layers.Embedding(VOCABULARY, WIDTH, dtype=policy)
        head = case.layer(VOCABULARY, **case.structure, dtype=policy)
    else:
        head = words = case.layer(
            VOCABULARY, WIDTH, **case.structure, dtype=policy
        )
    states = keras.layers.Dense(WIDTH, dtype=policy)(words(ids))
    end = CrossentropyHead(head, dtype=policy)
    return keras.Model(ids, end(states)), end


def pairs(generator):
    """Few words, each followed by one of eight."""
    words = generator.integers(0, 20, 512).astype("int32")
    follows = generator.integers(0, VOCABULARY, (20, 8)).astype("int32")
    return words, follows[words, generator.integers(0, 8, 512)]


def trained(case, policy, start, data, optimizer):
    model, end = next_word_model(case, policy)
    model.set_weights(start)
    model.compile(optimizer, end.loss, jit_compile=JIT)
    model.fit(*data, batch_size=64, epochs=12, shuffle=False, verbose=0)
    assert all(w.dtype == "float32" for w in model.trainable_weights)
    return model.evaluate(*data, batch_size=512, verbose=0)


@every_case
def test_reaches_the_loss_of_float32(case, generator):
    model, end = next_word_model(case, "float32")
    start = [
        value if value.dtype != "float32" else value + noise
        for value in model.get_weights()
        for noise in [0.3 * generator.normal(size=value.shape)]
    ]
    data = pairs(generator)
    model.set_weights(start)
    model.compile("adam", end.loss, jit_compile=JIT)
    before = model.evaluate(*data, batch_size=512, verbose=0)

    def adam():
        rate = keras.optimizers.schedules.CosineDecay(0.02, 96)
        return keras.optimizers.Adam(rate)

    expected = trained(case, "float32", start, data, adam())
    assert expected < 0.9 * before
    bfloat16 = trained(case, "mixed_bfloat16", start, data, adam())
    np.testing.assert_allclose(bfloat16, expected, rtol=0.01)
    scaled = keras.optimizers.LossScaleOptimizer(adam(), initial_scale=2.0**10)
    float16 = trained(case, "mixed_float16", start, data, scaled)
    np.testing.assert_allclose(float16, expected, rtol=0.01)


def test_a_loss_scaled_beyond_float16_changes_nothing(generator):
    case = SOFTMAXES[0]
    model, end = next_word_model(case, "mixed_float16")
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**40
    )
    model.compile(scaled, end.loss, jit_compile=JIT)
    start = model.get_weights()
    loss = model.train_on_batch(*pairs(generator))
    assert np.isfinite(loss)
    for weight, value in zip(model.get_weights(), start, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert float(ops.convert_to_numpy(scaled.dynamic_scale)) == 2.0**39
