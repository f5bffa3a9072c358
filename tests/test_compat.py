"""Each private name that `_compat` gathers still is what it was.

A test that fails here says which name a release of Keras, TensorFlow or LiteRT
has moved. Everything else of the package can only fail after it.
"""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_embcomp import LowRankEmbedding, _compat

PACKAGE = Path(_compat.__file__).parent
# Modules that promise nothing to users, and attributes that start with `_`.
PRIVATE = ("keras.src", "tensorflow.python", "tensorflow.lite.python")


def built(**kwargs):
    layer = LowRankEmbedding(9, 4, 2, **kwargs)
    layer.build()
    return layer


def test_a_mask_is_carried_by_a_tensor():
    tensor, mask = ops.ones((2, 3)), ops.ones((2,), "bool")
    assert _compat.get_mask(tensor) is None
    _compat.set_mask(tensor, mask)
    assert _compat.get_mask(tensor) is mask
    pooled = keras.layers.GlobalAveragePooling1D(data_format="channels_first")
    assert _compat.get_mask(pooled(ops.ones((1, 2, 3)))) is None


def test_functional_is_the_class_of_functional_models():
    entry = keras.Input((3,))
    assert type(keras.Model(entry, entry + 1)) is _compat.Functional

    class Subclassed(keras.Model):
        pass

    assert not isinstance(Subclassed(), _compat.Functional)


def test_int4_block_size_is_that_of_the_policy():
    assert _compat.int4_block_size(built(dtype="int4/32_from_float32")) == 32
    assert _compat.int4_block_size(built(dtype="int4/-1_from_float32")) is None
    assert _compat.int4_block_size(built()) is None


def test_quantization_config_is_resolved_and_refused_as_by_keras():
    found = _compat.quantization_config("int4", None)
    assert isinstance(found, _compat.Int4QuantizationConfig)
    assert found.block_size == 128
    layer = built()
    with pytest.raises(
        ValueError, match="`config` must|Argument `config` must"
    ):
        layer.quantize("int4", config=5)
    with pytest.raises(ValueError, match="Contradictory"):
        _compat.quantization_config("int8", found)


def test_keras_modes_are_those_whose_policies_have_blocks():
    policies = keras.dtype_policies
    assert ("int4" in _compat.KERAS_MODES) == hasattr(
        policies, "Int4DTypePolicy"
    )
    config = _compat.Int4QuantizationConfig(block_size=32)
    assert (config.mode, config.block_size) == ("int4", 32)
    with pytest.raises(ValueError, match="block_size=0"):
        _compat.Int4QuantizationConfig(block_size=0)


def test_int4_is_written_and_read_as_newer_keras_does():
    layer = built()
    layer.quantize("int4")
    config = keras.saving.serialize_keras_object(layer)
    assert config["config"]["dtype"] == {
        "module": "keras.dtype_policies",
        "class_name": "Int4DTypePolicy",
        "config": {"mode": "int4/128", "source_name": "float32"},
        "registered_name": None,
    }
    again = keras.saving.deserialize_keras_object(config)
    assert again.dtype_policy == layer.dtype_policy
    assert _compat.int4_block_size(again) == 128


def test_register_policy_of_keras_writes_and_reads_the_path_of_keras():
    class LaterPolicy(keras.DTypePolicy):
        pass

    _compat.register_policy_of_keras(LaterPolicy)
    config = keras.saving.serialize_keras_object(LaterPolicy("float32"))
    assert config["module"] == "keras.dtype_policies"
    assert config["class_name"] == "LaterPolicy"
    again = keras.dtype_policies.deserialize(config)
    assert isinstance(again, LaterPolicy)


def test_read_newer_files_drops_what_changes_nothing():
    class Older(keras.layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units

    _compat.read_newer_files([(Older, {"later": None})])
    assert Older.from_config({"units": 3, "later": None}).units == 3
    with pytest.raises(TypeError, match="later"):
        Older.from_config({"units": 3, "later": 1})
    before = Older.from_config
    _compat.read_newer_files([(Older, {"units": 3})])
    assert Older.from_config == before


def test_keras_with_all_arguments_is_left_as_it_is():
    if "int4" not in _compat.KERAS_MODES:
        pytest.skip("an older Keras, which lacks some")
    for cls, _ in _compat._LATER:
        code = cls.from_config.__func__.__code__
        assert "keras_embcomp" not in code.co_filename, cls


def test_needs_keras_names_the_feature_and_both_versions():
    error = _compat.needs_keras("A thing", "9.1")
    assert str(error) == (
        f"A thing needs Keras 9.1 or later. Received: Keras {keras.__version__}"
    )


def test_a_reversible_embedding_is_told_or_said_to_be_missing(monkeypatch):
    assert not _compat.is_reversible(keras.layers.Embedding(3, 2))
    if hasattr(keras.layers, "ReversibleEmbedding"):
        cls = _compat.reversible_embedding()
        assert _compat.is_reversible(cls(3, 2))
        monkeypatch.delattr(keras.layers, "ReversibleEmbedding")
    assert not _compat.is_reversible(keras.layers.Embedding(3, 2))
    with pytest.raises(NotImplementedError, match="needs Keras 3.12 or later"):
        _compat.reversible_embedding()


@pytest.mark.parametrize("newest", [True, False])
def test_view_keeps_the_bits(newest, monkeypatch):
    if not newest:
        monkeypatch.delattr(ops, "view", raising=False)
    found = _compat.view(ops.convert_to_tensor([1.0, -2.0]), "int32")
    expected = np.array([1.0, -2.0], "float32").view("int32")
    np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)
    back = ops.convert_to_numpy(_compat.view(found, "float32"))
    np.testing.assert_array_equal(back, [1, -2])


