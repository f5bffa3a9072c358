"""Number formats: the laws of both sides hold for factors of 8 and 4 bits."""

import tracemalloc

import contract
import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from keras import ops
from random_layers import (
    BOTH,
    BOTH_IN_TURN,
    MODES,
    expected_of,
    in_turn,
    inputs_of,
    made,
    model_of,
    quantize,
)

import keras_embcomp
from keras_embcomp._compat import Int4QuantizationConfig
from keras_embcomp.layers.policies import SmallDTypePolicy, policy_named

# Keras' `model.quantize` says so of each layer that has no weights.
pytestmark = pytest.mark.filterwarnings("ignore:Layer InputLayer does not")

# Of random factors. Three of them or more may each lose a share.
LOST = {
    "int8": (1e-4, 0.02),
    "int4": (1e-3, 0.3),
    "int2": (1e-3, 0.9),
    "ternary": (1e-3, 1.0),
}


def lost(found, table):
    return np.linalg.norm(found - table) / np.linalg.norm(table)


@BOTH
@MODES
def test_a_quantized_layer_has_a_table_near_that_of_floats(case, mode):
    layer = made(case)
    table, ratio = layer.to_dense(), layer.compression_ratio
    layer.quantize(mode)
    low, high = LOST[mode]
    assert low < lost(layer.to_dense(), table) < high
    found = layer(inputs_of(case))
    np.testing.assert_allclose(
        found, expected_of(case, layer), rtol=1e-4, atol=1e-5
    )
    assert layer.compression_ratio > ratio
    if case in EMBEDDINGS:
        hidden = np.random.default_rng(2).normal(size=(5, WIDTH))
        logits = layer(hidden.astype("float32"), reverse=True)
        np.testing.assert_allclose(
            logits, hidden @ layer.to_dense().T, rtol=1e-4, atol=1e-5
        )


@BOTH_IN_TURN
def test_quantized_models_save_and_load_exactly(case, mode, tmp_path):
    model = model_of(case, made(case))
    quantize(model, mode)
    layer = model.layers[-1]
    assert layer.quantization_mode == mode
    assert layer.dtype_policy.name.endswith("_from_float32")
    contract.configs_survive_json(layer)
    contract.saves_and_loads(model, inputs_of(case), tmp_path)


@BOTH_IN_TURN
def test_a_layer_built_quantized_rounds_what_it_is_assigned(case, mode):
    table = np.random.default_rng(3).normal(size=(VOCABULARY, WIDTH))
    table = table.astype("float32")
    policy = {"int8": "int8"}.get(mode, f"{mode}/128") + "_from_float32"
    quantized = case.layer.from_dense(table, **case.growing[-1], dtype=policy)
    layer = case.layer.from_dense(table, **case.growing[-1])
    layer.quantize(mode)
    np.testing.assert_allclose(
        quantized.to_dense(), layer.to_dense(), rtol=1e-5, atol=1e-6
    )
    assert quantized.dtype_policy == layer.dtype_policy


@in_turn([*EMBEDDINGS, *SOFTMAXES], two=True)
def test_fine_tuning_ends_with_the_outputs_it_trained(case, mode, tmp_path):
    layer = made(case)
    model = model_of(case, layer)
    layer.fake_quantize(mode)
    assert lost(layer.to_dense(), made(case).to_dense()) > 1e-4
    generator = np.random.default_rng(4)
    targets = generator.normal(size=model(inputs_of(case)).shape)
    contract.every_weight_learns(model, inputs_of(case), targets)
    trained = ops.convert_to_numpy(model(inputs_of(case)))
    model.save(tmp_path / "fake.keras")
    loaded = keras.saving.load_model(tmp_path / "fake.keras")
    np.testing.assert_array_equal(loaded(inputs_of(case)), trained)
    quantize(loaded, mode)
    np.testing.assert_allclose(
        loaded(inputs_of(case)), trained, rtol=1e-4, atol=1e-5
    )
    assert loaded.layers[-1].fake_quantization is None
    assert loaded.layers[-1].quantization_mode == mode


def test_fine_tuning_gains_on_rounding():
    trained = keras_embcomp.LowRankEmbedding(
        VOCABULARY, WIDTH, WIDTH, embeddings_initializer="random_normal"
    )
    trained.build()
    trained.embeddings.assign(20 * trained.embeddings)
    table, ids = trained.to_dense(), np.arange(VOCABULARY, dtype="int32")
    errors = []
    for epochs in (0, 200):
        layer = type(trained).from_config(trained.get_config())
        entry = keras.Input((), dtype="int32")
        model = keras.Model(entry, layer(entry))
        layer.set_weights(trained.get_weights())
        layer.fake_quantize("int4")
        rate = keras.optimizers.schedules.CosineDecay(3e-3, 200)
        model.compile(keras.optimizers.Adam(rate), "mse")
        model.fit(ids, table, VOCABULARY, epochs, verbose=0)
        layer.quantize("int4")
        errors.append(lost(layer.to_dense(), table))
    assert errors[1] < 0.98 * errors[0]


