"""A SavedModel of every layer, read without Keras: in C, and by OpenVINO."""

import json
import shutil

import keras
import numpy as np
import openvino
import pytest
from c_client import compile_client, run_client
from cases import EMBEDDINGS, SOFTMAXES
from random_layers import expected_of, inputs_of, made, model_of

from keras_embcomp import HashedEmbedding, HashedSoftmax, export_serving

BOTH = pytest.mark.parametrize("case", [*EMBEDDINGS, *SOFTMAXES], ids=str)
pytestmark = [
    pytest.mark.tensorflow_only,
    # Keras' `model.quantize` says so of each layer that has no weights.
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    return compile_client(tmp_path_factory.mktemp("c"))


def bytes_of(folder):
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


@BOTH
def test_c_and_openvino_read_every_layer(case, program, tmp_path):
    layer = made(case)
    model = model_of(case, layer)
    folder = export_serving(model, tmp_path / "model")
    weights = sum(weight.nbytes for weight in layer.get_weights())
    assert weights < bytes_of(folder) < weights + 100_000
    card = json.loads((folder / "assets.extra/keras_embcomp.json").read_text())
    assert card["bytes_of_variables"] == weights
    assert card["operations_of_other_packages"] == []
    inputs, expected = inputs_of(case), expected_of(case, layer)
    found, told = run_client(program, folder, inputs)
    np.testing.assert_allclose(
        found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5
    )
    assert told["tensorflow"].startswith("2.21.")
    if isinstance(layer, (HashedEmbedding, HashedSoftmax)):
        return  # OpenVINO takes the remainder of integers in float32
    read = openvino.compile_model(
        str(folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = read(inputs)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", EMBEDDINGS, ids=str)
def test_c_reads_four_bits(case, program, tmp_path):
    layer = made(case)
    model = model_of(case, layer)
    model.quantize("int4")
    folder = export_serving(model, tmp_path / "model")
    weights = sum(weight.nbytes for weight in layer.get_weights())
    assert weights < bytes_of(folder) < weights + 100_000
    found, _ = run_client(program, folder, inputs_of(case))
    expected = expected_of(case, layer)
    np.testing.assert_allclose(
        found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5
    )


def test_c_gets_the_same_for_ids_of_64_bits_and_no_row_for_wrong_ones(
    program, tmp_path
):
    case = EMBEDDINGS[1]
    layer = made(case)
    folder = export_serving(model_of(case, layer), tmp_path / "model")
    ids = np.array([[0, 256, 306]])
    found, _ = run_client(program, folder, ids, "serving_default_int64")
    np.testing.assert_allclose(
        found.reshape(3, -1), layer.to_dense()[ids[0]], rtol=1e-5, atol=1e-7
    )
    for wrong in (-1, 307, 2**32 + 5, -(2**32) + 5):
        ids[0, 2] = wrong
        with pytest.raises(RuntimeError, match="is not in"):
            run_client(program, folder, ids, "serving_default_int64")


def test_a_model_without_a_compressed_layer_is_read(program, tmp_path):
    model = keras.Sequential(
        [keras.Input((4,), name="x"), keras.layers.Dense(3)]
    )
    folder = export_serving(model, tmp_path / "model")
    x = np.ones((2, 4), "float32")
    found, _ = run_client(program, folder, x)
    np.testing.assert_allclose(found.reshape(2, 3), model(x), rtol=1e-5)
