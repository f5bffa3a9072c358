"""Any ids and labels do what they do in Keras: the same numbers, or errors."""

import os

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import ops
from random_layers import made

from keras_embcomp import CrossentropyHead, compressed_crossentropy

few = settings(
    derandomize=True,
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 60)),
    suppress_health_check=[HealthCheck.too_slow],
)
INTEGERS = [
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
]
FLOATS = ["float16", "float32", "float64"]
CASES = [*EMBEDDINGS, *SOFTMAXES]
_made: dict = {}

cases = st.sampled_from(range(len(CASES)))
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
edges = [-1, -VOCABULARY, VOCABULARY - 1, VOCABULARY, 255, 256, 2**31 - 1]
inside = st.integers(0, VOCABULARY - 1)
outside = st.sampled_from([*edges, -VOCABULARY - 1, 2**31, 2**32, 2**63 - 1])


def layers(number):
    """Returns a layer, and a dense embedding with its table."""
    if number not in _made:
        layer = made(CASES[number])
        dense = keras.layers.Embedding(VOCABULARY, WIDTH)
        dense.build()
        dense.set_weights([layer.to_dense()])
        _made[number] = layer, dense
    return _made[number]


def array_of(draw, shape, dtype, numbers):
    """Draws an array, whose numbers become those that the dtype has."""
    size = int(np.prod(shape))
    drawn = draw(st.lists(numbers, min_size=size, max_size=size))
    if dtype == "bool":
        return np.array([number % 2 for number in drawn], bool).reshape(shape)
    limits = np.iinfo(dtype) if dtype in INTEGERS else None
    if limits is not None:
        drawn = [min(max(n, limits.min), limits.max) for n in drawn]
    else:  # whole numbers that a float16 holds, too
        drawn = [min(max(n, -1_024), 1_024) for n in drawn]
    return np.array(drawn, dtype).reshape(shape)


def result_of(function):
    """Returns an array, or `None` if a call is refused."""
    try:
        return ops.convert_to_numpy(function())
    except Exception:  # each backend has a class of its own
        return None


@st.composite
def ids_of(draw):
    dtype = draw(st.sampled_from(["bool", *INTEGERS, *FLOATS]))
    numbers = draw(st.sampled_from([inside, inside | outside]))
    return array_of(draw, draw(shapes), dtype, numbers)


@few
@given(st.sampled_from(range(len(EMBEDDINGS))), ids_of())
def test_any_ids_do_what_they_do_in_a_dense_embedding(number, ids):
    layer, dense = layers(number)
    # Keras cuts an unsigned id to 32 bits, and finds the row of another id.
    is_large = ids.dtype.kind == "u" and ids.max(initial=0) > 2**31 - 1
    same = np.full(ids.shape, VOCABULARY) if is_large else ids
    expected = result_of(lambda: dense(same))
    found = result_of(lambda: layer(ids))
    assert (found is None) == (expected is None), (found, expected)
    if expected is not None:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def dense_logits(layer, hidden):
    logits = hidden @ layer.to_dense().T
    if layer.bias is not None:
        logits = logits + ops.convert_to_numpy(layer.bias)
    return logits.astype("float32")


@st.composite
def losses(draw):
    """Draws a layer, hidden states, labels and the class to ignore."""
    number = draw(cases)
    shape = draw(shapes.filter(lambda shape: len(shape) > 0))
    dtype = draw(st.sampled_from(INTEGERS))
    labels = array_of(draw, shape, dtype, inside)
    ignored = draw(st.sampled_from([None, None, 0, 3, 255, -1, -100]))
    if ignored is not None and labels.size:
        limits = np.iinfo(dtype)
        if limits.min <= ignored <= limits.max:
            labels.flat[draw(st.integers(0, labels.size - 1))] = ignored
    seed = draw(st.integers(0, 99))
    hidden = np.random.default_rng(seed).normal(size=(*shape, WIDTH))
    return number, hidden.astype("float32"), labels, ignored


@few
@given(losses())
def test_any_labels_have_the_loss_of_the_logits(drawn):
    number, hidden, labels, ignored = drawn
    layer, _ = layers(number)
    found = compressed_crossentropy(layer, hidden, labels, ignore_class=ignored)
    flat = labels.astype("int64").ravel()
    counted = np.ones(len(flat), bool) if ignored is None else flat != ignored
    logits = dense_logits(layer, hidden).reshape(-1, VOCABULARY)
    expected = np.zeros(len(flat), "float32")
    if counted.any():
        expected[counted] = keras.losses.sparse_categorical_crossentropy(
            flat[counted], logits[counted], from_logits=True
        )
    found = np.ravel(ops.convert_to_numpy(found))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@few
@given(losses(), st.data())
def test_masks_and_weights_are_those_of_the_loss_of_keras(drawn, data):
    number, hidden, labels, ignored = drawn
    layer, _ = layers(number)
    flags = st.lists(st.booleans(), min_size=labels.size, max_size=labels.size)
    mask, weights = None, None
    if data.draw(st.booleans()):
        mask = np.array(data.draw(flags), bool).reshape(labels.shape)
    if data.draw(st.booleans()):
        weights = np.array(data.draw(flags), "float32").reshape(labels.shape)
        weights *= 2.5
        if 0 not in labels.shape[1:] and data.draw(st.booleans()):
            weights = weights[(slice(None), *[0] * (labels.ndim - 1))]
    dense = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=ignored
    )
    end = CrossentropyHead(layer, ignore_class=ignored)
    states = ops.convert_to_tensor(hidden)
    logits = ops.convert_to_tensor(dense_logits(layer, hidden))
    for tensor in (states, logits):
        if mask is not None:
            keras.src.backend.set_keras_mask(
                tensor, ops.convert_to_tensor(mask)
            )
    wide = labels.astype("int64")
    expected = result_of(lambda: dense(wide, logits, weights))
    found = result_of(lambda: end.loss(labels, states, weights))
    assert (found is None) == (expected is None), (found, expected)
    if expected is not None:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@few
@given(cases, st.sampled_from(INTEGERS), st.data())
def test_a_label_out_of_range_is_refused(number, dtype, data):
    layer, _ = layers(number)
    labels = array_of(data.draw, (2, 2), dtype, inside)
    wrong = data.draw(outside)
    limits = np.iinfo(dtype)
    labels[1, 0] = min(max(wrong, limits.min), limits.max)
    hidden = np.ones((2, 2, WIDTH), "float32")
    known = 0 <= int(labels[1, 0]) < VOCABULARY
    if known:
        compressed_crossentropy(layer, hidden, labels)
        return
    with pytest.raises(ValueError, match="`labels` must be from 0 to 306"):
        compressed_crossentropy(layer, hidden, labels)
