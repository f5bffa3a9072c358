"""Models as in Keras' tutorials: compress, fit, save, load, both exports."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from contract import assert_close
from keras import layers, ops

from keras_embcomp import (
    LowRankEmbedding,
    compress,
    export_litert,
    export_serving,
    to_keras,
)

WORDS, WIDTH, LENGTH, BATCH = 1_501, 16, 6, 3
pytestmark = pytest.mark.tensorflow_only


def ids(shape, size=WORDS):
    return np.random.default_rng(2).integers(1, size, shape).astype("int32")


def entry(name="ids", length=LENGTH):
    return keras.Input((length,), dtype="int32", name=name)


def text_classifier():
    texts = [f"word{i} word{i + 1}" for i in range(WORDS)]
    turned = layers.TextVectorization(output_sequence_length=LENGTH)
    turned.adapt(texts)
    text = keras.Input((), dtype="string", name="text")
    rows = layers.Embedding(turned.vocabulary_size(), WIDTH)(turned(text))
    pooled = layers.GlobalAveragePooling1D()(rows)
    model = keras.Model(text, layers.Dense(1, "sigmoid")(pooled))
    return model, {"text": np.array(["word3 word77", "word9", "other"])}


def bidirectional_tagger():
    given = entry()
    rows = layers.Embedding(WORDS, WIDTH, mask_zero=True)(given)
    states = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(rows)
    model = keras.Model(given, layers.Dense(5, "softmax")(states))
    return model, {"ids": ids((BATCH, LENGTH))}


def small_gpt():
    given = entry()
    words = layers.ReversibleEmbedding(WORDS, WIDTH, name="words")
    hidden = words(given)
    hidden += layers.MultiHeadAttention(2, 8)(
        hidden, hidden, use_causal_mask=True
    )
    hidden = layers.LayerNormalization()(hidden)
    model = keras.Model(given, words(hidden, reverse=True))
    return model, {"ids": ids((BATCH, LENGTH))}


def sequence_to_sequence():
    source, target = entry("source"), entry("target")
    _, *state = layers.LSTM(8, return_state=True, name="encoder")(
        layers.Embedding(WORDS, WIDTH, name="source_words")(source)
    )
    rows = layers.Embedding(WORDS + 7, WIDTH, name="target_words")(target)
    states = layers.LSTM(8, return_sequences=True, name="decoder")(
        rows, initial_state=state
    )
    outputs = layers.Dense(WORDS + 7, "softmax", name="head")(states)
    return keras.Model([source, target], outputs), {
        "source": ids((BATCH, LENGTH)),
        "target": ids((BATCH, LENGTH)),
    }


def siamese():
    given = entry()
    rows = layers.Embedding(WORDS, WIDTH)(given)
    pooled = layers.GlobalMaxPooling1D()(rows)
    tower = keras.Model(given, layers.Dense(8)(pooled), name="tower")
    left, right = entry("left"), entry("right")
    model = keras.Model(
        [left, right],
        layers.Dot(axes=-1, normalize=True)([tower(left), tower(right)]),
    )
    return model, {
        "left": ids((BATCH, LENGTH)),
        "right": ids((BATCH, LENGTH))[::-1].copy(),
    }


def wide_and_deep():
    sizes = {f"f{number}": 20 for number in range(8)}
    sizes |= {"f0": 1_000, "f1": 1_001, "f2": 1_002}
    given = {name: entry(name, 1) for name in sizes}
    rows = [
        layers.Flatten()(layers.Embedding(size, 8)(given[name]))
        for name, size in sizes.items()
    ]
    deep = layers.Dense(8, "relu")(layers.Concatenate()(rows))
    model = keras.Model(given, layers.Dense(1)(deep))
    return model, {n: ids((BATCH, 1), s) for n, s in sizes.items()}


def word_to_vector():
    target, context = entry("target", 1), entry("context", 5)
    model = keras.Model(
        [target, context],
        layers.Dot(axes=(2, 2))(
            [
                layers.Embedding(WORDS, WIDTH, name="target_words")(target),
                layers.Embedding(WORDS, WIDTH, name="context_words")(context),
            ]
        ),
    )
    return model, {"target": ids((BATCH, 1)), "context": ids((BATCH, 5))}


def several_outputs():
    given = entry()
    rows = layers.Flatten()(layers.Embedding(WORDS, WIDTH)(given))
    heads = {"stars": layers.Dense(1)(rows), "topic": layers.Dense(4)(rows)}
    return keras.Model(given, heads), {"ids": ids((BATCH, LENGTH))}


def deep_recommender():
    keras_rs = pytest.importorskip("keras_rs")
    numbers = keras.Input((4,), name="numbers")
    given = {name: entry(name, 1) for name in ("user", "item")}
    rows = [
        layers.Flatten()(layers.Embedding(WORDS, WIDTH, name=name + "s")(x))
        for name, x in given.items()
    ]
    rows.append(layers.Dense(WIDTH)(numbers))
    pairs = keras_rs.layers.DotInteraction()(rows)
    hidden = layers.Concatenate()([pairs, rows[-1]])
    model = keras.Model(
        [numbers, *given.values()], layers.Dense(1, "sigmoid")(hidden)
    )
    generator = np.random.default_rng(0)
    return model, {
        "numbers": generator.normal(size=(BATCH, 4)).astype("float32"),
        "user": ids((BATCH, 1)),
        "item": ids((BATCH, 1))[::-1].copy(),
    }


TUTORIALS = [
    text_classifier,
    bidirectional_tagger,
    small_gpt,
    sequence_to_sequence,
    siamese,
    wide_and_deep,
    word_to_vector,
    several_outputs,
    deep_recommender,
]


def outputs_of(model, inputs):
    import tensorflow as tf

    if len(inputs) == 1:
        (inputs,) = inputs.values()
    inputs = keras.tree.map_structure(tf.constant, inputs)
    return [ops.convert_to_numpy(x) for x in keras.tree.flatten(model(inputs))]


def assert_alike(found, expected, **limits):
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, **limits)


def compressed(make):
    model, inputs = make()
    return model, compress(model, ratio=4, method="low_rank"), inputs


@pytest.mark.parametrize("make", TUTORIALS, ids=lambda make: make.__name__)
def test_compress_fit_and_export(make, tmp_path):
    import tensorflow as tf

    model, small, inputs = compressed(make)
    assert type(small) is type(model)
    assert [x.name for x in small.layers] == [x.name for x in model.layers]
    expected = outputs_of(small, inputs)
    assert_alike(
        outputs_of(to_keras(small), inputs), expected, rtol=1e-4, atol=1e-5
    )
    data = {name: tf.constant(value) for name, value in inputs.items()}
    given = data if len(data) > 1 else next(iter(data.values()))
    targets = keras.tree.map_structure(tf.zeros_like, small(given))
    if not small.trainable_weights:  # all of it in 4 bits
        for layer in small.layers:
            if isinstance(layer, LowRankEmbedding):
                layer.enable_lora(2)
    small.compile("adam", "mse")
    small.fit(
        tf.data.Dataset.from_tensors((given, targets)),
        epochs=2,
        shuffle=False,
        verbose=0,
    )
    trained = outputs_of(small, inputs)
    assert not np.array_equal(trained[0], expected[0])
    folder = export_serving(small, tmp_path / "served", samples=inputs)
    answers = tf.saved_model.load(str(folder)).signatures["serving_default"](
        **data
    )
    assert_alike(
        [answers[name].numpy() for name in sorted(answers)],
        trained,
        rtol=1e-4,
        atol=1e-5,
    )
    if "text" in inputs:
        return  # LiteRT has no strings among its builtin operations
    found = export_litert(
        small, tmp_path / "m.tflite", batch=BATCH, samples=inputs
    )
    assert found.error < 0.05


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_inference_models_share_the_layers_of_the_copy(side):
    _, small, inputs = compressed(sequence_to_sequence)
    words = "source_words" if side == "encoder" else "target_words"
    name = "source" if side == "encoder" else "target"
    given = small.get_layer(name).output
    part = keras.Model(given, small.get_layer(words).output)
    expected = small.get_layer(words).to_dense()[inputs[name]]
    assert_close(part(inputs[name]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_all_load_in_a_fresh_process(tmp_path):
    for make in TUTORIALS:
        _, small, inputs = compressed(make)
        small.save(tmp_path / f"{make.__name__}.keras")
        np.savez(tmp_path / f"{make.__name__}.in.npz", **inputs)
        outputs = outputs_of(small, inputs)
        np.savez(tmp_path / f"{make.__name__}.out.npz", *outputs)
    code = f"""
import keras, keras_embcomp, keras_rs, numpy as np, tensorflow as tf
from pathlib import Path
for path in sorted(Path({str(tmp_path)!r}).glob("*.keras")):
    model = keras.saving.load_model(path)
    data = dict(np.load(path.with_suffix(".in.npz")))
    data = {{name: tf.constant(value) for name, value in data.items()}}
    found = model(data if len(data) > 1 else data.popitem()[1])
    expected = np.load(path.with_suffix(".out.npz"))
    for i, one in enumerate(keras.tree.flatten(found)):
        assert np.array_equal(one, expected[f"arr_{{i}}"]), path
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=500)
