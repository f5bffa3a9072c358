"""The laws of the input side, over every case."""

import inspect

import contract
import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, VOCABULARY, WIDTH
from contract import assert_close, assert_equal
from keras import ops

import keras_embcomp
from keras_embcomp.layers.base import CompressedEmbedding

pytestmark = pytest.mark.parametrize("case", EMBEDDINGS, ids=str)


def make(case, **kwargs):
    return case.layer(VOCABULARY, WIDTH, **{**case.structure, **kwargs})


def built(layer):
    layer.build()
    return layer


def model_of(layer, length=3):
    ids = keras.Input((length,), dtype="int32", name="ids")
    return keras.Model(ids, layer(ids))


def some_ids(generator, *shape):
    return generator.integers(0, VOCABULARY, shape or (20, 3)).astype("int32")


def test_looks_up_the_rows_of_its_dense_table(case, generator):
    layer = built(make(case))
    table = case.table(*layer.get_weights())
    ids = some_ids(generator)
    assert_close(layer.to_dense(), table, rtol=1e-5, atol=1e-6)
    assert_close(layer(ids), table[ids], rtol=1e-5, atol=1e-6)
    assert layer.to_dense().dtype == np.float32


def test_gives_the_logits_of_its_dense_table(case, generator):
    layer = built(make(case))
    hidden = generator.normal(size=(5, 2, WIDTH)).astype("float32")
    expected = hidden @ case.table(*layer.get_weights()).T
    found = layer(hidden, reverse=True)
    assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_has_one_shape_symbolic_and_eager(case, generator):
    layer = make(case)
    ids = keras.Input((None,), dtype="int32")
    rows = layer(ids)
    logits = layer(rows, reverse=True)
    assert rows.shape == (None, None, WIDTH)
    assert logits.shape == (None, None, VOCABULARY)
    model, inputs = keras.Model(ids, [rows, logits]), some_ids(generator, 4, 3)
    found = model(inputs)
    assert [x.shape for x in found] == [(4, 3, WIDTH), (4, 3, VOCABULARY)]
    # TensorFlow rewrites graphs that XLA does not compile.
    model.compile(jit_compile=False)
    for one, other in zip(model.predict(inputs, verbose=0), found, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape((4, 3)) == (4, 3, WIDTH)


def test_config_survives_json(case):
    contract.configs_survive_json(make(case, mask_zero=True, name="words"))


def test_saves_and_loads_without_custom_objects(case, generator, tmp_path):
    model = model_of(make(case))
    contract.saves_and_loads(model, some_ids(generator), tmp_path)


def test_masks_only_if_asked(case):
    ids = np.array([[3, 0, 300]])
    assert make(case).compute_mask(ids) is None
    assert getattr(make(case)(ids), "_keras_mask", None) is None
    layer = make(case, mask_zero=True)
    assert_equal(layer.compute_mask(ids), ids != 0)
    pooled = keras.layers.GlobalAveragePooling1D()
    for dtype in ("int32", "float32"):
        inputs = keras.Input((3,), dtype=dtype)
        model = keras.Model(inputs, pooled(layer(inputs)))
        kept = layer.to_dense()[[3, 300]].mean(axis=0)
        found = model(ids.astype(dtype))[0]
        assert_close(found, kept, rtol=1e-5, atol=1e-6)


def test_passes_the_mask_of_hidden_states_on(case):
    layer = built(make(case, mask_zero=True))
    rows = layer(np.array([[3, 0, 300]]))
    logits = layer(rows, reverse=True)
    mask = ops.convert_to_numpy(logits._keras_mask)
    assert_equal(mask, [[True, False, True]])


def test_every_weight_learns(case, generator):
    targets = generator.normal(size=(203, 3, WIDTH))
    contract.every_weight_learns(
        model_of(make(case)), some_ids(generator, 203, 3), targets
    )


# Ids of floats are exact in float16 anyway, and not in bfloat16.
@pytest.mark.parametrize(
    "policy, dtype",
    [("mixed_float16", "int32"), ("mixed_bfloat16", "float32")],
)
def test_ids_are_exact_in_half_precision(case, policy, dtype):
    layer = built(make(case, dtype=policy))
    ids = np.arange(VOCABULARY)
    rows = layer(ids.astype(dtype))
    assert keras.backend.standardize_dtype(rows.dtype) == policy[6:]
    assert all(w.dtype == "float32" for w in layer.trainable_weights)
    table = layer.to_dense()
    found = ops.convert_to_numpy(ops.cast(rows, "float32"))
    nearest = np.argmin(
        np.sum((found[:, None] - table[None]) ** 2, axis=-1), axis=1
    )
    assert_equal(nearest, ids)
    logits = layer(table[:2], reverse=True)
    assert keras.backend.standardize_dtype(logits.dtype) == policy[6:]
    # bfloat16 keeps 8 bits, here summed over the width.
    assert_close(
        ops.convert_to_numpy(ops.cast(logits, "float32")),
        table[:2] @ table.T,
        atol=0.03 * np.max(np.abs(table[:2] @ table.T)),
    )


DTYPES = ("int8", "uint8", "int16", "int32", "int64")
SHAPES = ((), (5,), (2, 3), (2, 1, 3, 2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_takes_ids_of_any_integer_type_and_rank(case, dtype, generator):
    # Over all cases, each type comes in each shape.
    turn = EMBEDDINGS.index(case) + DTYPES.index(dtype)
    shape = SHAPES[turn % len(SHAPES)]
    layer = built(make(case))
    ids = generator.integers(0, 127, shape).astype(dtype)
    expected = layer.to_dense()[ids]
    assert_close(layer(ids), expected, rtol=1e-5, atol=1e-6)


def test_a_second_call_does_not_trace_again(case, compiled, generator):
    contract.traces_once(
        compiled, built(make(case)), some_ids(generator), some_ids(generator)
    )


def test_trains_alike_with_and_without_xla(case, generator):
    targets = generator.normal(size=(20, 3, WIDTH))
    contract.compiles_alike(model_of(make(case)), some_ids(generator), targets)


def test_honours_initializers_regularizers_and_constraints(case):
    names = contract.part_names(make(case))
    assert names
    contract.honours_parts(lambda **k: make(case, **k), built, names)


def test_refuses_wrong_arguments_in_words(case):
    for arguments, message in case.wrong:
        with pytest.raises(ValueError) as error:
            make(case, **arguments)
        assert str(error.value) == message
    for name in ("input_dim", "output_dim"):
        sizes = {"input_dim": 5, "output_dim": 4, **case.structure, name: 0}
        with pytest.raises(ValueError) as error:
            case.layer(**sizes)
        assert str(error.value) == (
            f"`{name}` must be a positive integer. Received: {name}=0"
        )


def outcome(function, ids):
    """What a lookup gives: an array, or the kind of error."""
    try:
        return ops.convert_to_numpy(function(ops.convert_to_tensor(ids)))
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("xla", [False, True])
def test_ids_out_of_range_do_what_embedding_does(case, xla, compiled):
    layer = built(make(case))
    dense = keras.layers.Embedding(VOCABULARY, WIDTH, weights=layer.to_dense())
    lookups = (compiled(dense), compiled(layer)) if xla else (dense, layer)
    for wrong in (-1, -3, -VOCABULARY - 5, VOCABULARY, 10**6):
        ids = np.array([[5, wrong]], "int32")
        expected, found = (outcome(lookup, ids) for lookup in lookups)
        if isinstance(expected, str):
            assert found == expected, wrong
        else:
            assert_close(
                found, expected, rtol=1e-4, atol=1e-4, err_msg=str(wrong)
            )


def test_never_builds_the_table(case):
    layer = built(case.layer(**case.huge))
    # Not compiled: XLA could fuse the table away.
    rows = layer(ops.convert_to_tensor([[1, 7]]))
    assert rows.shape == (1, 2, case.huge["output_dim"])
    hidden = ops.ones((1, case.huge["output_dim"]))
    logits = layer(hidden, reverse=True)
    assert logits.shape == (1, case.huge["input_dim"])


def test_from_dense_is_exact_at_full_size_and_better_with_budget(
    case, generator
):
    table = generator.normal(size=(VOCABULARY, WIDTH)).astype("float32")
    errors = contract.errors_fall(case, table)
    share = max(1e-8, (10 * case.lost) ** 2)
    assert errors[-1] < share * np.sum(table**2)


def test_frequencies_lower_the_weighted_error(case, generator):
    table = generator.normal(size=(VOCABULARY, WIDTH)).astype("float32")
    counts = 1000 / np.arange(1, VOCABULARY + 1)
    counts[-20:] = 0
    weighted = contract.errors_fall(case, table, counts)
    for structure, error in zip(case.growing, weighted, strict=False):
        plain = case.layer.from_dense(table, **structure)
        rows = np.sum((plain.to_dense() - table) ** 2, axis=1)
        assert error < np.sum(counts * rows)


def test_a_covariance_lowers_the_error_of_the_logits(case, generator):
    if "covariance" not in inspect.signature(case.layer.from_dense).parameters:
        pytest.skip("the method has no weights by which a turn is undone")
    table = generator.normal(size=(VOCABULARY, WIDTH)).astype("float32")
    hidden = generator.normal(size=(200, WIDTH)) * 0.7 ** np.arange(WIDTH)
    covariance = hidden.T @ hidden / len(hidden)

    def lost(**arguments):
        small = case.layer.from_dense(table, **arguments).to_dense()
        return np.mean(((small - table) @ hidden.T) ** 2)

    for structure in case.growing:
        weighed = lost(**structure, covariance=covariance)
        assert weighed < 0.8 * lost(**structure)
    scale = np.mean((table @ hidden.T) ** 2)
    assert lost(**case.full, covariance=covariance) < 1e-5 * scale


def test_takes_the_place_of_a_keras_layer(case):
    # What reads either is the same for each method: they take turns.
    name = ("Embedding", "ReversibleEmbedding")[EMBEDDINGS.index(case) % 2]
    dense = getattr(keras.layers, name, keras.layers.Embedding)(
        VOCABULARY,
        WIDTH,
        mask_zero=True,
        name="words",
        dtype="mixed_bfloat16",
        trainable=False,
    )
    dense.build()
    layer = case.layer.from_layer(dense, **case.full)
    table = ops.convert_to_numpy(dense.embeddings)
    assert_close(layer.to_dense(), table, rtol=1e-4, atol=case.lost)
    kept = (layer.name, layer.mask_zero, layer.dtype_policy, layer.trainable)
    assert kept == ("words", True, dense.dtype_policy, False)


def test_refuses_layers_that_it_cannot_stand_for(case):
    untied = keras.layers.ReversibleEmbedding(9, 4, tie_weights=False)
    capped = keras.layers.ReversibleEmbedding(9, 4, logit_soft_cap=2.0)
    unbuilt = keras.layers.Embedding(9, 4)
    for layer, message in (
        (untied, "must tie its two sides"),
        (capped, "must not cap its logits; .*Received: logit_soft_cap=2.0"),
        (unbuilt, "must be built"),
        (keras.layers.Dense(3), "must be an `Embedding`"),
    ):
        with pytest.raises(ValueError, match=message):
            case.layer.from_layer(layer, **case.full)


def test_says_how_much_it_compresses(case):
    layer = built(make(case))
    numbers = sum(weight.nbytes for weight in layer.get_weights()) / 4
    assert layer.compression_ratio == VOCABULARY * WIDTH / numbers
    assert layer.dense_shape == (VOCABULARY, WIDTH)


@pytest.mark.tensorflow_only
def test_exports_equal_keras(case, tmp_path):
    model = model_of(make(case, mask_zero=True), length=None)
    written = keras_embcomp.export_litert(model, tmp_path / "model.tflite")
    assert written.max_difference < 1e-6
    assert "CUSTOM" not in written.operations
    keras_embcomp.export_serving(model, tmp_path / "served")


def test_every_public_embedding_has_a_case(case):
    public = {getattr(keras_embcomp, name) for name in keras_embcomp.__all__}
    layers = {
        item
        for item in public
        if isinstance(item, type) and issubclass(item, CompressedEmbedding)
    }
    assert layers == {case.layer for case in EMBEDDINGS}


def test_top_k_and_log_prob_are_those_of_the_tied_logits(
    case, compiled, generator
):
    layer = built(make(case))
    hidden = generator.normal(size=(4, 3, WIDTH)).astype("float32")
    ids = generator.integers(0, VOCABULARY, (4, 3)).astype("int32")
    logits = hidden @ layer.to_dense().T
    scores, found = compiled(lambda inputs: layer.top_k(inputs, 5))(hidden)
    best = -np.sort(-logits, axis=-1)[..., :5]
    assert_close(scores, best, rtol=1e-4, atol=1e-5)
    found = ops.convert_to_numpy(found)
    assert_close(
        np.take_along_axis(logits, found, axis=-1), best, rtol=1e-4, atol=1e-5
    )
    own = np.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
    expected = own - np.log(np.exp(logits).sum(axis=-1))
    found = compiled(layer.log_prob)(hidden, ids)
    assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="must be built before it is asked"):
        make(case).top_k(hidden, 5)
