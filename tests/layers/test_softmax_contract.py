"""The laws of the output side, over every case."""

import contract
import keras
import numpy as np
import pytest
from cases import SOFTMAXES, VOCABULARY, WIDTH
from contract import assert_close, assert_equal
from keras import ops

import keras_embcomp
from keras_embcomp.layers.softmax import CompressedSoftmax

pytestmark = pytest.mark.parametrize("case", SOFTMAXES, ids=str)


def make(case, **kwargs):
    return case.layer(VOCABULARY, **{**case.structure, **kwargs})


def built(layer):
    layer.build((None, WIDTH))
    return layer


def model_of(layer):
    hidden = keras.Input((WIDTH,), name="hidden")
    return keras.Model(hidden, layer(hidden))


def some_hidden(generator, *shape):
    shape = shape or (20,)
    return generator.normal(size=(*shape, WIDTH)).astype("float32")


def test_gives_the_logits_of_its_dense_table(case, generator):
    layer = built(make(case, activation=None, bias_initializer="normal"))
    weights = [w for w in layer.weights if w is not layer.bias]
    table = case.table(*map(ops.convert_to_numpy, weights))
    bias = ops.convert_to_numpy(layer.bias)
    hidden = some_hidden(generator, 5, 3)
    expected = hidden @ table.T + bias
    assert_close(layer.to_dense(), table, rtol=1e-5, atol=1e-6)
    assert_close(layer(hidden), expected, rtol=1e-5, atol=1e-5)


def test_probabilities_sum_to_one(case, generator):
    layer = make(case, bias_initializer="normal")
    hidden = some_hidden(generator, 6)
    probabilities = ops.convert_to_numpy(layer(hidden))
    assert_close(probabilities.sum(axis=-1), 1, rtol=1e-5)
    logits = hidden @ layer.to_dense().T + ops.convert_to_numpy(layer.bias)
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert_close(probabilities, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "k, shape",
    [(1, (4,)), (VOCABULARY, (4,)), (7, (2, 3))],
)
def test_top_k_is_that_of_all_scores(case, k, shape, compiled, generator):
    layer = built(make(case, activation=None, bias_initializer="normal"))
    hidden = some_hidden(generator, *shape)
    scores, ids = compiled(lambda inputs: layer.top_k(inputs, k))(hidden)
    every = ops.convert_to_numpy(layer(hidden))
    expected = np.argsort(-every, axis=-1, kind="stable")[..., :k]
    best = np.take_along_axis(every, expected, axis=-1)
    assert_close(scores, best, rtol=1e-5, atol=1e-5)
    found = np.take_along_axis(every, ops.convert_to_numpy(ids), axis=-1)
    assert_close(found, best, rtol=1e-5, atol=1e-5)
    for row in ops.convert_to_numpy(ids).reshape(-1, k):
        assert len(set(row)) == k


def test_top_k_refuses_more_than_there_are(case, generator):
    layer = built(make(case))
    with pytest.raises(ValueError) as error:
        layer.top_k(some_hidden(generator), VOCABULARY + 1)
    assert str(error.value) == (
        "`k` must not exceed `units`. Received: k=308, units=307"
    )


