"""Exports follow the model: its positions, keys, strings and samples."""

import keras
import numpy as np
import pytest
from contract import assert_close
from hub_models import small_gpt2
from keras import layers, ops

from keras_embcomp import (
    CrossentropyHead,
    LowRankEmbedding,
    compress,
    export_litert,
    export_serving,
)

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tensorflow_only
WORDS, WIDTH = 1_203, 8


def numbers(outputs):
    return ops.convert_to_numpy(outputs)


def lite(path, name="serving_default"):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path)).get_signature_runner(name)


def served(folder, name="serving_default"):
    loaded = tf.saved_model.load(str(folder))
    return lambda **inputs: loaded.signatures[name](
        **{key: tf.constant(value) for key, value in inputs.items()}
    )


@keras.saving.register_keras_serializable(package="tests")
class Positions(layers.Layer):
    """Adds learned positions; more steps than it has are an error."""

    def __init__(self, count, **kwargs):
        super().__init__(**kwargs)
        self.count = count
        self.table = layers.Embedding(count, WIDTH)

    def call(self, hidden):
        steps = ops.cumsum(ops.ones_like(hidden[0, :, 0], dtype="int32")) - 1
        return hidden + self.table(steps)

    def get_config(self):
        return {**super().get_config(), "count": self.count}


def with_positions(count):
    entry = keras.Input((None,), dtype="int32", name="ids")
    hidden = Positions(count)(layers.Embedding(WORDS, WIDTH)(entry))
    model = keras.Model(entry, layers.GlobalAveragePooling1D()(hidden))
    return compress(model, ratio=2, method="low_rank")


@pytest.mark.parametrize("count", [3, 16])
def test_samples_are_within_the_positions(count, tmp_path):
    model = with_positions(count)
    export_litert(model, tmp_path / "model.tflite")
    folder = export_serving(model, tmp_path / "served")
    ids = np.arange(count, dtype="int32")[None]
    expected = numbers(model(ids))
    for run in (lite(tmp_path / "model.tflite"), served(folder)):
        (found,) = run(ids=ids).values()
        assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_samples_of_a_user(tmp_path):
    """Features that share a table: the second begins where the first ends."""
    entry = keras.Input((3,), dtype="int32", name="ids")
    offsets = np.array([0, WORDS - 3, 0], "int32")
    rows = layers.Embedding(WORDS, WIDTH)(entry + offsets)
    model = compress(
        keras.Model(entry, layers.Flatten()(rows)), ratio=2, method="low_rank"
    )
    for export in (export_litert, export_serving):
        with pytest.raises(ValueError, match="`samples` must be given"):
            export(model, tmp_path / "refused")
    assert not list(tmp_path.glob("refused*"))
    ids = np.array([[700, 2, 1], [WORDS - 1, 0, 9]], "int32")
    export_litert(model, tmp_path / "model.tflite", samples=ids, batch=2)
    folder = export_serving(model, tmp_path / "served", samples={"ids": ids})
    expected = numbers(model(ids))
    for run in (lite(tmp_path / "model.tflite"), served(folder)):
        (found,) = run(ids=ids).values()
        assert_close(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="`samples` must have the names"):
        export_serving(model, tmp_path / "served", samples={"x": ids})


