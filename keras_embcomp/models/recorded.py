"""Runs a model on data and records what chosen layers take and return."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_embcomp._compat import every_layer

Records: TypeAlias = dict[str, list[Any]]


class Call(NamedTuple):
    """A call of a layer.

    Attributes:
        inputs: Its first argument.
        others: Its other arguments by name; those without a name are numbered.
        outputs: What it returned.
    """

    inputs: Any
    others: dict[Any, Any]
    outputs: Any


def records_of(
    model: keras.Model,
    layers: Mapping[str, keras.Layer],
    record: Callable[[str, Call], Any],
    batches: Iterable[Any],
) -> Iterator[Records]:
    """Yields what is recorded of the calls of layers in each batch.

    The model runs as `predict` runs it, compiled on TensorFlow and JAX. What
    nothing recorded depends on is not computed there. Its state is the same
    afterwards.

    Args:
        model: Built model.
        layers: Layers of the model by a name each.
        record: Function of a name and a call that returns tensors. It runs
            within the compiled program.
        batches: Inputs of the model.

    Yields:
        By name, a list of what `record` returned for each call, in NumPy.
    """

    def run(inputs: Any) -> Records:
        found: Records = {name: [] for name in layers}
        with _recording(layers, record, found):
            model(inputs, training=False)
        return found

    with _state_kept(model):
        compiled = _compiled(model, run)
        for inputs in batches:
            found = compiled(keras.tree.map_structure(_tensor, inputs))
            yield keras.tree.map_structure(ops.convert_to_numpy, found)


@contextlib.contextmanager
def _recording(layers, record, found):
    """Calls of layers within are recorded."""
    for name, layer in layers.items():
        own = vars(layer)
        own["call"] = _recorded(name, layer.call, record, found[name])
    try:
        yield
    finally:
        for layer in layers.values():
            vars(layer).pop("call", None)  # two tables may have one layer


def _recorded(name, call, record, found):
    def recorded(inputs, *args, **kwargs):
        outputs = call(inputs, *args, **kwargs)
        others: dict[Any, Any] = dict(enumerate(args, start=1))
        others.update(kwargs)
        found.append(record(name, Call(inputs, others, outputs)))
        return outputs

    return recorded


@contextlib.contextmanager
def _state_kept(model):
    """Sets weights that calls change back, as those of stateful layers."""
    weights = [*model.non_trainable_variables, *_states(model)]
    before = [np.array(ops.convert_to_numpy(weight)) for weight in weights]
    try:
        yield
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)


def _states(model):
    """Returns the states of recurrent layers, which are no weights in Keras."""
    return [
        state
        for layer in every_layer(model)
        if getattr(layer, "stateful", False)
        for state in keras.tree.flatten(layer.states)
        if isinstance(state, keras.Variable)
    ]


def _compiled(model, run):
    """Returns a function of inputs as the backend compiles it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(run, reduce_retracing=True, autograph=False)
    if backend == "jax":
        return _compiled_in_jax(model, run)
    import torch

    return torch.no_grad()(run)


def _compiled_in_jax(model, run):
    import jax

    variables = [*model.variables, *_states(model)]

    @jax.jit
    def pure(values, inputs):
        state = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state) as scope:
            found = run(inputs)
        after = [scope.get_current_value(variable) for variable in variables]
        return found, [
            value if new is None else new
            for value, new in zip(values, after, strict=True)
        ]

    values = [variable.value for variable in variables]

    def compiled(inputs):
        nonlocal values
        found, values = pure(values, inputs)
        return found

    return compiled


def _tensor(value):
    """Returns an array as the backend takes it; strings and others stay."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        return value
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        return ops.convert_to_tensor(value)
    return value
