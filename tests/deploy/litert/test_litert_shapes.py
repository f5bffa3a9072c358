"""Fixed sizes, recurrent layers and several signatures in a `.tflite` file."""

import keras
import numpy as np
import pytest

from keras_embcomp import LowRankEmbedding, TTEmbedding, export_litert

pytestmark = pytest.mark.tensorflow_only


def interpreter(path):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path))


def embedded(length=None, dtype="int32"):
    ids = keras.Input((length,), dtype=dtype, name="ids")
    words = TTEmbedding(2_000, 16, tt_ranks=4, mask_zero=True, name="words")
    return ids, words(ids)


def pooled(length=None):
    ids, words = embedded(length)
    classes = keras.layers.Dense(3, name="classes")
    pool = keras.layers.GlobalAveragePooling1D()
    return keras.Model(ids, classes(pool(words)))


@pytest.mark.parametrize(
    "batch, sequence, shape",
    [(None, None, [-1, -1]), (1, 64, [1, 64]), (2, None, [2, -1])],
)
def test_sizes_are_fixed_if_given(batch, sequence, shape, tmp_path):
    path = tmp_path / "model.tflite"
    written = export_litert(pooled(), path, batch=batch, sequence=sequence)
    (found,) = interpreter(path).get_input_details()
    assert list(found["shape_signature"]) == shape
    assert ("SHAPE" in written.operations) == (None in (batch, sequence))
    assert 0 < written.error < 1e-5
    assert written.latency_ms > 0


def test_a_size_that_the_model_has_may_be_given(tmp_path):
    model = pooled(length=7)
    written = export_litert(model, tmp_path / "a.tflite", batch=1, sequence=7)
    (found,) = interpreter(written.path).get_input_details()
    assert list(found["shape"]) == [1, 7]


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"batch": 0}, "`batch` must be a positive integer. Received: batch=0"),
        ({"sequence": 1.5}, "`sequence` must be a positive integer"),
        ({"sequence": 8}, "Received: sequence=8, and inputs of size 7"),
    ],
)
def test_sizes_that_the_model_cannot_have_are_refused(sizes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_litert(pooled(length=7), tmp_path / "model.tflite", **sizes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_ids_of_either_width_are_taken(dtype, tmp_path):
    model = keras.Model(*embedded(dtype=dtype))
    written = export_litert(model, tmp_path / "model.tflite")
    runner = interpreter(written.path).get_signature_runner()
    ids = np.array([[1, 1_999, 7]], dtype)
    (found,) = runner(ids=ids).values()
    np.testing.assert_allclose(found, model(ids), atol=1e-6)


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_a_recurrent_model_needs_a_fixed_batch(cell, tmp_path):
    ids, words = embedded()
    states = getattr(keras.layers, cell)(8, return_sequences=True)(words)
    model = keras.Model(ids, keras.layers.Dense(5)(states))
    with pytest.raises(ValueError, match="recurrent layer does unless `batch`"):
        export_litert(model, tmp_path / "model.tflite")
    written = export_litert(model, tmp_path / "model.tflite", batch=1)
    assert "WHILE" in written.operations


def test_signatures_share_their_weights(tmp_path):
    ids = keras.Input((None,), dtype="int32", name="ids")
    layer = LowRankEmbedding(5_000, 16, rank=8, name="words")
    words = layer(ids)
    hidden = keras.Input((16,), name="hidden")
    model = keras.Model(ids, keras.layers.GlobalAveragePooling1D()(words))
    embed = keras.Model(ids, words)
    scores = keras.Model(hidden, layer(hidden, reverse=True))
    alone = export_litert(model, tmp_path / "alone.tflite")
    written = export_litert(
        model,
        tmp_path / "model.tflite",
        signatures={"embed": embed, "scores": scores},
    )
    assert written.bytes < alone.bytes + 10_000 < 4 * layer.count_params() * 1.2
    file = interpreter(written.path)
    states = np.random.default_rng(0).normal(size=(2, 16)).astype("float32")
    found = file.get_signature_runner("scores")(hidden=states)
    np.testing.assert_allclose(found["words"], scores(states), atol=1e-5)
    tokens = np.array([[4, 4_999]], "int32")
    found = file.get_signature_runner("embed")(ids=tokens)
    np.testing.assert_allclose(found["words"], embed(tokens), atol=1e-6)


@pytest.mark.parametrize("name", ["serving_default", "not a name"])
def test_wrong_signatures_are_refused(name, tmp_path):
    model = pooled()
    for signatures in ({name: model}, {"embed": lambda ids: ids}):
        with pytest.raises(ValueError, match="`signatures` must map names"):
            export_litert(
                model, tmp_path / "model.tflite", signatures=signatures
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("table_format", ["float32", "int8"])
def test_cores_are_merged_for_many_ids_and_not_in_the_file(
    table_format, tmp_path
):
    layer = TTEmbedding(5_000, 64, tt_ranks=16)
    sizes, merged = [], []
    for count in (4, 4_096):
        ids = keras.Input((count,), dtype="int32", name="ids")
        written = export_litert(
            keras.Model(ids, layer(ids)),
            tmp_path / f"{count}.tflite",
            table_format,
            batch=1,
        )
        sizes.append(written.bytes)
        merged.append("TRANSPOSE" in written.operations)
    assert merged == [False, True]  # a merged core puts its rows together
    assert sizes[1] < sizes[0] + 4_000