def test_keys_of_a_dictionary_are_the_names(tmp_path):
    entry = keras.Input((4,), dtype="int32", name="ids")
    rows = layers.Flatten()(layers.Embedding(WORDS, WIDTH)(entry))
    heads = {"topic": layers.Dense(3)(rows), "about": layers.Dense(2)(rows)}
    model = keras.Model(entry, heads)
    ids = np.arange(8, dtype="int32").reshape(2, 4)
    expected = model(ids)
    export_litert(model, tmp_path / "model.tflite", batch=2)
    folder = export_serving(model, tmp_path / "served")
    for run in (lite(tmp_path / "model.tflite"), served(folder)):
        found = run(ids=ids)
        assert set(found) == {"topic", "about"}
        for name, value in found.items():
            assert_close(value, numbers(expected[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["TextVectorization", "StringLookup"])
def test_strings_inside_the_model_are_served(kind, tmp_path):
    words = [f"w{number}" for number in range(WORDS)]
    entry = keras.Input((), dtype="string", name="text")
    if kind == "TextVectorization":
        lookup = layers.TextVectorization(
            vocabulary=words, output_sequence_length=4
        )
    else:
        lookup = layers.StringLookup(vocabulary=words)
    table = layers.Embedding(lookup.vocabulary_size(), WIDTH)
    model = keras.Model(entry, layers.Dense(2)(table(lookup(entry))))
    small = compress(model, ratio=2, method="low_rank")
    folder = export_serving(small, tmp_path / "served")
    texts = np.array(["w3 w1200 other", "w7"])
    (found,) = served(folder)(text=texts).values()
    assert_close(found, numbers(small(tf.constant(texts))), rtol=1e-5)


def test_fixed_sizes_are_served(tmp_path):
    entry = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(entry, LowRankEmbedding(WORDS, WIDTH, 2)(entry))
    folder = export_serving(model, tmp_path / "served", batch=2, sequence=5)
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    assert specs["ids"].shape == (2, 5)
    with pytest.raises(ValueError, match="`sequence` must be a positive"):
        export_serving(model, tmp_path / "served", sequence=0)


@pytest.mark.parametrize("tied", [False, True])
def test_a_training_model_is_not_served(tied, tmp_path):
    entry = keras.Input((4,), dtype="int32", name="ids")
    words = LowRankEmbedding(WORDS, WIDTH, 2, name="words")
    states = layers.Dense(WIDTH)(words(entry))
    head = words
    if not tied:
        from keras_embcomp import LowRankSoftmax

        head = LowRankSoftmax(WORDS, 2)
    end = CrossentropyHead(head, name="end")
    model = keras.Model(entry, end(states))
    for export in (export_litert, export_serving):
        with pytest.raises(ValueError, match="'end'.*predictor"):
            export(model, tmp_path / "model")
    model.save(tmp_path / "training.keras")
    loaded = keras.saving.load_model(tmp_path / "training.keras")
    predictor = loaded.get_layer("end").predictor(loaded)
    ids = np.arange(8, dtype="int32").reshape(2, 4)
    hidden = model(ids)
    expected = head(hidden, reverse=True) if tied else head(hidden)
    found = predictor(ids)
    assert_close(numbers(found), numbers(expected), rtol=1e-5, atol=1e-6)
    folder = export_serving(predictor, tmp_path / "served")
    (answer,) = served(folder)(ids=ids).values()
    assert_close(answer, numbers(expected), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="must have one output"):
        end.predictor(predictor)


def test_a_signature_that_fails_is_named(tmp_path):
    entry = keras.Input((4,), dtype="int32", name="ids")
    layer = LowRankEmbedding(WORDS, WIDTH, 2)
    model = keras.Model(entry, layer(entry))

    @tf.function(input_signature=[tf.TensorSpec((None,), "int32", "one")])
    def before(one):
        return {"rows": layer(one - 1)}

    def export(**options):
        options["signatures"] = {"before": before}
        return export_serving(model, tmp_path / "served", **options)

    with pytest.raises(ValueError, match="'before', which fails on one of"):
        export()
    assert not (tmp_path / "served").exists()


def test_an_operation_that_litert_lacks_is_named(tmp_path):
    entry = keras.Input((6,), dtype="int32", name="ids")
    rows = layers.Embedding(WORDS, WIDTH)(entry)
    model = keras.Model(entry, ops.erfinv(ops.tanh(rows) / 2))
    with pytest.raises(ValueError, match="that needs Erfinv") as refusal:
        export_litert(model, tmp_path / "model.tflite")
    assert len(str(refusal.value)) < 700


def test_a_causal_model_of_keras_hub(tmp_path):
    model = small_gpt2(WORDS, WIDTH, positions=12)
    small = compress(model, ratio=4, method="low_rank")
    export_litert(small, tmp_path / "m.tflite", batch=1, sequence=8)
    folder = export_serving(small, tmp_path / "served")
    inputs = {
        "token_ids": np.arange(8, dtype="int32")[None],
        "padding_mask": np.ones((1, 8), "int32"),
    }
    expected = numbers(small(inputs))
    # The file rounds hidden states to 8 bits for the product with integers.
    limits = (0.05 * np.abs(expected).max(), 1e-5)
    runs = (lite(tmp_path / "m.tflite"), served(folder))
    for run, limit in zip(runs, limits, strict=True):
        (found,) = run(**inputs).values()
        assert_close(found, expected, rtol=1e-4, atol=limit)
