"""TensorFlow Serving's protocol, gRPC and REST, against our stand-in for it."""

import json
import time
import urllib.error
import urllib.request

import grpc
import keras
import numpy as np
import pytest
import stand_in_server
import tensorflow as tf
from stand_in_models import Model
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_embcomp import TTEmbedding, export_serving

pytestmark = pytest.mark.tensorflow_only
IDS = np.array([[1, 2, 49, 0], [7, 8, 9, 10]], "int32")
TEXTS = ["a good film", "naïve 東京"]


def classifier():
    ids = keras.Input((4,), dtype="int32", name="ids")
    x = TTEmbedding(50, 16, tt_ranks=2, name="words")(ids)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(ids, keras.layers.Dense(3, name="classes")(x))


class Served:
    """A model, and clients of a server of it."""

    def __init__(self, model, texts, folder, ports):
        self.model, self.texts, self.folder = model, texts, folder
        self.rest_port = ports[1]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{ports[0]}")
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(
            self.channel
        )
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, name="words", signature="", version=None, **inputs):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        return self.predictions.Predict(request, timeout=60)

    def rest(self, path, body=None):
        """Returns the code and the JSON of an answer."""
        body = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.rest_port}/v1/models/{path}"
        try:
            with urllib.request.urlopen(url, body, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    model = classifier()
    texts = keras.layers.TextVectorization(output_sequence_length=4)
    texts.adapt(TEXTS)

    vocabulary = texts.get_vocabulary()

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.int32, "ids")])
    def embed(ids):
        rows = model.get_layer("words")(ids)
        words = tf.gather(tf.constant(vocabulary), ids % 4)
        return {"rows": rows, "words": words, "words_bytes": words}

    folder = tmp_path_factory.mktemp("served") / "words"
    export_serving(model, folder, preprocess=texts, signatures={"embed": embed})
    with stand_in_server.serving(folder) as (running, *ports):
        assert running.of().warmed_up == 6
        client = Served(model, texts, folder, ports)
        yield client
        client.channel.close()


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_predicts_over_grpc(served):
    expected = served.model(IDS)
    for dtype in ("int32", "int64"):
        answer = served.predict(
            signature=f"serving_default_{dtype}", ids=IDS.astype(dtype)
        )
        close(tf.make_ndarray(answer.outputs["classes"]), expected)
        assert answer.model_spec.name == "words"
        assert answer.model_spec.version.value == 1
    answer = served.predict(text=np.array(TEXTS))
    close(
        tf.make_ndarray(answer.outputs["classes"]),
        served.model(served.texts(np.array(TEXTS))),
    )
    assert answer.model_spec.signature_name == "serving_default"
    answer = served.predict(signature="embed", version=1, ids=IDS)
    rows = served.model.get_layer("words")(IDS)
    close(tf.make_ndarray(answer.outputs["rows"]), rows)


@pytest.mark.parametrize(
    "request_, code",
    [
        ({"ids": IDS, "name": "other"}, "NOT_FOUND"),
        ({"text": np.array(TEXTS), "version": 2}, "NOT_FOUND"),
        ({"signature": "other", "ids": IDS}, "INVALID_ARGUMENT"),
        ({"ids": IDS}, "INVALID_ARGUMENT"),
        (
            {"signature": "serving_default_int64", "ids": IDS},
            "INVALID_ARGUMENT",
        ),
        (
            {"signature": "serving_default_int32", "ids": IDS + 50},
            "INVALID_ARGUMENT",
        ),
    ],
)
def test_wrong_requests_are_refused_over_grpc(served, request_, code):
    with pytest.raises(grpc.RpcError) as error:
        served.predict(**request_)
    assert error.value.code().name == code


