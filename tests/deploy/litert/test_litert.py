import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_embcomp import LowRankEmbedding, export_litert, files
from keras_embcomp.deploy import verify
from keras_embcomp.deploy.litert import compare

pytestmark = pytest.mark.tensorflow_only


def classifier(
    length=None, vocabulary=50, embedding=LowRankEmbedding, **kwargs
):
    ids = keras.Input((length,), dtype="int32", name="ids")
    x = embedding(vocabulary, 8, mask_zero=True, name="words", **kwargs)(ids)
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = keras.layers.Dense(3, activation="softmax", name="classes")(x)
    return keras.Model(ids, x)


def test_the_file_runs_with_named_inputs_and_outputs(tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model = classifier(rank=3)
    written = export_litert(model, tmp_path / "model.tflite")
    assert written.bytes == written.path.stat().st_size
    interpreter = Interpreter(model_path=str(written.path))
    runner = interpreter.get_signature_runner("serving_default")
    ids = np.array([[4, 49, 0, 0], [1, 2, 3, 0]], "int32")
    found = runner(ids=ids)
    np.testing.assert_allclose(found["classes"], model(ids), atol=1e-6)


def test_the_file_is_as_small_as_the_layer(tmp_path):
    small = classifier(vocabulary=20_000, rank=1)
    dense = classifier(vocabulary=20_000, embedding=keras.layers.Embedding)
    small = export_litert(small, tmp_path / "small.tflite").bytes
    dense = export_litert(dense, tmp_path / "dense.tflite").bytes
    assert 4 * 20_000 * 8 < dense < 4 * 20_000 * 8 + 20_000
    assert 4 * 20_000 < small < 4 * 20_000 + 20_000


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_sequential_model_is_exported(tmp_path, dtype):
    model = keras.Sequential(
        [
            keras.Input((3,), dtype=dtype),
            LowRankEmbedding(50, 8, 2, mask_zero=True),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    assert export_litert(model, tmp_path / "m.tflite").max_difference < 1e-6


def test_inputs_and_outputs_may_be_dicts_and_share_a_layer(tmp_path):
    right = keras.Input((3,), name="right")
    left = keras.Input((3,), name="left")
    shared = keras.layers.Dense(2, name="shared")
    outputs = {"b": shared(right), "a": shared(left)}
    model = keras.Model({"right": right, "left": left}, outputs)
    assert verify.output_names(model) == ["a", "b"]
    assert export_litert(model, tmp_path / "m.tflite").max_difference < 1e-6


def test_a_flat_distribution_is_not_taken_for_another():
    flat = np.random.default_rng(0).dirichlet(np.ones(30_000), 1)
    with pytest.raises(RuntimeError, match="differs from the Keras model"):
        verify.largest_difference([flat], [flat[:, ::-1]])


def test_an_operation_that_is_not_builtin_is_refused(tmp_path):
    ids = keras.Input((4,), dtype="int32")
    spectrum = keras.layers.Lambda(
        lambda x: tf.math.real(tf.signal.ifft(tf.cast(x, "complex64")))
    )
    model = keras.Model(ids, spectrum(ids))
    with pytest.raises(
        ValueError, match="only. Received: a model that needs IFFT"
    ):
        export_litert(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_no_activation_is_lost(activation, tmp_path):
    # The converter of TensorFlow 2.21 drops them after a product of two
    # matrices of which neither is constant.
    left = keras.Input(batch_shape=(6, 6), name="left")
    ids = keras.Input(batch_shape=(6, 6), dtype="int32", name="ids")
    function = getattr(tf.nn, activation)
    product = keras.layers.Lambda(
        lambda x: function(tf.matmul(x[0], tf.cast(x[1], "float32")))
    )
    model = keras.Model([left, ids], product([left, ids]))
    written = export_litert(model, tmp_path / "model.tflite")
    assert activation.upper() in written.operations


def test_a_converter_that_changes_the_numbers_is_found_out(
    tmp_path, monkeypatch
):
    model = classifier(rank=3)
    monkeypatch.setattr(
        compare, "predictions", lambda *_: [np.full((1, 3), 2.0)]
    )
    with pytest.raises(RuntimeError, match="differs from the Keras model"):
        export_litert(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("parent", ["missing", "file", "."])
def test_a_folder_that_cannot_hold_the_file_is_refused(tmp_path, parent):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(
        ValueError, match="`path` must be a file in a folder that"
    ):
        name = "" if parent == "." else "model.tflite"
        export_litert(classifier(rank=3), tmp_path / parent / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_to_is_refused():
    with pytest.raises(ValueError, match="exists and can be written to"):
        export_litert(classifier(rank=3), "/proc/model.tflite")


def test_a_subclassed_model_is_refused(tmp_path):
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="Functional or Sequential"):
        export_litert(Subclassed(), tmp_path / "model.tflite")


def test_nothing_is_left_when_writing_stops_halfway(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with files.written_whole(tmp_path / "model") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
