"""Training in half precision ends where training in float32 does."""

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from keras import ops

from keras_embcomp import CrossentropyHead

SEEDS, EPOCHS = (0, 1, 2), 6
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


def start_of(model, seed):
    """Returns weights that a seed determines: normal, and codes as they are."""
    generator = np.random.default_rng(seed)
    return [
        0.3 * generator.normal(size=value.shape).astype("float32")
        if value.dtype == "float32"
        else value
        for value in model.get_weights()
    ]


def scaled(policy, optimizer):
    """Returns an optimizer with a loss scale where float16 needs it."""
    if policy != "mixed_float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**10)


def one_step(case, policy, data):
    """Returns the loss of a batch, and what a step of SGD adds to weights."""
    model, end = next_word_model(case, policy)
    start = start_of(model, seed=0)
    model.set_weights(start)
    optimizer = scaled(policy, keras.optimizers.SGD(1.0))
    model.compile(optimizer, end.loss, jit_compile=JIT)
    loss = model.train_on_batch(*data)
    assert all(w.dtype == "float32" for w in model.trainable_weights)
    return loss, [
        after - before
        for after, before in zip(model.get_weights(), start, strict=True)
        if before.dtype == "float32"
    ]


# A number keeps 8 bits in bfloat16 and 11 in float16.
POLICIES = {"mixed_bfloat16": 2.0**-8, "mixed_float16": 2.0**-11}
# Results that are rounded between the ids and a gradient: rows, the dense layer,
# the products of the head, and their gradients. Each rounding is off by half an
# eps at most, of its own result; sums in which gradients cancel have more.
ROUNDINGS = 32


@every_case
def test_the_error_of_a_step_is_that_of_rounding(case, generator):
    data = pairs(generator)
    loss, updates = one_step(case, "float32", data)
    for policy, eps in POLICIES.items():
        found, own = one_step(case, policy, data)
        bound = ROUNDINGS * eps / 2
        assert abs(found - loss) <= bound * loss
        # Of all weights together: a bias that moves all logits alike has no
        # gradient but what rounding leaves.
        own, exact = (
            np.concatenate([np.ravel(x) for x in every])
            for every in (own, updates)
        )
        error = np.linalg.norm(own - exact)
        print(case, policy, error / np.linalg.norm(exact) / (eps / 2))
        assert error <= bound * np.linalg.norm(exact), policy


@every_case
def test_trains_as_well_as_float32(case, generator):
    """Half precision ends no higher, by more than seeds differ on average."""
    data = pairs(generator)
    judge, end = next_word_model(case, "float32")
    judge.compile("sgd", end.loss, jit_compile=JIT)
    losses = {}
    for policy in ("float32", *POLICIES):
        # One program a policy, for all seeds.
        model, end = next_word_model(case, policy)
        for seed in SEEDS:
            start = start_of(model, seed)
            rate = keras.optimizers.schedules.CosineDecay(0.02, 8 * EPOCHS)
            optimizer = scaled(policy, keras.optimizers.Adam(rate))
            model.compile(optimizer, end.loss, jit_compile=JIT)
            model.set_weights(start)
            model.fit(
                *data, batch_size=64, epochs=EPOCHS, shuffle=False, verbose=0
            )
            # The weights are judged, not how half precision evaluates them.
            before = losses.setdefault(("start", seed), None)
            if before is None:
                judge.set_weights(start)
                losses["start", seed] = judge.evaluate(*data, 512, verbose=0)
            judge.set_weights(model.get_weights())
            losses[policy, seed] = judge.evaluate(*data, 512, verbose=0)

    def of(name):
        return np.array([losses[name, seed] for seed in SEEDS])

    assert np.all(of("float32") < 0.9 * of("start"))
    gained = np.mean(of("start") - of("float32"))
    for policy in POLICIES:
        # Of what float32 gains, less than a seventieth may be missing: the
        # mean over seeds of what rounding adds, which has either sign.
        missing = np.mean(of(policy) - of("float32"))
        print(case, policy, missing / gained)
        assert missing <= gained / 70, policy


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