def test_log_sum_exp_takes_symbolic_tensors():
    assert _compat.log_sum_exp(keras.Input((3, 2)), -1).shape == (None, 3)
    found = ops.convert_to_numpy(_compat.log_sum_exp(ops.zeros((2, 4)), -1))
    np.testing.assert_allclose(found, np.log([4, 4]), rtol=1e-6)


def test_check_can_quantize_refuses_unbuilt_layers():
    with pytest.raises(ValueError, match="isn't yet built"):
        _compat.check_can_quantize(LowRankEmbedding(9, 4, 2), "int8")
    _compat.check_can_quantize(built(), "int8")


def test_mark_quantized_keeps_keras_from_quantizing_again():
    layer = built()
    _compat.mark_quantized(layer)
    with pytest.raises(ValueError, match="already quantized"):
        layer.quantize("int8")


def test_rebuilt_takes_weights_off_and_locks_again():
    layer = built()
    with _compat.rebuilt(layer):
        assert layer.weights == []
        layer.other = layer.add_weight(shape=(3,), name="other")
    assert [weight.name for weight in layer.weights] == ["other"]
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.one_more = layer.add_weight(shape=(3,))


def test_rebuilt_locks_again_after_an_error():
    layer = built()
    with pytest.raises(KeyError), _compat.rebuilt(layer):
        raise KeyError
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.one_more = layer.add_weight(shape=(3,))


def test_every_layer_looks_into_layers():
    inner = keras.layers.Dense(2)
    outer = keras.layers.TimeDistributed(inner)
    model = keras.Sequential([keras.Input((3, 4)), outer])
    assert inner not in model.layers
    assert any(layer is inner for layer in _compat.every_layer(model))


def test_call_arguments_are_those_of_symbolic_calls():
    layer = built()
    entry = keras.Input((3,), dtype="int32")
    layer(layer(entry), reverse=True)
    kwargs = [kwargs for _, kwargs in _compat.call_arguments(layer)]
    assert kwargs == [{}, {"reverse": True}]


def test_producer_name_is_that_of_the_layer():
    entry = keras.Input((3,))
    assert _compat.producer_name(keras.layers.Dense(2, name="d")(entry)) == "d"


def test_source_policy_is_what_was_quantized():
    layer = built(dtype="mixed_bfloat16")
    assert _compat.source_policy(layer.dtype_policy) is layer.dtype_policy
    layer.quantize("int8")
    assert _compat.source_policy(layer.dtype_policy) == "mixed_bfloat16"


def test_cycled_rate_is_kept_beside_the_variables():
    optimizer = keras.optimizers.Adam(0.5)
    rate = _compat.cycled_rate(optimizer)
    assert isinstance(rate, keras.Variable)
    names = [variable.path for variable in optimizer.variables]
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    _compat.set_cycled_rate(optimizer, schedule)
    assert _compat.cycled_rate(optimizer) is schedule
    assert [variable.path for variable in optimizer.variables] == names
    assert float(ops.convert_to_numpy(optimizer.learning_rate)) == (
        pytest.approx(0.1)
    )


def test_callbacks_beside_are_those_of_the_fit():
    found = []

    class Asks(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            found.extend(_compat.callbacks_beside())

    callbacks = [Asks(), keras.callbacks.TerminateOnNaN()]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones(4), verbose=0, callbacks=callbacks)
    assert all(callback in found for callback in callbacks)
    assert _compat.callbacks_beside() == []


def test_has_layout_of_a_plain_variable():
    assert not _compat.has_layout(keras.Variable(np.ones(3)))


@pytest.mark.tensorflow_only
def test_in_xla_context_tells_compiled_functions_also_from_within():
    import tensorflow as tf

    found = []
    inner = tf.function(lambda: found.append(_compat.in_xla_context()))
    inner()
    tf.function(inner, jit_compile=True)()
    assert found[0] is False
    tf.function(
        lambda: found.append(_compat.in_xla_context()), jit_compile=True
    )()
    assert found[-1] is True
    assert _compat.in_xla_context() is False


