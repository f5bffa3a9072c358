"""Runs a model on data and records what chosen layers take and return."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_embcomp._compat import every_layer
from keras_embcomp.models.batches import Batch

Records: TypeAlias = dict[str, list[Any]]
# From targets, outputs and weights of the samples to what is minimised.
Loss: TypeAlias = Callable[[Any, Any, Any], Any]


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


class Forward(NamedTuple):
    """What running a model gives.

    Attributes:
        outputs: Its outputs.
        names: The name of the layer of each call, in order.
        records: What was recorded of each call.
        watched: The outputs of calls that gradients are of.
    """

    outputs: Any
    names: list[str]
    records: list[Any]
    watched: list[Any]


class Recording(NamedTuple):
    """What to record of a model.

    Attributes:
        model: Built model.
        layers: Layers of the model by a name each.
        record: Function of a name and a call that returns a dictionary of
            tensors. It runs within the compiled program.
        loss: What gradients are of, or `None`.
        with_gradient: Function of what was recorded of a call and the gradient
            of the loss in its outputs, that returns both as one record.
        watched: Names of layers whose calls get a gradient.
    """

    model: keras.Model
    layers: Mapping[str, keras.Layer]
    record: Callable[[str, Call], dict[str, Any]]
    loss: Loss | None = None
    with_gradient: Callable[[dict[str, Any], Any], dict[str, Any]] | None = None
    watched: Collection[str] = ()

    def forward(
        self, inputs: Any, watch: Callable[[Any], Any] = lambda outputs: outputs
    ) -> Forward:
        """Runs the model. What `watch` returns stands for watched outputs."""
        names: list[str] = []
        records: list[Any] = []
        watched: list[Any] = []

        def noted(name, call):
            def recorded(inputs, *args, **kwargs):
                outputs = call(inputs, *args, **kwargs)
                others: dict[Any, Any] = dict(enumerate(args, start=1))
                others.update(kwargs)
                record = self.record(name, Call(inputs, others, outputs))
                if record and name in self.watched:
                    outputs = watch(outputs)
                    watched.append(outputs)
                names.append(name)
                records.append(record)
                return outputs

            return recorded

        for name, layer in self.layers.items():
            vars(layer)["call"] = noted(name, layer.call)
        try:
            outputs = self.model(inputs, training=False)
        finally:
            for layer in self.layers.values():
                vars(layer).pop("call", None)  # two tables may have one layer
        return Forward(outputs, names, records, watched)

    def lost(self, batch: Batch, outputs: Any) -> Any:
        """Returns the sum of the loss over the samples of a batch."""
        assert self.loss is not None
        samples = ops.shape(keras.tree.flatten(batch.x)[0])[0]
        loss = self.loss(batch.y, outputs, batch.sample_weight)
        return loss * ops.cast(samples, loss.dtype)

    def by_name(
        self, names: list[str], records: list[Any], gradients: Any = None
    ) -> Records:
        """Returns records by name, with gradients if there are any."""
        found: Records = {name: [] for name in self.layers}
        left = None if gradients is None else iter(gradients)
        for name, record in zip(names, records, strict=True):
            if left is not None and record and name in self.watched:
                assert self.with_gradient is not None
                record = self.with_gradient(record, next(left))
            found[name].append(record)
        return found


def records_of(
    recording: Recording, batches: Iterable[Batch]
) -> Iterator[Records]:
    """Yields what is recorded of each batch.

    The model runs as `predict` runs it, compiled on TensorFlow and JAX. What
    nothing recorded depends on is not computed there. Its state is the same
    afterwards.

    Yields:
        By name, a list of what `record` returned for each call, in NumPy.
    """
    with _state_kept(recording.model):
        run = _compiled(recording)
        for batch in batches:
            if recording.loss is None:
                batch = Batch(batch.x)
            found = run(keras.tree.map_structure(_tensor, batch))
            yield keras.tree.map_structure(ops.convert_to_numpy, found)


@contextlib.contextmanager
def _state_kept(model: keras.Model) -> Iterator[None]:
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


def _compiled(recording):
    """Returns a function of a batch as the backend compiles it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _compiled_in_tensorflow(recording)
    if backend == "jax":
        return _compiled_in_jax(recording)
    return _run_in_torch(recording)


def _compiled_in_tensorflow(recording):
    import tensorflow as tf

    def run(batch):
        if recording.loss is None:
            found = recording.forward(batch.x)
            return recording.by_name(found.names, found.records)
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def watch(outputs):
                tape.watch(outputs)
                return outputs

            found = recording.forward(batch.x, watch)
            lost = recording.lost(batch, found.outputs)
        gradients = tape.gradient(
            lost,
            found.watched,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return recording.by_name(found.names, found.records, gradients)

    return tf.function(run, reduce_retracing=True, autograph=False)


def _compiled_in_jax(recording):
    import jax

    variables = [*recording.model.variables, *_states(recording.model)]
    names: list[list[str]] = []  # of the calls, as they are traced

    def lost_of(additions, values, batch):
        """Returns the loss, the records and the weights afterwards."""
        shapes, left = [], None if additions is None else iter(additions)

        def watch(outputs):
            shapes.append(jax.ShapeDtypeStruct(outputs.shape, outputs.dtype))
            return outputs if left is None else outputs + next(left)

        state = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state) as scope:
            found = recording.forward(batch.x, watch)
            lost = 0.0
            if recording.loss is not None:
                lost = recording.lost(batch, found.outputs)
        after = [scope.get_current_value(variable) for variable in variables]
        after = [
            value if new is None else new
            for value, new in zip(values, after, strict=True)
        ]
        names.append(found.names)
        return lost, (found.records, after, shapes if left is None else None)

    @jax.jit
    def pure(values, batch):
        if recording.loss is None:
            _, (records, after, _) = lost_of(None, values, batch)
            return recording.by_name(names[-1], records), after
        shapes: list[Any] = []

        def traced():
            shapes.extend(lost_of(None, values, batch)[1][2] or ())
            return 0.0

        jax.eval_shape(traced)
        zeros = [jax.numpy.zeros(one.shape, one.dtype) for one in shapes]
        gradients, (records, after, _) = jax.grad(lost_of, has_aux=True)(
            zeros, values, batch
        )
        return recording.by_name(names[-1], records, gradients), after

    values = [variable.value for variable in variables]

    def compiled(batch):
        nonlocal values
        found, values = pure(values, batch)
        return found

    return compiled


def _run_in_torch(recording):
    import torch

    def run(batch):
        if recording.loss is None:
            with torch.no_grad():
                found = recording.forward(batch.x)
                return recording.by_name(found.names, found.records)
        with torch.enable_grad():
            found = recording.forward(
                batch.x, lambda outputs: outputs.detach().requires_grad_()
            )
            lost = recording.lost(batch, found.outputs)
        known = torch.autograd.grad(lost, found.watched, allow_unused=True)
        with torch.no_grad():
            gradients = [
                torch.zeros_like(x) if gradient is None else gradient
                for x, gradient in zip(found.watched, known, strict=True)
            ]
            return recording.by_name(found.names, found.records, gradients)

    return run


def _tensor(value):
    """Returns an array as the backend takes it; strings and others stay."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        return value
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        return ops.convert_to_tensor(value)
    return value
