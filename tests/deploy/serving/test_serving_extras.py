"""What lies beside a SavedModel: warm-up requests and the card."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow_serving.apis import prediction_log_pb2

import keras_embcomp
from keras_embcomp.deploy.serving.extras import prediction_log

pytestmark = [
    pytest.mark.tensorflow_only,
    # Keras' `model.quantize` says so of each layer that has no weights.
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not"),
]


class _Folded(tf.Module):
    """Text to ids with an operation of TensorFlow Text."""

    def __call__(self, text):
        codes = tf.strings.unicode_decode(tf_text.case_fold_utf8(text), "UTF-8")
        return (codes % 40).to_tensor(shape=(None, 4))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    ids = keras.Input((4,), dtype="int32", name="ids")
    words = keras_embcomp.LowRankEmbedding(50, 16, 8, name="words")
    x = keras.layers.GlobalAveragePooling1D()(words(ids))
    model = keras.Model(ids, keras.layers.Dense(3, name="classes")(x))
    model.quantize("int8", filters="words")
    folder = tmp_path_factory.mktemp("served") / "words"
    return model, keras_embcomp.export_serving(
        model, folder, preprocess=_Folded()
    )


def test_a_request_by_hand_is_that_of_the_protocol():
    inputs = {
        "ids": np.arange(300, dtype="int64").reshape(3, 100),
        "text": np.array(["", "naïve 東京"]),
        "x": np.zeros((0, 2), "float32"),
    }
    expected = prediction_log_pb2.PredictionLog()
    request = expected.predict_log.request
    request.model_spec.name = "a" * 200
    request.model_spec.signature_name = "embed"
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    found = prediction_log_pb2.PredictionLog.FromString(
        prediction_log("a" * 200, "embed", inputs)
    )
    assert found == expected


def test_warms_up_every_signature_with_what_it_takes(exported):
    _, folder = exported
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    signatures = tf.saved_model.load(str(folder)).signatures
    asked = set()
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name == "words"
        name = request.model_spec.signature_name
        outputs = signatures[name](
            **{
                key: tf.constant(tf.make_ndarray(value))
                for key, value in request.inputs.items()
            }
        )
        assert np.isfinite(outputs["classes"]).all()
        asked.add(name)
    assert asked == set(signatures)
    assert len(asked) == 3


def test_the_card_tells_what_was_exported(exported):
    model, folder = exported
    card = json.loads((folder / "assets.extra/keras_embcomp.json").read_text())
    ids = {"dtype": "int64", "shape": [None, 4]}
    assert card["signatures"]["serving_default_int64"] == {
        "inputs": {"ids": ids},
        "outputs": {"classes": {"dtype": "float32", "shape": [None, 3]}},
    }
    text = card["signatures"]["serving_default"]["inputs"]["text"]
    assert text == {"dtype": "string", "shape": [None]}
    words = model.get_layer("words")
    weights = sum(weight.nbytes for weight in words.get_weights())
    assert card["compressed_layers"] == [
        {
            "name": "words",
            "class": "LowRankEmbedding",
            "table": [50, 16],
            "format": "int8",
            "bytes": weights,
            "dense_bytes": 4 * 50 * 16,
            "compression_ratio": round(4 * 50 * 16 / weights, 2),
        }
    ]
    assert card["bytes_of_variables"] == weights + 4 * (16 * 3 + 3)
    files = card["bytes_of_files"]
    assert "variables/variables.index" in files
    for name, size in files.items():
        assert (folder / name).stat().st_size == size
    assert card["operations_of_other_packages"] == ["CaseFoldUTF8"]
    assert card["packages"]["tensorflow"] == tf.__version__
    assert card["packages"]["keras_embcomp"] == keras_embcomp.__version__
