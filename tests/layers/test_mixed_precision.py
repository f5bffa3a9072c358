"""Training in half precision is as good as training in float32."""

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from keras import ops

from keras_embcomp import CrossentropyHead, compressed_crossentropy

# The unit roundoff `u`: a result is off by this share of itself, at most.
ROUNDOFF = {"mixed_bfloat16": 2.0**-8, "mixed_float16": 2.0**-11}
SEEDS, EPOCHS = range(4), 8
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
    # Without a bias: how Keras sums its gradient is not tested here. States
    # above 0, as after a ReLU, so that errors of the same sign add up.
    dense = keras.layers.Dense(WIDTH, "sigmoid", use_bias=False, dtype=policy)
    states = dense(words(ids))
    end = CrossentropyHead(head, dtype=policy)
    return keras.Model(ids, end(states)), end


def pairs(generator):
    """Few words, each followed by one of eight."""
    words = generator.integers(0, 20, 512).astype("int32")
    follows = generator.integers(0, VOCABULARY, (20, 8)).astype("int32")
    return words, follows[words, generator.integers(0, 8, 512)]


def start_of(model, seed):
    """Returns normal weights of a seed; codes stay as they are."""
    generator = np.random.default_rng(seed)
    return [
        value
        if value.dtype != "float32"
        else 0.3 * generator.normal(size=value.shape).astype("float32")
        for value in model.get_weights()
    ]


def scaled(policy, optimizer):
    """Returns an optimizer that scales the loss where float16 needs it."""
    if policy != "mixed_float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**10)


def one_step(case, policy, data):
    """Returns the loss, and what a step of SGD adds to the weights."""
    model, end = next_word_model(case, policy)
    if hasattr(end.head, "decoder_activation"):
        # A rounding may turn a ReLU off, and a gradient with it.
        end.head.decoder_activation = keras.activations.tanh
    start = start_of(model, 0)
    model.set_weights(start)
    # A small step: one that is rounded together with its weight is lost.
    optimizer = scaled(policy, keras.optimizers.SGD(2.0**-6))
    model.compile(optimizer, end.loss, jit_compile=JIT, run_eagerly=not JIT)
    loss = model.train_on_batch(*data)
    steps = [
        np.ravel(after - before)
        for after, before in zip(model.get_weights(), start, strict=True)
        if before.dtype == "float32"
    ]
    return loss, np.concatenate(steps)


@every_case
def test_a_step_is_off_by_roundings(case, generator):
    """By those of the results between the weights and a gradient.

    Forward they are the weights, the rows, the dense layer and its activation,
    up to three products of a head and the logits; backward, the gradient of
    each: 16. A result is off by the share `u` of itself at most. The slopes of
    a token's logits sum to zero, so sums over units are half as large as their
    terms suggest, and roundings count twice beside them: 32 `u`. A sum that is
    itself in half precision is off by `u` for every term, of thousands.
    """
    data = pairs(generator)
    loss, step = one_step(case, "float32", data)
    for policy, roundoff in ROUNDOFF.items():
        found, own = one_step(case, policy, data)
        # Logits are near 1, and the loss near 6: of logits that are off by up
        # to 16 `u`, with either sign, the mean of 512 losses keeps less.
        assert abs(found - loss) < roundoff * loss, policy
        error = np.linalg.norm(own - step) / np.linalg.norm(step)
        assert error < 32 * roundoff, policy


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_over_units_are_in_float32(case, dtype):
    """In half precision, 307 ones are 308 or 256: 1 % off the logarithm."""
    sizes = (VOCABULARY,) if case in SOFTMAXES else (VOCABULARY, WIDTH)
    head = case.layer(*sizes, **case.structure, dtype=f"mixed_{dtype}")
    head.build((None, WIDTH))
    hidden = np.zeros((2, WIDTH), "float32")  # so that all logits are zero
    losses = compressed_crossentropy(head, hidden, np.array([3, 306]))
    np.testing.assert_allclose(
        ops.convert_to_numpy(losses), np.log(VOCABULARY), rtol=1e-5
    )


def train(model, end, policy, data):
    """Returns the weights after training from the start of each seed."""
    # Steps so small that weights rounded to bfloat16 would not move by many.
    rate = keras.optimizers.schedules.CosineDecay(0.002, 8 * EPOCHS)
    optimizer = scaled(policy, keras.optimizers.Adam(rate))
    steps = {} if JIT else {"steps_per_execution": 8}
    model.compile(optimizer, end.loss, jit_compile=JIT, **steps)
    optimizer.build(model.trainable_variables)
    # All epochs in one: to start one takes as long as its eight steps.
    data = [np.tile(array, EPOCHS) for array in data]
    fresh = [ops.convert_to_numpy(one) for one in optimizer.variables]
    found = []
    for seed in SEEDS:
        model.set_weights(start_of(model, seed))
        for variable, value in zip(optimizer.variables, fresh, strict=True):
            variable.assign(value)  # to compile once for all seeds
        model.fit(*data, 64, shuffle=False, verbose=0)
        found.append(model.get_weights())
    assert all(w.dtype == "float32" for w in model.trainable_weights)
    return found


@every_case
def test_trains_as_well_as_float32(case, generator):
    """The mean over seeds is no higher, beyond what seeds leave uncertain.

    Roundings are noise of either sign, which training corrects: they move
    losses less than the start does. So half precision may end higher by the
    standard error of the mean of float32, and lower by any amount.
    """
    data = pairs(generator)
    model, end = next_word_model(case, "float32")

    def losses(weights):
        """Evaluates weights of any policy in float32."""
        found = []
        for values in weights:
            model.set_weights(values)
            found.append(model.evaluate(*data, 512, verbose=0))
        return np.array(found)

    weights = train(model, end, "float32", data)
    start = losses(start_of(model, seed) for seed in SEEDS)
    expected = losses(weights)
    uncertain = np.std(expected, ddof=1) / np.sqrt(len(SEEDS))
    assert np.mean(start - expected) > 2 * uncertain  # it has learned
    for policy in ROUNDOFF:
        weights = train(*next_word_model(case, policy), policy, data)
        higher = np.mean(losses(weights) - expected)
        assert higher < uncertain, policy


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
