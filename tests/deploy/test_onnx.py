"""ONNX Runtime reads what `model.export(format="onnx")` of Keras writes."""

import keras
import numpy as np
import onnxruntime
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH

pytestmark = [
    pytest.mark.tensorflow_only,
    # Keras' `model.quantize` says so of each layer that has no weights.
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not"),
    # tf2onnx asks NumPy 2 for a name that it no longer has.
    pytest.mark.filterwarnings("ignore:In the future `np.object`"),
]


def session_of(model, path, inputs):
    """Returns a function that runs the model's ONNX file."""
    model(inputs)  # Keras exports models that were called
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    (entry,) = session.get_inputs()
    return lambda inputs: session.run(None, {entry.name: inputs})[0]


def embedding_model(case):
    ids = keras.Input((None,), dtype="int32", name="ids")
    layer = case.layer(VOCABULARY, WIDTH, **case.structure)
    return keras.Model(ids, layer(ids)), layer


@pytest.mark.parametrize("case", EMBEDDINGS, ids=str)
def test_rows_equal_those_of_keras_and_wrong_ids_are_refused(case, tmp_path):
    model, layer = embedding_model(case)
    ids = np.arange(VOCABULARY, dtype="int32").reshape(1, -1)
    run = session_of(model, str(tmp_path / "model.onnx"), ids[:, :3])
    table = layer.to_dense()
    np.testing.assert_allclose(run(ids)[0], table, rtol=1e-5, atol=1e-7)
    # Ids from -1 on count from the end, as in `keras.layers.Embedding`.
    from_the_end = run(ids - VOCABULARY)[0]
    np.testing.assert_allclose(from_the_end, table, rtol=1e-5, atol=1e-7)
    for wrong in (
        -VOCABULARY - 1,
        -2 * VOCABULARY,
        -(2**31),
        VOCABULARY,
        VOCABULARY + 30,
        2**31 - 1,
    ):
        with pytest.raises(Exception, match="out of (data )?bounds"):
            run(np.array([[1, wrong]], "int32"))


@pytest.mark.parametrize("case", EMBEDDINGS, ids=str)
def test_rows_of_four_bits_equal_those_of_keras(case, tmp_path):
    model, layer = embedding_model(case)
    model.quantize("int4")
    ids = np.arange(VOCABULARY, dtype="int32").reshape(1, -1)
    run = session_of(model, str(tmp_path / "model.onnx"), ids[:, :3])
    np.testing.assert_allclose(run(ids)[0], layer.to_dense(), atol=1e-6)


@pytest.mark.parametrize("case", SOFTMAXES, ids=str)
def test_probabilities_equal_those_of_keras(case, tmp_path, generator):
    hidden = keras.Input((WIDTH,), name="hidden")
    layer = case.layer(VOCABULARY, **case.structure)
    model = keras.Model(hidden, layer(hidden))
    x = generator.normal(size=(5, WIDTH)).astype("float32")
    run = session_of(model, str(tmp_path / "model.onnx"), x)
    np.testing.assert_allclose(run(x), model(x), rtol=1e-5, atol=1e-7)