def test_log_prob_is_that_of_the_probabilities(case, compiled, generator):
    layer = built(make(case, bias_initializer="normal"))
    hidden = some_hidden(generator, 4, 3)
    ids = generator.integers(0, VOCABULARY, (4, 3)).astype("int32")
    found = ops.convert_to_numpy(compiled(layer.log_prob)(hidden, ids))
    every = ops.convert_to_numpy(layer(hidden))
    expected = np.take_along_axis(every, ids[..., None], axis=-1)[..., 0]
    assert_close(found, np.log(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_log_prob_of_an_unknown_id_is_nan(case, dtype, generator):
    layer = built(make(case))
    beyond = 2**32 + 1 if dtype == "int64" else VOCABULARY
    if dtype == "int64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no int64 unless it is enabled")
    ids = np.array([-1, 5, beyond], dtype)
    found = ops.convert_to_numpy(layer.log_prob(some_hidden(generator, 3), ids))
    assert_equal(np.isnan(found), [True, False, True])


def test_top_k_and_log_prob_say_what_is_wrong(case, generator):
    hidden, ids = some_hidden(generator, 3), np.zeros(3, "int32")
    for call in (
        lambda layer, hidden: layer.top_k(hidden, 2),
        lambda layer, hidden: layer.log_prob(hidden, ids),
    ):
        with pytest.raises(ValueError, match="must be built before its width"):
            call(make(case), hidden)
        with pytest.raises(ValueError, match="`hidden` must have the width"):
            call(built(make(case)), hidden[:, 1:])
    with pytest.raises(ValueError, match="`ids` must have the shape of"):
        built(make(case)).log_prob(hidden, ids[:1])


def test_top_k_and_log_prob_take_symbolic_inputs(case):
    layer = built(make(case))
    hidden, ids = keras.Input((4, WIDTH)), keras.Input((4,), dtype="int32")
    scores, units = layer.top_k(hidden, 2)
    assert scores.shape == units.shape == (None, 4, 2)
    assert layer.log_prob(hidden, ids).shape == (None, 4)


def test_has_one_shape_symbolic_and_eager(case, generator):
    layer = make(case)
    hidden = keras.Input((None, WIDTH))
    assert layer(hidden).shape == (None, None, VOCABULARY)
    assert layer(some_hidden(generator, 4, 3)).shape == (4, 3, VOCABULARY)


def test_config_survives_json(case):
    contract.configs_survive_json(
        make(case, use_bias=False, activation=None, name="head")
    )


def test_saves_and_loads_without_custom_objects(case, generator, tmp_path):
    model = model_of(make(case))
    contract.saves_and_loads(model, some_hidden(generator), tmp_path)


def test_passes_the_mask_on(case):
    layer = keras.Sequential(
        [keras.layers.Embedding(9, WIDTH, mask_zero=True), make(case)]
    )
    mask = ops.convert_to_numpy(layer(np.array([[1, 0]]))._keras_mask)
    assert_equal(mask, [[True, False]])


def test_every_weight_learns(case, generator):
    targets = generator.normal(size=(21, VOCABULARY))
    contract.every_weight_learns(
        model_of(make(case, activation=None)),
        some_hidden(generator, 21),
        targets,
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_computes_in_half_precision(case, policy, generator):
    layer = built(make(case, activation=None, dtype=policy))
    hidden = some_hidden(generator)
    logits = layer(hidden)
    assert keras.backend.standardize_dtype(logits.dtype) == policy[6:]
    assert all(w.dtype == "float32" for w in layer.trainable_weights)
    expected = hidden @ layer.to_dense().T
    # bfloat16 keeps 8 bits, here summed over the width.
    assert_close(
        ops.convert_to_numpy(ops.cast(logits, "float32")),
        expected,
        atol=0.03 * np.max(np.abs(expected)),
    )


def test_a_second_call_does_not_trace_again(case, compiled, generator):
    first, second = some_hidden(generator), some_hidden(generator)
    contract.traces_once(compiled, built(make(case)), first, second)


def test_trains_alike_with_and_without_xla(case, generator):
    targets = generator.normal(size=(20, VOCABULARY))
    contract.compiles_alike(
        model_of(make(case)), some_hidden(generator), targets
    )


def test_honours_initializers_regularizers_and_constraints(case):
    names = contract.part_names(make(case))
    assert "bias_regularizer" in names
    contract.honours_parts(lambda **k: make(case, **k), built, names)


def test_refuses_wrong_arguments_in_words(case):
    for arguments, message in case.wrong:
        with pytest.raises(ValueError) as error:
            make(case, **arguments)
        assert str(error.value) == message
    with pytest.raises(ValueError, match="`units` must be a positive integer"):
        case.layer(-1, **case.structure)


def test_never_builds_the_table(case):
    layer = case.layer(**case.huge)
    layer.build((None, 8_192))
    # Not compiled: XLA could fuse the table away.
    probabilities = layer(ops.ones((1, 8_192)))
    assert probabilities.shape == (1, case.huge["units"])


def test_from_dense_is_exact_at_full_size_and_better_with_budget(
    case, generator
):
    table = generator.normal(size=(VOCABULARY, WIDTH)).astype("float32")
    errors = contract.errors_fall(case, table)
    share = max(1e-8, (10 * case.lost) ** 2)
    assert errors[-1] < share * np.sum(table**2)


def test_takes_the_place_of_a_dense_layer(case, generator):
    dense = keras.layers.Dense(
        VOCABULARY, "softmax", name="head", bias_initializer="normal"
    )
    hidden = some_hidden(generator)
    expected = dense(hidden)
    layer = case.layer.from_layer(dense, **case.full)
    # Of a probability: what its logit lost.
    assert_close(layer(hidden), expected, rtol=max(1e-4, 10 * case.lost))
    assert layer.name == "head"
    without = keras.layers.Dense(VOCABULARY, use_bias=False)
    expected = without(hidden)
    layer = case.layer.from_layer(without, **case.full)
    assert layer.bias is None
    assert_close(layer(hidden), expected, rtol=1e-4, atol=10 * case.lost)


def test_takes_integers_as_dense_does(case):
    layer = built(make(case, activation=None))
    hidden = np.arange(2 * WIDTH).reshape(2, WIDTH)
    expected = hidden @ layer.to_dense().T
    assert_close(layer(hidden), expected, rtol=1e-4, atol=1e-4)


def test_says_that_it_must_know_the_width(case):
    with pytest.raises(ValueError, match="must be built before its width"):
        _ = make(case).dense_shape
    with pytest.raises(ValueError, match="last dimension of the inputs must"):
        make(case).build((None, None))


def test_refuses_layers_and_biases_that_do_not_fit(case, generator):
    with pytest.raises(ValueError, match="must be a `Dense`"):
        case.layer.from_layer(keras.layers.Embedding(3, 4), **case.full)
    with pytest.raises(ValueError, match="bias of length 3, units=307"):
        case.layer.from_dense(
            generator.normal(size=(VOCABULARY, WIDTH)),
            **case.full,
            bias=[0] * 3,
        )


def test_says_how_much_it_compresses(case):
    layer = built(make(case))
    numbers = sum(weight.nbytes for weight in layer.get_weights()) / 4
    dense = VOCABULARY * WIDTH + VOCABULARY
    assert layer.compression_ratio == dense / numbers
    assert layer.dense_shape == (VOCABULARY, WIDTH)


@pytest.mark.tensorflow_only
def test_exports_equal_keras(case, tmp_path):
    model = model_of(make(case))
    written = keras_embcomp.export_litert(model, tmp_path / "model.tflite")
    assert written.max_difference < 1e-6
    keras_embcomp.export_serving(model, tmp_path / "served")


def test_every_public_softmax_has_a_case(case):
    public = {getattr(keras_embcomp, name) for name in keras_embcomp.__all__}
    layers = {
        item
        for item in public
        if isinstance(item, type) and issubclass(item, CompressedSoftmax)
    }
    assert layers == {case.layer for case in SOFTMAXES}


def test_top_k_of_no_tokens_is_empty(case, compiled):
    k = (1, 3)[SOFTMAXES.index(case) % 2]
    contract.finds_nothing_for_no_tokens(built(make(case)), k, WIDTH, compiled)