@pytest.mark.parametrize("block, bytes_of_rows", [(32, 64 + 4), (-1, 64 + 1)])
def test_a_block_of_a_row_has_a_scale_of_one_byte(block, bytes_of_rows):
    table = np.random.default_rng(6).normal(size=(500, 128))
    table *= np.repeat([1, 9, 1, 1], 32)  # one block is larger
    layer = keras_embcomp.LowRankEmbedding(500, 128, 128)
    layer.build()
    layer.embeddings.assign(table * np.exp(np.arange(500) % 7)[:, None])
    layer.quantize("int4", config=Int4QuantizationConfig(block_size=block))
    sizes = {weight.name: weight for weight in layer.weights}
    own = sum(
        ops.convert_to_numpy(sizes[name]).nbytes
        for name in ("embeddings", "embeddings_row_steps")
    )
    assert own == 500 * bytes_of_rows
    assert ops.convert_to_numpy(sizes["embeddings_column_scales"]).size == 128
    copy = type(layer).from_config(layer.get_config())
    copy.build()
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy.to_dense(), layer.to_dense())


def test_smaller_blocks_lose_less():
    table = np.random.default_rng(7).standard_t(3, size=(500, 128))
    errors = []
    for block in (-1, 32):
        layer = keras_embcomp.LowRankEmbedding.from_dense(table, rank=128)
        layer.quantize("int4", config=Int4QuantizationConfig(block_size=block))
        errors.append(lost(layer.to_dense(), table))
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("cls", ["LowRank", "GroupReduce", "Distilled"])
@MODES
@pytest.mark.tensorflow_only
def test_a_lookup_unpacks_only_its_rows(cls, mode):
    import tensorflow as tf

    (case,) = [case for case in EMBEDDINGS if str(case) == f"{cls}Embedding"]
    layer = made(case)
    layer.quantize(mode)
    function = tf.function(layer).get_concrete_function(
        tf.TensorSpec((5,), "int32")
    )
    outputs = [x for op in function.graph.get_operations() for x in op.outputs]
    rows = [x.shape[0] for x in outputs if x.dtype.is_floating and x.shape.rank]
    assert max(rows) < 50 and 5 in rows


@pytest.mark.parametrize("wrong", [-1, -VOCABULARY - 5, VOCABULARY, 10**6])
@MODES
def test_ids_out_of_range_do_what_those_of_floats_do(wrong, mode):
    ids = ops.convert_to_tensor(np.array([[5, wrong]], "int32"))
    for case in EMBEDDINGS:
        layer, quantized = made(case), made(case)
        quantized.quantize(mode)
        try:
            expected = ops.convert_to_numpy(layer(ids))
        except Exception as error:
            with pytest.raises(type(error)):
                quantized(ids)
            continue
        found = ops.convert_to_numpy(quantized(ids))
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


@BOTH_IN_TURN
def test_half_precision_and_frozen_layers_stay_so(case, mode):
    layer = made(case, dtype="mixed_bfloat16", trainable=False)
    table = layer.to_dense()
    layer.fake_quantize(mode)
    assert not layer.trainable and not layer.trainable_weights
    layer.quantize(mode)
    assert not layer.trainable and layer.compute_dtype == "bfloat16"
    assert lost(layer.to_dense(), table) < LOST[mode][1]
    found = layer(inputs_of(case))
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    expected = expected_of(case, layer)
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    assert lost(found, expected) < 0.02


@in_turn(SOFTMAXES, whole=True)
def test_the_best_units_are_those_of_the_table(case, mode):
    layer = made(case)
    layer.quantize(mode)
    hidden = inputs_of(case)
    logits = expected_of(case, layer)
    scores, units = layer.top_k(hidden, 3)
    np.testing.assert_allclose(
        scores, -np.sort(-logits)[:, :3], rtol=1e-4, atol=1e-5
    )
    ids = ops.convert_to_numpy(units)[:, 0]
    exact = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(
        layer.log_prob(hidden, ids), exact.max(axis=1), rtol=1e-4, atol=1e-5
    )


def test_a_tensor_train_is_rounded_in_its_format():
    (case,) = [case for case in SOFTMAXES if str(case) == "TTSoftmax"]
    layer = made(case)
    layer.quantize("int8")
    merged = layer.merged(10**6)
    assert merged.num_cores < layer.num_cores
    assert merged.quantization_mode == "int8"
    assert lost(merged.to_dense(), layer.to_dense()) < 0.02
    np.testing.assert_array_equal(merged.bias, layer.bias)


