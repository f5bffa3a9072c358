"""Tables of 16 bits and fewer in `.tflite` files."""

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from random_layers import made, with_one_of

from keras_embcomp import (
    DistilledEmbedding,
    LowRankEmbedding,
    ProductQuantizedSoftmax,
    TTEmbedding,
    compress,
    export_litert,
)

pytestmark = pytest.mark.tensorflow_only
FORMATS = ("float16", "int8", "int4", "int2", "ternary")
# Relative, of random tables; three factors or more may each lose a share.
LOST = {
    "float16": 2e-3,
    "int8": 0.03,
    "int4": 0.35,
    "int2": 0.9,
    "ternary": 1.0,
}


def interpreter(path):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path))


def parsed(path):
    """Returns a file's tables, and the schema they are of."""
    from ai_edge_litert import schema_py_generated as schema

    root = schema.Model.GetRootAs(path.read_bytes(), 0)
    return schema.ModelT.InitFromObj(root), schema


def has_relu(path):
    """Returns whether an operation of a file is a ReLU, or ends with one."""
    file, schema = parsed(path)
    relu = schema.ActivationFunctionType.RELU
    codes = [code.builtinCode for code in file.operatorCodes]
    return schema.BuiltinOperator.RELU in codes or any(
        getattr(operator.builtinOptions, "fusedActivationFunction", 0) == relu
        for graph in file.subgraphs
        for operator in graph.operators
    )


def constants(path):
    """Returns names of dtypes and byte counts of the tensors in a file."""
    file, schema = parsed(path)
    names = {v: k for k, v in vars(schema.TensorType).items()}
    return {
        (names[tensor.type], len(file.buffers[tensor.buffer].data))
        for graph in file.subgraphs
        for tensor in graph.tensors
        if file.buffers[tensor.buffer].data is not None
    }


