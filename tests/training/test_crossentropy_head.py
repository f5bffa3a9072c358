"""Models that end with hidden states train by `fit`."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_embcomp import (
    CrossentropyHead,
    GroupReduceSoftmax,
    LowRankEmbedding,
    compressed_crossentropy,
)

UNITS, WIDTH = 50, 8
GROUPS = {"group_sizes": (10, 40), "group_ranks": (8, 2)}


def dense_and_streamed(tied=False, mask_zero=False, **kwargs):
    """Returns a model of logits and one of states with the same layers."""
    ids = keras.Input((None,), dtype="int32")
    words = LowRankEmbedding(UNITS, WIDTH, rank=4, mask_zero=mask_zero)
    states = layers.GRU(WIDTH, return_sequences=True)(words(ids))
    if tied:
        head = words
        logits = words(states, reverse=True)
    else:
        head = GroupReduceSoftmax(UNITS, **GROUPS, activation=None)
        logits = head(states)
    end = CrossentropyHead(head, block_size=16, **kwargs)
    return keras.Model(ids, logits), keras.Model(ids, end(states)), end


def some_data(generator, count=20):
    ids = generator.integers(0, UNITS, (count, 6)).astype("int32")
    ids[:, -2:] = 0  # padding
    labels = np.roll(ids, -1, axis=1)
    return ids, labels, generator.random((count, 6)).astype("float32")


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_trains_as_logits_do(tied, jit_compile, generator):
    if keras.backend.backend() == "torch" and jit_compile:
        pytest.skip("Keras has no jit_compile for recurrent layers on PyTorch")
    if keras.backend.backend() == "jax" and not jit_compile:
        pytest.skip("a minute; test_crossentropy.py runs uncompiled JAX")
    logits, states, end = dense_and_streamed(tied, mask_zero=True)
    ids, labels, weights = some_data(generator)
    start, histories = states.get_weights(), []
    assert len(start) == len(logits.get_weights())
    for model, loss in (
        (
            logits,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ),
        (states, end.loss),
    ):
        states.set_weights(start)
        model.compile("sgd", loss, jit_compile=jit_compile)
        arguments = {"batch_size": 8, "shuffle": False, "verbose": 0}
        found = model.fit(
            ids, labels, sample_weight=weights, epochs=2, **arguments
        )
        evaluated = model.evaluate(ids, labels, verbose=0)
        histories.append([*found.history["loss"], evaluated])
    np.testing.assert_allclose(*histories, rtol=1e-5)
    assert histories[0][1] < histories[0][0]


def test_samples_when_it_trains_only(generator):
    _, states, end = dense_and_streamed(num_sampled=8, seed=1)
    ids, labels, _ = some_data(generator)
    compiled = keras.backend.backend() == "jax"  # else it takes long
    states.compile("sgd", end.loss, jit_compile=compiled)
    losses = [states.evaluate(ids, labels, verbose=0) for _ in range(2)]
    exact = compressed_crossentropy(end.head, states.predict(ids), labels)
    exact = keras.ops.convert_to_numpy(exact)
    np.testing.assert_allclose(losses, np.mean(exact), rtol=1e-5)
    states.optimizer.learning_rate = 0.0
    trained = [states.train_on_batch(ids, labels) for _ in range(2)]
    assert trained[0] != trained[1]  # other units are drawn
    assert abs(trained[0] - losses[0]) > 1e-4
    assert states.evaluate(ids, labels, verbose=0) == losses[0]


@pytest.mark.parametrize("tied", [False, True])
def test_saves_and_trains_on_once_compiled_again(tied, generator, tmp_path):
    _, states, end = dense_and_streamed(tied, label_smoothing=0.1)
    ids, labels, _ = some_data(generator)
    states.compile("adam", end.loss)
    states.train_on_batch(ids, labels)
    states.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(states.weights)
    with pytest.raises(ValueError, match="must be compiled again after"):
        loaded.evaluate(ids, labels, verbose=0)
    loaded.compile(loaded.optimizer, loaded.layers[-1].loss)
    found, expected = (
        [model.train_on_batch(ids, labels) for _ in range(2)]
        for model in (loaded, states)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="`num_sampled` must be a positive"):
        CrossentropyHead(GroupReduceSoftmax(UNITS, **GROUPS), num_sampled=-1)
    with pytest.raises(ValueError, match="`head` must be a layer of"):
        CrossentropyHead(layers.Dense(UNITS))


@pytest.mark.parametrize("how", ["mask", "weights", "ignore_class"])
def test_positions_that_do_not_count_may_have_any_label(how, generator):
    """As with Keras' own loss, where it takes such labels at all."""
    options = {"ignore_class": -1} if how == "ignore_class" else {}
    _, model, end = dense_and_streamed(mask_zero=how == "mask", **options)
    ids = generator.integers(1, UNITS, (12, 6)).astype("int32")
    labels = generator.integers(0, UNITS, (12, 6)).astype("int32")
    ids[:, 4:] = 0
    weights = None
    if how == "weights":
        weights = np.ones((12, 6), "float32")
        weights[:, 4:] = 0
    model.compile("sgd", end.loss, jit_compile=False)
    start, found = model.get_weights(), []
    for rest in (0, -1, UNITS + 7):
        if how == "ignore_class" and rest != -1:
            continue
        model.set_weights(start)
        labels[:, 4:] = rest
        history = model.fit(
            ids, labels, sample_weight=weights, shuffle=False, verbose=0
        ).history
        found.append((history["loss"][0], model.get_weights()))
    if how == "ignore_class":
        # The mean over the other labels, which the logits have too.
        model.set_weights(start)
        hidden = model.predict(ids, verbose=0)
        own = compressed_crossentropy(end.head, hidden[:, :4], labels[:, :4])
        own = keras.ops.convert_to_numpy(own)
        found.append((own.mean(), found[0][1]))
    for loss, weights_after in found[1:]:
        np.testing.assert_allclose(loss, found[0][0], rtol=1e-5)
        for one, other in zip(weights_after, found[0][1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(12, 1), (12, 6)])
def test_weights_of_fewer_axes_count_as_with_the_loss_of_logits(
    shape, generator
):
    logits, states, end = dense_and_streamed()
    ids, labels, _ = some_data(generator, 12)
    weights = generator.integers(0, 2, shape).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    logits.compile("sgd", loss, jit_compile=False)
    states.compile("sgd", end.loss, jit_compile=False)
    found = states.evaluate(ids, labels, 12, sample_weight=weights, verbose=0)
    expected = logits.evaluate(
        ids, labels, 12, sample_weight=weights, verbose=0
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
