"""Laws that both sides share, as functions of a layer and its input."""

import json

import keras
import numpy as np
import pytest
from keras import ops


def assert_close(found, expected, **tolerances):
    """As NumPy's, of tensors of any backend, gradients or not."""
    arrays = map(ops.convert_to_numpy, (found, expected))
    np.testing.assert_allclose(*arrays, **tolerances)


def assert_equal(found, expected):
    """As NumPy's, of tensors of any backend, gradients or not."""
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (found, expected)))


def configs_survive_json(layer):
    config = json.loads(json.dumps(layer.get_config()))
    copy = type(layer).from_config(config)
    assert json.loads(json.dumps(copy.get_config())) == config


def saves_and_loads(model, inputs, folder):
    """A `.keras` file and a weights file give the same bits back."""
    expected = ops.convert_to_numpy(model(inputs))
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    assert_equal(loaded(inputs), expected)
    model.save_weights(folder / "model.weights.h5")
    fresh = keras.models.clone_model(model)
    assert not np.array_equal(ops.convert_to_numpy(fresh(inputs)), expected)
    fresh.load_weights(folder / "model.weights.h5")
    assert_equal(fresh(inputs), expected)


def every_weight_learns(model, inputs, targets):
    """One epoch whose last batch is smaller moves every weight but codes."""
    weights = model.trainable_weights
    before = [ops.convert_to_numpy(weight) for weight in weights]
    model.compile("sgd", "mse")
    model.fit(inputs, targets, batch_size=8, verbose=0)
    assert len(targets) % 8
    for weight, old in zip(weights, before, strict=True):
        new = ops.convert_to_numpy(weight)
        assert np.isfinite(new).all(), weight.path
        assert not np.array_equal(new, old), weight.path


def compiles_alike(model, inputs, targets):
    """Training with XLA and without gives the same weights."""
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch has no XLA")
    start = model.get_weights()
    trained = []
    for jit_compile in (False, True):
        model.set_weights(start)
        model.compile("sgd", "mse", jit_compile=jit_compile)
        model.fit(inputs, targets, epochs=2, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for plain, jitted in zip(*trained, strict=True):
        assert_close(jitted, plain, rtol=1e-5, atol=1e-6)


def traces_once(compiled, layer, first, second):
    """Other values in the same shape run the program that was compiled."""
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch runs eagerly: there are no programs")
    traces = []

    def call(inputs):
        traces.append(inputs.shape)
        return layer(inputs)

    function = compiled(call)
    one = ops.convert_to_numpy(function(ops.convert_to_tensor(first)))
    other = ops.convert_to_numpy(function(ops.convert_to_tensor(second)))
    assert len(traces) == 1
    assert not np.array_equal(one, other)


def finds_nothing_for_no_tokens(layer, k, width, compiled):
    """The best units of no hidden states are none, eager and compiled."""
    top_k = compiled(lambda hidden: layer.top_k(hidden, k))
    for shape in ((0,), (0, 3), (2, 0)):
        hidden = np.zeros((*shape, width), "float32")
        for found in (layer.top_k(hidden, k), top_k(hidden)):
            assert [tuple(x.shape) for x in found] == [(*shape, k)] * 2


def weights_of(layer, name):
    """Returns the weights that share an initializer: one, or all the cores."""
    weights = getattr(layer, name)
    return list(weights) if isinstance(weights, list | tuple) else [weights]


def honours_parts(make, build, names):
    """Each initializer, regularizer and constraint argument does its work."""
    for name in names:
        weight = name.rsplit("_", 1)[0]
        if name.endswith("_initializer"):
            layer = build(make(**{name: "ones"}))
            for variable in weights_of(layer, weight):
                assert np.all(ops.convert_to_numpy(variable) == 1)
        elif name.endswith("_regularizer"):
            parts = {name: keras.regularizers.L2(0.5)}
            layer = build(make(**parts, **{f"{weight}_initializer": "ones"}))
            size = sum(np.prod(w.shape) for w in weights_of(layer, weight))
            loss = sum(map(ops.convert_to_numpy, layer.losses))
            assert_close(loss, 0.5 * size, rtol=1e-4)
        else:
            layer = build(make(**{name: "non_neg"}))
            for variable in weights_of(layer, weight):
                negative = ops.full(variable.shape, -1.0)
                constrained = variable.constraint(negative)
                assert np.all(ops.convert_to_numpy(constrained) == 0)


def part_names(layer):
    kinds = ("_initializer", "_regularizer", "_constraint")
    return [n for n in layer.get_config() if n.endswith(kinds)]


def errors_fall(case, table, frequencies=None):
    """Returns the squared errors of growing budgets after checking them."""
    weights = np.ones(len(table)) if frequencies is None else frequencies
    errors = []
    for structure in (*case.growing, case.full):
        layer = case.layer.from_dense(
            table, **structure, frequencies=frequencies
        )
        rows = np.sum((layer.to_dense() - table) ** 2, axis=1)
        errors.append(np.sum(weights * rows))
    assert errors == sorted(errors, reverse=True)
    return errors