@MODES
def test_refuses_what_it_cannot_do_in_words(mode):
    layer = keras_embcomp.LowRankEmbedding(9, 4, 2)
    for method in (layer.quantize, layer.fake_quantize):
        with pytest.raises(ValueError, match="isn't yet built"):
            method(mode)
    layer.build()
    for method in (layer.quantize, layer.fake_quantize):
        with pytest.raises(NotImplementedError) as error:
            method("float8")
        assert str(error.value) == (
            "`mode` must be one of int8, int4, int2, ternary. "
            "Received: mode=float8"
        )
    layer.embeddings.assign(np.full((9, 2), np.nan))
    with pytest.raises(ValueError, match="`embeddings` must hold finite"):
        layer.quantize(mode)
    assert layer.quantization_mode is None
    layer.embeddings.assign(np.zeros((9, 2)))
    layer.quantize(mode)
    assert not layer.to_dense().any()
    for method in (layer.quantize, layer.fake_quantize):
        with pytest.raises(ValueError, match="already quantized"):
            method(mode)
    in_bytes = keras_embcomp.ProductQuantizedEmbedding(
        9, 4, 2, 2, codebook_size=5, factors_dtype="int8"
    )
    in_bytes.build()
    with pytest.raises(NotImplementedError, match="must have factors of flo"):
        in_bytes.quantize(mode)
    with pytest.raises(ValueError, match="`fake_quantization` must be int8"):
        keras_embcomp.LowRankEmbedding(9, 4, 2, fake_quantization="int3")


def test_quantizing_takes_one_copy_of_a_factor(generator):
    layer = keras_embcomp.LowRankEmbedding(150_000, 64, rank=64)
    layer.build()
    factor = 4 * 150_000 * 64
    tracemalloc.start()  # of NumPy's arrays, beside the factor itself
    layer.quantize("int4")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.75 * factor


@pytest.mark.parametrize(
    "mode, integers", [("int4", 64), ("int2", 32), ("ternary", 26)]
)
def test_a_number_takes_what_its_mode_says(mode, integers, generator):
    layer = keras_embcomp.LowRankEmbedding(500, 128, 128)
    layer.build()
    layer.embeddings.assign(generator.normal(size=(500, 128)))
    layer.quantize(mode, config=Int4QuantizationConfig(block_size=32))
    sizes = {weight.name: weight.shape for weight in layer.weights}
    assert sizes["embeddings"] == (500, integers)
    assert sizes["embeddings_row_steps"] == (500, 4)
    assert sizes["embeddings_column_scales"] == (128,)
    assert sizes["projection"] == (128, 128)  # all rows go through it
    assert layer.dtype_policy.name == f"{mode}/32_from_float32"


def test_policies_survive_their_configs_and_names():
    policy = SmallDTypePolicy("int2/64", "mixed_bfloat16")
    assert policy.name == "int2/64_from_mixed_bfloat16"
    assert policy.quantization_mode == "int2"
    assert policy.compute_dtype == "bfloat16"
    assert policy.variable_dtype == "float32"
    serialized = keras.dtype_policies.serialize(policy)
    for copy in (
        keras.dtype_policies.get(serialized),
        policy_named(policy.name),
    ):
        assert copy == policy and copy.block_size == 64
    assert policy != SmallDTypePolicy("int2/32", "mixed_bfloat16")
    assert policy != policy_named("int2/64_from_float32")
    assert policy_named("ternary_from_float32").block_size == 128
    for other in ("float32", "int4/64_from_float32", None):
        assert policy_named(other) is other
    for wrong in ("int2/0", "int2/x", "int2/", "int2/-2", "int4/64", "int3"):
        with pytest.raises(ValueError, match="`mode` must be int2, ternary or"):
            SmallDTypePolicy(wrong)


@pytest.mark.parametrize("mode", ["int2", "ternary"])
def test_what_keras_does_not_know_is_asked_of_the_layer(mode):
    (case,) = [c for c in EMBEDDINGS if str(c) == "LowRankEmbedding"]
    layer = made(case)
    model = model_of(case, layer)
    with pytest.raises(ValueError, match="Invalid quantization mode"):
        model.quantize(mode)
    for method in (layer.quantize, layer.fake_quantize):
        with pytest.raises(ValueError, match="`config` must have a `block_si"):
            method(mode, config=keras.quantizers.Int8QuantizationConfig())
    assert layer.quantization_mode is None


def test_keras_quantizes_the_layers_that_match():
    entry = keras.Input((4,), dtype="int32")
    words = keras_embcomp.LowRankEmbedding(50, 16, rank=4, name="words")
    hidden = keras.layers.Dense(8, name="hidden")
    model = keras.Model(entry, hidden(words(entry)))
    model.quantize("int8", filters="words")
    assert words.quantization_mode == "int8"
    assert hidden.quantization_mode is None


def test_names_of_older_files_are_read():
    layer = keras_embcomp.LowRankEmbedding(9, 4, 2, fake_quantization="int4")
    assert layer.fake_quantization == "int4/128"
    layer = keras_embcomp.LowRankEmbedding(9, 4, 2, dtype="int4_from_float32")
    assert layer.quantization_mode == "int4"