@pytest.mark.tensorflow_only
def test_converter_error_is_what_the_converter_raises():
    import tensorflow as tf

    function = tf.function(lambda x: tf.raw_ops.Betainc(a=x, b=x, x=x))
    function = function.get_concrete_function(tf.TensorSpec((2,)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    with pytest.raises(_compat.converter_error()):
        converter.convert()


@pytest.mark.tensorflow_only
def test_litert_schema_reads_and_writes_a_file():
    import flatbuffers
    import tensorflow as tf

    schema = _compat.litert_schema()
    function = tf.function(lambda x: tf.nn.relu(x + 1.0))
    function = function.get_concrete_function(tf.TensorSpec((2,)))
    content = tf.lite.TFLiteConverter.from_concrete_functions(
        [function]
    ).convert()
    file = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    assert schema.BuiltinOperator.ADD in [
        code.builtinCode for code in file.operatorCodes
    ]
    builder = flatbuffers.Builder(0)
    builder.Finish(file.Pack(builder), b"TFL3")
    again = schema.Model.GetRootAs(bytes(builder.Output()), 0)
    assert again.SubgraphsLength() == 1


@pytest.mark.tensorflow_only
def test_numpy_for_tf2onnx_lets_it_convert():
    tf2onnx = pytest.importorskip("tf2onnx")
    tf = pytest.importorskip("tensorflow")
    _compat.numpy_for_tf2onnx()

    @tf.function(input_signature=[tf.TensorSpec((2,), name="x")])
    def sums(x):
        return x + tf.range(2.0)

    proto, _ = tf2onnx.convert.from_function(sums, sums.input_signature)
    assert [entry.name for entry in proto.graph.input] == ["x"]


def test_replace_input_changes_what_an_operation_reads():
    import tensorflow as tf

    @tf.function
    def function(x):
        y = tf.nn.relu(x)
        _compat.replace_input(y.op, 0, x - 3.0)
        return y

    np.testing.assert_array_equal(function(tf.constant([1.0, 5.0])), [0, 2])


def test_unallocated_makes_weights_of_any_size_and_forgets_them():
    layer = keras.layers.Embedding(10**12, 4)
    with _compat.unallocated():
        layer.build()
    assert layer.embeddings.shape == (10**12, 4)
    with keras.StatelessScope():  # its end fills what waits
        waiting = keras.layers.Embedding(3, 4)
        waiting.build()
    assert waiting.embeddings.numpy().shape == (3, 4)


def names_of(tree):
    """Yields the modules that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_unlocked_lets_a_built_layer_add_weights():
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    with _compat.unlocked(layer):
        layer.more = layer.add_weight(shape=(2,), name="more")
    assert any(weight is layer.more for weight in layer.weights)
    with pytest.raises(ValueError, match="cannot add new elements"):
        layer.another = keras.layers.Dense(2)


def test_children_and_own_variables_are_those_of_a_layer_itself():
    inner = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((3,)), inner])
    assert _compat.children(model) == [inner]
    assert _compat.children(inner) == []
    assert _compat.own_variables(model) == []
    assert _compat.own_variables(inner) == inner.variables
    dropout = keras.layers.Dropout(0.5)
    assert _compat.own_variables(dropout) == dropout.variables


def test_retrack_and_follow_put_a_layer_in_a_graph():
    old, new = keras.layers.Dense(4, name="old"), keras.layers.Dense(4)
    new.build((None, 3))
    entry = keras.Input((3,))
    model = keras.Model(entry, keras.ops.relu(old(entry)))
    assert _compat.follow_nodes(model, old, new)
    assert not _compat.follow_nodes(model, old, new)
    assert not _compat.retrack(model, old, new)
    assert model.layers[1:] == [new]
    values = np.ones((2, 3), "float32")
    expected = keras.ops.convert_to_numpy(keras.ops.relu(new(values)))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model(values)), expected
    )
    copy = keras.Model.from_config(model.get_config())
    assert [x.name for x in copy.layers] == [x.name for x in model.layers]
    owner = keras.layers.TimeDistributed(old)
    assert _compat.retrack(owner, old, new)
    vars(owner)["layer"] = new
    _compat.follow_layers(owner)
    assert _compat.children(owner) == [new]


def test_register_as_is_written_into_configs():
    class Other(keras.layers.Layer):
        pass

    _compat.register_as(Other, "tests>Something")
    config = keras.saving.serialize_keras_object(Other())
    assert config["registered_name"] == "tests>Something"


def test_as_if_float_hides_a_policy_for_a_while():
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    layer.quantize("int8")
    policy = layer.dtype_policy
    with _compat.as_if_float([layer]):
        assert layer.dtype_policy.name == "float32"
    assert layer.dtype_policy is policy


def test_outputs_and_what_made_them():
    entry = keras.Input((3,))
    layer = keras.layers.Dense(2)
    model = keras.Model(entry, {"one": layer(entry)})
    (tensor,) = model.outputs
    assert set(_compat.outputs_of(model)) == {"one"}
    assert _compat.producer(tensor) is layer
    assert _compat.given_to(tensor) is entry
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert _compat.outputs_of(plain) is plain.outputs[0]


def test_private_modules_are_imported_here_alone():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "_compat.py":
            continue
        for name in names_of(ast.parse(path.read_text())):
            assert not name.startswith(PRIVATE), (path, name)


def test_every_name_has_a_test():
    tests = Path(__file__).read_text()
    for name in _compat.__all__:
        assert f"_compat.{name}" in tests, name