def test_tells_its_signatures_and_state(served):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "words"
    request.metadata_field.append("signature_def")
    answer = served.predictions.GetModelMetadata(request, timeout=60)
    found = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(found)
    assert set(found.signature_def) == {
        "serving_default",
        "serving_default_int32",
        "serving_default_int64",
        "embed",
    }
    entry = found.signature_def["serving_default_int64"].inputs["ids"]
    assert tf.dtypes.as_dtype(entry.dtype) == tf.int64
    assert [size.size for size in entry.tensor_shape.dim] == [-1, 4]
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "words"
    (state,) = served.models.GetModelStatus(
        status, timeout=60
    ).model_version_status
    assert (state.version, state.state) == (1, state.AVAILABLE)
    code, answer = served.rest("words")
    assert code == 200
    (state,) = answer["model_version_status"]
    assert (state["version"], state["state"]) == ("1", "AVAILABLE")
    code, answer = served.rest("words/versions/1/metadata")
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures["embed"]["inputs"]["ids"]["dtype"] == "DT_INT32"


def test_predicts_over_rest_in_rows_and_columns(served):
    expected = served.model(IDS)
    name = {"signature_name": "serving_default_int32"}
    for path in ("words:predict", "words/versions/1:predict"):
        for rows in (IDS.tolist(), [{"ids": row} for row in IDS.tolist()]):
            code, found = served.rest(path, {**name, "instances": rows})
            assert code == 200
            close(found["predictions"], expected)
        for columns in (IDS.tolist(), {"ids": IDS.tolist()}):
            code, found = served.rest(path, {**name, "inputs": columns})
            assert code == 200
            close(found["outputs"], expected)


def test_takes_and_gives_text_over_rest(served):
    expected = served.model(served.texts(np.array(TEXTS)))
    coded = {"b64": "bmHDr3ZlIOadseS6rA=="}
    for texts in (TEXTS, [TEXTS[0], coded]):
        _, found = served.rest("words:predict", {"instances": texts})
        close(found["predictions"], expected)
        _, found = served.rest("words:predict", {"inputs": {"text": texts}})
        close(found["outputs"], expected)
    body = {"signature_name": "embed", "instances": [{"ids": [0, 1, 2, 3]}]}
    _, found = served.rest("words:predict", body)
    (row,) = found["predictions"]
    assert row["words"] == served.texts.get_vocabulary()[:4]
    assert row["words_bytes"][1] == {"b64": "W1VOS10="}


@pytest.mark.parametrize(
    "path, body, code",
    [
        ("other:predict", {"instances": TEXTS}, 404),
        ("words/versions/2:predict", {"instances": TEXTS}, 404),
        ("words/versions/2", None, 404),
        ("words:classify", {"instances": TEXTS}, 400),
        ("words:predict", {}, 400),
        ("words:predict", {"instances": TEXTS, "inputs": TEXTS}, 400),
        ("words:predict", {"inputs": {"ids": TEXTS}}, 400),
        ("words:predict", {"instances": TEXTS, "signature_name": "x"}, 400),
    ]
    + [
        (
            "words:predict",
            {"instances": ids, "signature_name": "serving_default_int32"},
            400,
        )
        for ids in (
            [[1, 2, 3, 50]],
            [[1, 2, 3, 2**40]],
            [[1, 2, 3, 0.5]],
            [[1, 2], [3]],
        )
    ],
)
def test_wrong_requests_are_refused_over_rest(served, path, body, code):
    found, answer = served.rest(path, body)
    assert found == code
    assert answer["error"]


def test_the_stand_in_runs_as_a_command(served, monkeypatch, capsys):
    arguments = [str(served.folder), "--grpc-port", "0", "--rest-port", "0"]
    monkeypatch.setattr(
        "sys.argv", ["stand_in_server.py", *arguments, "--seconds", "0.01"]
    )
    stand_in_server.main()
    assert capsys.readouterr().out.startswith("version 1 on ports [")


def test_a_server_that_watches_never_sees_half_a_version(tmp_path):
    model, folder = classifier(), tmp_path / "words"
    export_serving(model, folder)
    watching = Model(folder, seconds=0.001)
    try:
        for number in (2, 3):
            export_serving(model, folder)
            for _ in range(10_000):  # a busy machine takes long
                if watching.version.number == number:
                    break
                time.sleep(0.01)
            assert watching.version.number == number
        assert watching.ended == [1, 2]
        assert watching.failures == []
    finally:
        watching.close()