def tied(layer, width):
    """A model with a table on both sides."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    hidden = keras.layers.Dense(width, activation="tanh")(layer(ids))
    return keras.Model(ids, layer(hidden, reverse=True))


def of_any_length(layer):
    """A model of sequences, which may be empty."""
    if hasattr(layer, "units"):
        inputs = keras.Input((None, WIDTH), name="x")
    else:
        inputs = keras.Input((None,), dtype="int32", name="x")
    return keras.Model(inputs, layer(inputs))


def check_runs_of_no_tokens(path, dtype, item=()):
    """A file that is called with nothing returns nothing, and goes on."""
    x = np.arange(3 * np.prod((1, *item), dtype=int)).reshape(1, 3, *item)
    x = x.astype(dtype)
    (expected,) = interpreter(path).get_signature_runner()(x=x).values()
    runner = interpreter(path).get_signature_runner()
    for inputs in (x[:, :0], x, x[:, :0], x[:0], x):
        (found,) = runner(x=inputs).values()
        assert found.shape == (*inputs.shape[:2], expected.shape[-1])
        if inputs.size:
            np.testing.assert_array_equal(found, expected)


# The two sides of a method share its tables: four formats each, all together.
@with_one_of(
    [*EMBEDDINGS, *SOFTMAXES],
    "others",
    [("int8", "int2"), ("int4", "ternary")],
)
def test_every_layer_is_exported_in_every_format(case, others, tmp_path):
    model = of_any_length(made(case))
    weights = model.get_weights()
    sizes = []
    for table_format in ("float32", "float16", *others):
        path = tmp_path / f"{table_format}.tflite"
        written = export_litert(model, path, table_format)
        assert written.error < LOST.get(table_format, 1e-5)
        sizes.append(written.bytes)
        entry = model.inputs[0]
        check_runs_of_no_tokens(path, entry.dtype, entry.shape[2:])
    assert sizes[1] < sizes[0]
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("table_format", ["float32", *FORMATS])
def test_dense_and_tied_layers_run_without_tokens(table_format, tmp_path):
    ids = keras.Input((None,), dtype="int32", name="x")
    rows = keras.layers.Embedding(VOCABULARY, WIDTH)(ids)
    words = LowRankEmbedding(VOCABULARY, WIDTH, rank=4)
    back = words(rows + words(ids), reverse=True)
    scores = keras.layers.Dense(VOCABULARY, activation="relu")(rows)
    model = keras.Model(ids, back + scores)
    written = export_litert(model, tmp_path / "a.tflite", table_format)
    check_runs_of_no_tokens(written.path, "int32")


def test_scales_of_blocks_are_of_no_rows_too(tmp_path):
    layer = LowRankEmbedding(VOCABULARY, 200, rank=130)  # blocks of 128
    path = tmp_path / "a.tflite"
    export_litert(of_any_length(layer), path, "int4")
    check_runs_of_no_tokens(path, "int32")


@pytest.mark.parametrize("table_format", ["float32", "float16"])
@pytest.mark.parametrize("number", [1e5, np.inf])
def test_large_hidden_states_find_the_rows(number, table_format, tmp_path):
    layer = ProductQuantizedSoftmax(VOCABULARY, 3, 4, activation=None)
    model = of_any_length(layer)
    path = tmp_path / "a.tflite"
    export_litert(model, path, table_format)
    hidden = np.full((1, 2, WIDTH), number, "float32")
    (found,) = interpreter(path).get_signature_runner()(x=hidden).values()
    np.testing.assert_allclose(found, model(hidden), rtol=0.01, atol=2e3)


@pytest.mark.parametrize("width", [63, 64, 300])
def test_a_plain_embedding_has_rows_of_few_bytes(width, tmp_path):
    ids = keras.Input((None,), dtype="int64", name="ids")
    layer = keras.layers.Embedding(3_000, width, mask_zero=True)
    model = keras.Model(ids, layer(ids))
    sizes = {}
    for table_format in ("float32", *FORMATS):
        path = tmp_path / f"{table_format}.tflite"
        written = export_litert(model, path, table_format)
        assert written.max_difference < 1e-6
        sizes[table_format] = written.bytes
        if table_format == "int4":
            assert "EMBEDDING_LOOKUP" in written.operations
            half = (width + 1) // 2
            assert ("INT4", 3_000 * half) in constants(path)
        if table_format == "int8":
            assert ("INT8", 3_000 * width) in constants(path)
        if table_format == "int2":
            assert "EMBEDDING_LOOKUP" in written.operations
            assert ("INT2", 3_000 * -(-width // 4)) in constants(path)
        if table_format == "ternary":
            assert ("UINT8", 3_000 * -(-width // 5)) in constants(path)
    assert 7 * sizes["int4"] < sizes["float32"]
    assert 12 * sizes["int2"] < sizes["float32"]
    assert sizes["ternary"] < sizes["int2"]
    assert 3.8 * sizes["int8"] < sizes["float32"]
    assert 1.9 * sizes["float16"] < sizes["float32"]


def test_ids_out_of_range_are_refused_in_every_format(tmp_path):
    ids = keras.Input((2,), dtype="int64", name="ids")
    model = keras.Model(ids, keras.layers.Embedding(50, 8)(ids))
    for table_format in FORMATS:
        path = tmp_path / f"{table_format}.tflite"
        export_litert(model, path, table_format)
        runner = interpreter(path).get_signature_runner()
        for wrong in (-1, 50, 2**32 + 1):
            with pytest.raises(RuntimeError):
                runner(ids=np.array([[1, wrong]], "int64"))


BITS = {"float16": 16, "int8": 8, "int4": 4, "int2": 2, "ternary": 2}


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("table_format", FORMATS)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras.layers.ReversibleEmbedding(4_000, 96),
        lambda: LowRankEmbedding(4_000, 96, 96),
    ],
    ids=["dense", "low rank"],
)
def test_a_tied_table_is_stored_once(layer, table_format, blocks, tmp_path):
    named = table_format
    if blocks > 1:
        if table_format in ("float16", "int8"):
            pytest.skip("it takes no blocks")
        named = f"{table_format}/32"
    model = tied(layer(), 96)
    written = export_litert(model, tmp_path / "a.tflite", named)
    table = BITS[table_format] * 4_000 * 96 / 8
    # A block's scale takes a byte for lookups and two for products.
    others = 4 * 96 * 97 + 4 * 96 * 96 + 3 * 4_000 * blocks + 16_000
    assert table < written.bytes < table + others
    assert table > others - 4 * 96 * 97 - 4 * 96 * 96
    assert 0 < written.error < LOST[table_format]


def test_eight_bits_of_many_columns_are_stored_once_too(tmp_path):
    model = tied(LowRankEmbedding(4_000, 160, 160), 160)  # blocks of 128
    written = export_litert(model, tmp_path / "a.tflite", "int8")
    assert written.bytes < 4_000 * 160 + 8 * 160 * 160 + 60_000
    assert written.error < LOST["int8"]


def test_smaller_blocks_lose_less(generator, tmp_path):
    ids = keras.Input((None,), dtype="int32", name="x")
    layer = keras.layers.Embedding(VOCABULARY, 256)
    model = keras.Model(ids, layer(ids))
    layer.set_weights([generator.normal(size=(VOCABULARY, 256))])
    for mode, most in (("int4", 0.85), ("int2", 0.97), ("ternary", 0.98)):
        errors = [
            export_litert(model, tmp_path / "a.tflite", named).error
            for named in (mode, f"{mode}/32")
        ]
        assert errors[1] < most * errors[0]


def test_a_dense_head_is_stored_by_rows(tmp_path):
    hidden = keras.Input((5, 64), name="hidden")
    head = keras.layers.Dense(3_000, activation="softmax", name="words")
    model = keras.Model(hidden, head(hidden))
    head.bias.assign(np.linspace(-1, 1, 3_000))
    written = export_litert(model, tmp_path / "a.tflite", "int4")
    assert 3_000 * 32 < written.bytes < 3_000 * (32 + 1 + 4) + 8_000
    states = np.random.default_rng(0).normal(size=(1, 5, 64))
    states = states.astype("float32")
    runner = interpreter(written.path).get_signature_runner()
    found = runner(hidden=states)["words"]
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    assert np.corrcoef(found.flat, np.ravel(model(states)))[0, 1] > 0.98


def test_tensor_trains_take_what_was_promised(tmp_path):
    ids = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(ids, TTEmbedding(50_000, 128, tt_ranks=16)(ids))
    floats = export_litert(model, tmp_path / "a.tflite")
    assert floats.bytes <= 200_000
    integers = export_litert(model, tmp_path / "b.tflite", "int8")
    assert integers.bytes <= 55_000
    assert integers.error < LOST["int8"]


# Each bias in one format, and each format with one bias.
@pytest.mark.parametrize(
    "table_format, lifted",
    [
        *(("float32", lifted) for lifted in (-1e9, -2.0, 0.0, 2.0)),
        *((table_format, -2.0) for table_format in FORMATS),
    ],
)
def test_a_distilled_table_needs_no_relu(
    generator, table_format, lifted, tmp_path
):
    layer = DistilledEmbedding(VOCABULARY, WIDTH, rank=6)
    model = tied(layer, WIDTH)
    rows = generator.normal(size=(VOCABULARY, 6))
    bias = generator.normal(size=6)
    bias[0] += lifted
    layer.embeddings.assign(rows)
    layer.hidden_bias.assign(bias)
    path = tmp_path / "model.tflite"
    written = export_litert(model, path, table_format)
    assert written.error < {"float32": 1e-6, **LOST}[table_format]
    assert not {"RELU", "MAXIMUM"} & set(written.operations)
    assert not has_relu(path)
    assert layer.activation is keras.activations.relu
    np.testing.assert_array_equal(layer.embeddings, np.float32(rows))


def test_what_cannot_be_copied_keeps_its_relu(tmp_path):
    ids = keras.Input((3,), dtype="int32", name="ids")
    rows = DistilledEmbedding(VOCABULARY, WIDTH, rank=6)(ids)
    model = keras.Model(ids, keras.layers.Lambda(lambda x: 2 * x)(rows))
    written = export_litert(model, tmp_path / "a.tflite")
    assert written.error < 1e-6
    assert has_relu(written.path)


# Every two of these values come together once.
@pytest.mark.parametrize(
    "how, mode, policy",
    [
        ("quantize", "int8", "float32"),
        ("quantize", "int4", "mixed_bfloat16"),
        ("fake_quantize", "int8", "mixed_bfloat16"),
        ("fake_quantize", "int4", "float32"),
        ("quantize", "int2", "float32"),
        ("fake_quantize", "ternary", "mixed_bfloat16"),
    ],
)
def test_formats_of_layers_that_are_rounded_already(
    how, mode, policy, tmp_path
):
    layer = LowRankEmbedding(VOCABULARY, WIDTH, 4, dtype=policy)
    model = tied(layer, WIDTH)
    getattr(layer, how)(mode)
    for table_format in ("float32", "float16", mode):
        path = tmp_path / "model.tflite"
        written = export_litert(model, path, table_format)
        assert written.error < (0.02 if policy == "float32" else 0.05)
    assert (layer.quantization_mode is None) == (how == "fake_quantize")
    assert (layer.fake_quantization is None) == (how == "quantize")


def test_numbers_that_the_converter_computes_may_be_halves(tmp_path):
    ids = keras.Input((8,), dtype="int32", name="ids")
    places = keras.layers.Embedding(8, WIDTH)(keras.ops.arange(8))
    rows = keras.layers.Embedding(VOCABULARY, WIDTH)(ids) + places
    written = export_litert(
        keras.Model(ids, rows), tmp_path / "a.tflite", "float16"
    )
    assert written.error < LOST["float16"]


def test_tables_in_wrappers_have_formats(tmp_path):
    hidden = keras.Input((None, 16), name="hidden")
    head = keras.layers.TimeDistributed(keras.layers.Dense(2_000))
    model = keras.Model(hidden, head(hidden))
    path = tmp_path / "a.tflite"
    written = export_litert(model, path, "int8", batch=1, sequence=7)
    assert 2_000 * 16 < written.bytes < 2_000 * (16 + 1 + 4) + 15_000
    assert written.error < LOST["int8"]


def test_a_layer_that_is_quantized_stays_as_it_is(tmp_path):
    layer = LowRankEmbedding(VOCABULARY, WIDTH, 4)
    ids = keras.Input((3,), dtype="int32", name="ids")
    model = keras.Model(ids, layer(ids))
    layer.quantize("int8")
    eight = export_litert(model, tmp_path / "a.tflite")
    still = export_litert(model, tmp_path / "a.tflite", "int4")
    assert eight.bytes == still.bytes
    assert still.error < 1e-6


def test_a_model_without_tables_and_names_is_exported(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    for table_format in FORMATS:
        written = export_litert(model, tmp_path / "a.tflite", table_format)
        assert written.error < 2e-3
        (name,) = interpreter(written.path).get_signature_list()[
            "serving_default"
        ]["inputs"]
        assert name == model.inputs[0].name


@pytest.mark.parametrize("table_format", ["float32", *FORMATS])
def test_a_model_of_mixed_precision_is_exported_in_float32(
    table_format, tmp_path
):
    layer = LowRankEmbedding(400, 32, 16, dtype="mixed_bfloat16")
    model = tied(layer, 32)
    path = tmp_path / "a.tflite"
    written = export_litert(model, path, table_format)
    assert layer.compute_dtype == "bfloat16"
    assert written.error < LOST.get(table_format, 0) + 0.02


@pytest.mark.parametrize("table_format", FORMATS)
def test_signatures_and_recurrent_layers_have_formats_too(
    table_format, tmp_path
):
    ids = keras.Input((None,), dtype="int32", name="ids")
    hidden = keras.Input((32,), name="hidden")
    layer = keras.layers.ReversibleEmbedding(3_000, 32, name="words")
    states = keras.layers.GRU(32, return_sequences=True)(layer(ids))
    model = keras.Model(ids, layer(states, reverse=True))
    scores = keras.Model(hidden, layer(hidden, reverse=True))
    alone = export_litert(model, tmp_path / "a.tflite", table_format, batch=1)
    assert alone.error < LOST[table_format]
    both = export_litert(
        model,
        tmp_path / "b.tflite",
        table_format,
        batch=1,
        signatures={"scores": scores},
    )
    assert both.bytes < alone.bytes + 6_000
    runner = interpreter(both.path).get_signature_runner("scores")
    values = np.random.default_rng(0).normal(size=(1, 32)).astype("float32")
    found = runner(hidden=values)["words"]
    lost = np.linalg.norm(found - scores(values)) / np.linalg.norm(found)
    assert lost < LOST[table_format]


def test_wrong_formats_and_numbers_are_refused(tmp_path):
    ids = keras.Input((3,), dtype="int32", name="ids")
    layer = keras.layers.Embedding(9, 4)
    model = keras.Model(ids, layer(ids))
    for wrong in ("int3", "int8/64", "int4/0", "float16/32", "int2/", None):
        with pytest.raises(ValueError, match="`table_format` must be one of "):
            export_litert(model, tmp_path / "a.tflite", wrong)
    layer.set_weights([np.full((9, 4), 1e6)])
    with pytest.raises(ValueError, match="must not be 'float16' for numbers"):
        export_litert(model, tmp_path / "a.tflite", "float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["trellis_codes", "product_codes"])
def test_what_compress_makes_is_exported_in_every_format(
    method, tmp_path, generator
):
    """Their factors are integers with scales, which float16 must not lose."""
    ids = keras.Input((6,), dtype="int32", name="ids")
    words = keras.layers.Embedding(1_500, 24, name="words")
    mean = keras.layers.GlobalAveragePooling1D()(words(ids))
    model = keras.Model(ids, keras.layers.Dense(8)(mean))
    rows = generator.normal(size=(1_500, 24)) * 0.9 ** np.arange(24)
    words.set_weights([0.05 * rows])
    small = compress(model, ratio=6, method=method)
    assert small.get_layer("words").factors_dtype == "int8"
    size = {
        form: export_litert(small, tmp_path / "a.tflite", form).bytes
        for form in ("float32", "float16", "int8")
    }
    assert size["float16"] < 1.05 * size["float32"]
    assert size["int8"] == size["float32"]
