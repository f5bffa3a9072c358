"""`export_onnx`: values, bytes and memory of the files, and refusals."""

import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from contract import assert_close
from hub_models import small_gpt2
from keras import layers, ops

from keras_embcomp import (
    HashedEmbedding,
    LowRankEmbedding,
    LowRankSoftmax,
    ProductQuantizedEmbedding,
    TTEmbedding,
    cli,
    export_onnx,
)

pytestmark = [
    pytest.mark.tensorflow_only,
    # Keras' `model.quantize` says so of each layer that has no weights.
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not"),
]
WORDS = 1_203  # enough rows for products of 8 bits
FORMATS = (None, "int8", "int4")


def session_of(path):
    """Returns a function from the inputs of a file to its outputs."""
    session = onnxruntime.InferenceSession(str(path))
    return lambda **inputs: session.run(None, inputs)


def in_memory(path, tmp_path):
    """Returns the bytes of what a session holds after its optimizations."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options)
    return stored(tmp_path / "optimized.onnx")


def stored(path):
    found = onnx.load(path).graph.initializer
    return sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in found)


def lookup_model(layer):
    ids = keras.Input((None,), dtype="int32", name="ids")
    return keras.Model(ids, layer(ids))


def head_model(layer, width=WIDTH):
    hidden = keras.Input((width,), name="hidden")
    return keras.Model(hidden, layer(hidden))


def tied_model(layer):
    ids = keras.Input((None,), dtype="int32", name="ids")
    return keras.Model(ids, layer(layer(ids), reverse=True))


def quantized(layer, mode):
    if mode is not None:
        layer.quantize(mode)
    return layer


@pytest.mark.parametrize("table_format", [None, "int4"])
@pytest.mark.parametrize("case", EMBEDDINGS, ids=str)
def test_rows_equal_those_of_the_rounded_layer(case, table_format, tmp_path):
    layer = case.layer(VOCABULARY, WIDTH, **case.structure)
    model = lookup_model(layer)
    export_onnx(model, tmp_path / "model.onnx", table_format)
    table = quantized(layer, table_format).to_dense()
    run = session_of(tmp_path / "model.onnx")
    ids = np.arange(VOCABULARY, dtype="int32").reshape(1, -1)
    # Exports fold a ReLU of distilled rows, and round what comes of it.
    limit = 1e-6 if table_format is None else 1e-3
    assert_close(run(ids=ids)[0][0], table, rtol=1e-5, atol=limit)
    # Ids from -1 on count from the end, as in `keras.layers.Embedding`.
    from_the_end = run(ids=ids - VOCABULARY)[0][0]
    assert_close(from_the_end, table, rtol=1e-5, atol=limit)
    for wrong in (-VOCABULARY - 1, -(2**31), VOCABULARY, 2**31 - 1):
        with pytest.raises(Exception, match="out of (data )?bounds"):
            run(ids=np.array([[1, wrong]], "int32"))


@pytest.mark.parametrize("table_format", [None, "int4"])
@pytest.mark.parametrize("case", SOFTMAXES, ids=str)
def test_probabilities_equal_those_of_the_rounded_layer(
    case, table_format, tmp_path, generator
):
    layer = case.layer(VOCABULARY, **case.structure)
    model = head_model(layer)
    export_onnx(model, tmp_path / "model.onnx", table_format)
    quantized(layer, table_format)
    x = generator.normal(size=(5, WIDTH)).astype("float32")
    (found,) = session_of(tmp_path / "model.onnx")(hidden=x)
    assert_close(found, ops.convert_to_numpy(layer(x)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("width", [16, 31, 300])
@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("tied", [False, True], ids=["head", "tied"])
def test_logits_of_integers_equal_products_with_the_rounded_table(
    tied, mode, width, tmp_path, generator
):
    layer = LowRankEmbedding(WORDS, width, width, name="words")
    if not tied:
        layer = LowRankSoftmax(WORDS, width, activation=None)
    entry = keras.Input((None, width), name="hidden")
    options = {"reverse": True} if tied else {}
    model = keras.Model(entry, layer(entry, **options))
    written = export_onnx(model, tmp_path / "model.onnx", mode)
    assert "MatMulNBits" in written.operations
    layer.quantize(mode)
    x = generator.normal(size=(2, 3, width)).astype("float32")
    expected = x @ layer.to_dense().T
    (found,) = session_of(tmp_path / "model.onnx")(hidden=x)
    # The file rounds hidden states to 8 bits.
    assert_close(found, expected, rtol=0, atol=0.02 * np.abs(expected).max())


TABLES = {
    "dense": lambda: layers.ReversibleEmbedding(WORDS, 32),
    "low rank": lambda: LowRankEmbedding(WORDS, 64, rank=32),
    "codes": lambda: ProductQuantizedEmbedding(WORDS, 32, 4, 8),
}


@pytest.mark.parametrize("table_format", FORMATS)
@pytest.mark.parametrize("kind", TABLES)
def test_a_tied_table_is_stored_once_and_stays_small_in_memory(
    kind, table_format, tmp_path
):
    layer = TABLES[kind]()
    model = tied_model(layer)
    path = tmp_path / "model.onnx"
    written = export_onnx(model, path, table_format)
    quantized(layer, table_format)
    least = sum(v.value.numpy().nbytes for v in layer.variables)
    # Keras' scales of rows have 4 bytes, and ours have 1.
    assert 0.8 * least < stored(path) < 1.03 * least + 500
    assert written.bytes < stored(path) + 12_000
    # A scale of four bytes a row, where the file has one.
    assert in_memory(path, tmp_path) < 1.05 * least + 5 * WORDS


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_layer_that_keras_quantized_keeps_its_bytes(mode, tmp_path):
    model = tied_model(layers.ReversibleEmbedding(WORDS, 32))
    model.quantize(mode)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    least = sum(v.value.numpy().nbytes for v in model.variables)
    for found in (stored(path), in_memory(path, tmp_path)):
        assert found < least + 2_000
    ids = np.array([[3, WORDS - 1]], "int32")
    (found,) = session_of(path)(ids=ids)
    expected = ops.convert_to_numpy(model(ids))
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: TTEmbedding(WORDS, 32, tt_ranks=4),
        lambda: HashedEmbedding(WORDS, 32, num_subvectors=300, num_parts=4),
    ],
    ids=["tensor train", "hashed"],
)
def test_no_runtime_computes_a_table_beforehand(layer, tmp_path):
    model = tied_model(layer())
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    least = sum(v.value.numpy().nbytes for v in model.variables)
    assert in_memory(path, tmp_path) < least + 2_000


def test_keys_dtypes_and_free_sizes_are_those_of_the_model(tmp_path):
    words = layers.Embedding(WORDS, 8, mask_zero=True)
    one = keras.Input((None,), dtype="int64", name="one")
    two = keras.Input((4,), dtype="int32", name="two")
    rows = layers.GlobalAveragePooling1D()(words(one))
    others = layers.GlobalAveragePooling1D()(words(two))
    rows = layers.Concatenate()([rows, others])
    heads = {"topic": layers.Dense(3)(rows), "about": layers.Dense(2)(rows)}
    model = keras.Model({"one": one, "two": two}, heads)
    path = tmp_path / "model.onnx"
    export_onnx(model, path, "int8", batch=2)
    session = onnxruntime.InferenceSession(str(path))
    found = {x.name: (x.type, x.shape[0]) for x in session.get_inputs()}
    assert found == {
        "one": ("tensor(int64)", 2),
        "two": ("tensor(int32)", 2),
    }
    assert {x.name for x in session.get_outputs()} == {"topic", "about"}
    inputs = {
        "one": np.arange(10).reshape(2, 5),
        "two": np.ones((2, 4), "int32"),
    }
    found = session.run(["topic", "about"], inputs)
    expected = model(inputs)
    for name, values in zip(["topic", "about"], found, strict=True):
        close = ops.convert_to_numpy(expected[name])
        assert_close(values, close, rtol=0.05, atol=0.01)


def test_a_causal_model_of_keras_hub(tmp_path):
    model = small_gpt2(WORDS, 16, positions=12)
    path = tmp_path / "model.onnx"
    export_onnx(model, path, sequence=8)
    export_onnx(model, tmp_path / "again.onnx", sequence=8)
    assert path.read_bytes() == (tmp_path / "again.onnx").read_bytes()
    inputs = {
        "token_ids": np.arange(16, dtype="int32").reshape(2, 8),
        "padding_mask": np.ones((2, 8), "int32"),
    }
    (found,) = session_of(path)(**inputs)
    expected = ops.convert_to_numpy(model(inputs))
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_tensors_that_a_graph_holds_besides_weights(tmp_path):
    ids = keras.Input((8,), dtype="int32", name="ids")
    places = layers.Embedding(8, 4)(ops.arange(8)[None] + 0 * ids)
    model = keras.Model(ids, layers.Embedding(WORDS, 4)(ids) + places)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    ids = np.arange(16, dtype="int32").reshape(2, 8)
    (found,) = session_of(path)(ids=ids)
    assert_close(found, ops.convert_to_numpy(model(ids)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_loops_are_those_of_onnx(kind, tmp_path):
    ids = keras.Input((None,), dtype="int32", name="ids")
    states = getattr(layers, kind)(8, return_sequences=True)
    words = layers.Embedding(WORDS, 8, mask_zero=kind == "GRU")
    model = keras.Model(ids, layers.Dense(WORDS)(states(words(ids))))
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    ids = np.arange(10, dtype="int32").reshape(2, 5)
    (found,) = session_of(path)(ids=ids)
    assert_close(found, ops.convert_to_numpy(model(ids)), rtol=1e-5, atol=1e-6)


def test_a_sequential_model_with_an_exact_gelu(tmp_path, generator):
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(4, activation="gelu")]
    )
    export_onnx(model, tmp_path / "model.onnx")
    x = generator.normal(size=(3, 8)).astype("float32")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    expected = ops.convert_to_numpy(model(x))
    assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_what_is_no_model_of_ids_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    model = lookup_model(layers.Embedding(WORDS, 8))
    with pytest.raises(ValueError, match="`table_format` must be None, int8"):
        export_onnx(model, path, "float16")
    with pytest.raises(ValueError, match="`path` must be a file in a folder"):
        export_onnx(model, tmp_path / "none" / "model.onnx")
    with pytest.raises(ValueError, match="`samples` must have the names"):
        export_onnx(model, path, samples={"x": np.ones((1, 2), "int32")})
    text = keras.Input((), dtype="string", name="text")
    texts = layers.TextVectorization(vocabulary=["a"], name="texts")
    with pytest.raises(ValueError, match="'texts' .TextVectorization"):
        export_onnx(keras.Model(text, texts(text)), path)
    ids = keras.Input((6,), dtype="int32", name="ids")
    rows = layers.Embedding(WORDS, 8)(ids)
    path.write_bytes(b"of before")
    model = keras.Model(ids, ops.erfinv(ops.tanh(rows) / 2))
    with pytest.raises(ValueError, match="that needs Erfinv") as refusal:
        export_onnx(model, path)
    assert len(str(refusal.value)) < 500
    assert path.read_bytes() == b"of before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_a_model_of_more_than_two_gigabytes_is_refused(tmp_path, monkeypatch):
    from keras_embcomp.deploy.onnx import export

    monkeypatch.setattr(export, "_MOST_BYTES", 4 * WORDS * 8 - 1)
    model = lookup_model(layers.Embedding(WORDS, 8))
    with pytest.raises(ValueError, match="2 GiB.* a model of 38,496 bytes"):
        export_onnx(model, tmp_path / "model.onnx")
    export_onnx(model, tmp_path / "model.onnx", "int8")


def test_packages_that_are_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    model = lookup_model(layers.Embedding(WORDS, 8))
    with pytest.raises(ImportError, match=r"pip install 'keras_embcomp\[onnx"):
        export_onnx(model, tmp_path / "model.onnx")


def test_the_command_writes_a_file(tmp_path, capsys):
    model = lookup_model(layers.Embedding(WORDS, 8))
    model.save(tmp_path / "model.keras")
    paths = str(tmp_path / "model.keras"), str(tmp_path / "model.onnx")
    options = ["--format", "int8", "--sequence", "5"]
    assert cli.main(["export", *paths, *options]) == 0
    assert "bytes, error" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(paths[1])
    assert session.get_inputs()[0].shape[1] == 5
    options = ["--format", "float16", "--overwrite"]
    assert cli.main(["export", *paths, *options]) == 1
    assert "`table_format` must be" in capsys.readouterr().err
