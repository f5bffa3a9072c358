"""What data do to the tables of a model: which rows they reach, and how."""

import itertools
import time
import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import activations, ops

from keras_embcomp._compat import get_mask
from keras_embcomp._types import Array
from keras_embcomp.checks import positive_int
from keras_embcomp.models.batches import Batch, batches_of
from keras_embcomp.models.find import Table, tables_of
from keras_embcomp.models.recorded import Call, Recording, records_of
from keras_embcomp.numerics.covariance import Turning
from keras_embcomp.numerics.ragged import densified, is_jagged, is_ragged

_MOST = 0.5  # of all ids: one that has more is told


class TableStatistics(NamedTuple):
    """What data do to one table.

    Attributes:
        counts: float64 array of shape `(vocabulary,)`. How often each row is
            looked up; of an output layer, the sum of `p (1 - p)` over the
            hidden states, with `p` what the model gives a word: how much the
            loss feels an error of its logit. `None` if neither is known.
        covariance: Second moments `E[h h^T]` of shape `(width, width)`, or
            `None`: of the hidden states that reach an output layer; of the
            gradients of the loss in the rows that were looked up. Those of a
            tied table are the mean of both.
        mean: Their mean, of shape `(width,)`, or `None`.
        positions: How many ids and hidden states there were, without padding.
    """

    counts: Array | None
    covariance: Array | None = None
    mean: Array | None = None
    positions: int = 0


class Statistics(NamedTuple):
    """What data do to the tables of a model.

    Attributes:
        tables: `TableStatistics` by path of the table.
        seconds: How long the pass took.
    """

    tables: dict[str, TableStatistics]
    seconds: float


def table_statistics(
    model: keras.Model,
    data: Any,
    batch_size: int = 32,
    steps: int | None = None,
    loss: Any = None,
    verbose: int = 0,
) -> Statistics:
    """Returns what data do to the vocabulary tables of a model.

    One pass, as `predict` makes it; with targets and a loss it goes back too,
    which takes two to three times as long, and says what the loss feels of the
    rows of an embedding. Plans weigh the errors of tables by it:
    `compress(model, ratio=10, data=data)` does both. The model stays as it is.

    Args:
        model: Built model of any class.
        data: What `predict` or `fit` takes: inputs as arrays, a tuple of them
            and targets, or what yields batches of either, such as a
            `tf.data.Dataset`. Strings for a task of keras-hub.
        batch_size: Integer. Samples of a batch of arrays.
        steps: Integer. How many batches are looked at, at most.
        loss: A loss of Keras, or one for each output, if the data have
            targets. That of `compile` if the model has one; `False` for none.
        verbose: 1 shows a progress bar.

    Returns:
        `Statistics`. Its attribute `tables` has a `TableStatistics` by the path
        of each table, as plans name them.

    Raises:
        ValueError: if the model does not take the data, a table is not reached
            by them, or hidden states are not finite (names the layer).

    Example:

    >>> words = keras.layers.Embedding(2_000, 32, name="words")
    >>> model = keras.Sequential([keras.Input((4,), dtype="int32"), words])
    >>> found = table_statistics(model, np.array([[0, 1, 1, 2]], "int32"))
    >>> found.tables["words"].counts[:4]
    array([1., 2., 1., 0.])

    Reference:
    - [Chen et al., 2021](https://openreview.net/forum?id=b6zgiIEUq4R), of the
      hidden states
    """
    start = time.perf_counter()
    tables = tables_of(model)
    batches = batches_of(
        data, positive_int("batch_size", batch_size), _steps(steps)
    )
    layers: dict[str, Any] = {table.path: table.layer for table in tables}
    sums = {table.path: _Sums(table) for table in tables}
    progress = keras.utils.Progbar(batches.number, verbose=verbose)
    each, with_targets = _with_first(model, batches.each)
    found_loss = loss_of(model, loss) if with_targets else None
    if loss and not with_targets:
        raise ValueError(
            f"`data` must have targets for a `loss`. Received: loss={loss!r}"
        )
    recording = Recording(
        model,
        layers,
        lambda path, call: sums[path].of_call(call),
        found_loss,
        with_gradient,
        {table.path for table in tables if table.is_input},
    )
    seen = 0
    for records_by_path in records_of(recording, each):
        seen += 1
        for path, records in records_by_path.items():
            for record in records:
                sums[path].add(record)
        progress.add(1)
    if not seen:
        raise ValueError("`data` must have batches. Received: none")
    found = {path: one.statistics() for path, one in sums.items()}
    return Statistics(found, time.perf_counter() - start)


def _with_first(model, batches):
    """Returns all batches, and whether the first has targets."""
    each = (preprocessed(model, batch) for batch in batches)
    first = list(itertools.islice(each, 1))
    with_targets = bool(first) and first[0].y is not None
    return itertools.chain(first, each), with_targets


def preprocessed(model: keras.Model, batch: Batch) -> Batch:
    """Returns a batch as a task of keras-hub gives it to its network."""
    if getattr(model, "preprocessor", None) is None:
        return batch
    if not hasattr(model, "preprocess_samples") or not _holds_text(batch.x):
        return batch
    found = model.preprocess_samples(*batch)
    return Batch(*found) if isinstance(found, tuple) else Batch(found)


def loss_of(model: keras.Model, loss: Any) -> Any:
    """Returns a function of targets, outputs and weights, or `None`.

    Args:
        model: A model, whose loss is taken for `None`.
        loss: A loss of Keras, its name, a list or dictionary of them, or
            `False`.
    """
    if loss is None:
        loss = getattr(model, "loss", None)
    if loss is None or loss is False:
        return None
    if not isinstance(loss, (dict, list, tuple)):
        return _single(loss)
    losses = keras.tree.map_structure(_single, loss)

    def summed(y, outputs, weights):
        if isinstance(losses, dict) and not isinstance(outputs, dict):
            outputs = dict(zip(model.output_names, outputs, strict=True))
        keys = losses if isinstance(losses, dict) else range(len(losses))
        return sum(
            losses[key](y[key], outputs[key], weights[key] if weights else None)
            for key in keys
        )

    return summed


def _single(loss):
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if not callable(loss):
        raise ValueError(
            f"`loss` must be a loss of Keras. Received: loss={loss!r}"
        )
    if not isinstance(loss, keras.losses.Loss):
        loss = _OfFunction(loss)
    return lambda y, outputs, weights: loss(y, outputs, weights)


class _OfFunction(keras.losses.Loss):
    """The mean of a function of targets and outputs."""

    def __init__(self, function):
        super().__init__(name="loss")
        self.function = function

    def call(self, y_true, y_pred):
        if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
            y_true = ops.expand_dims(y_true, -1)
        return self.function(y_true, y_pred)


def with_gradient(record: dict[str, Any], gradient: Any) -> dict[str, Any]:
    """Returns a record of a lookup with the moments of its gradient."""
    if "ids" not in record:
        return record
    rows = _flat(gradient)
    found = {**record, "gradients": ops.matmul(ops.transpose(rows), rows)}
    if rows.shape[0] is None or rows.shape[0] == record["ids"].shape[0]:
        found["felt"] = ops.any(rows != 0, axis=-1)
    return found


def _holds_text(inputs):
    for leaf in keras.tree.flatten(inputs):
        kind = getattr(leaf, "dtype", None)
        if isinstance(leaf, str) or str(kind) in ("string", "object"):
            return True
        if str(kind).startswith("<U") or "string" in str(kind):
            return True
    return False


def _steps(steps):
    return None if steps is None else positive_int("steps", steps)


class _Sums:
    """Sums over all calls of a table's layer."""

    def __init__(self, table: Table) -> None:
        self.path, self.is_input = table.path, table.is_input
        self.layer: Any = table.layer
        self.skipped = 0 if getattr(self.layer, "mask_zero", False) else None
        vocabulary, width = table.values.shape
        self.lookups = np.zeros(vocabulary)
        self.felt = np.zeros(vocabulary)
        self.weights = np.zeros(vocabulary)
        self.moments = np.zeros((width, width))
        self.total = np.zeros(width)
        self.gradients = np.zeros((width, width))
        self.states = 0.0

    # Within the compiled program.

    def of_call(self, call: Call) -> dict[str, Any]:
        """Returns what a call adds."""
        if isinstance(self.layer, keras.layers.Dense):
            return self._of_states(call)
        reverse = call.others.get("reverse", call.others.get(1)) is True
        tied = getattr(self.layer, "tie_weights", True)
        if not tied and self.is_input == reverse:
            return {}  # of the layer's other table
        return self._of_states(call) if reverse else {"ids": _flat_ids(call)}

    def _of_states(self, call):
        states, outputs = map(_flat, (call.inputs, call.outputs))
        mask = get_mask(call.inputs)
        if mask is None:
            there = ops.ones_like(states[:, :1])
        else:
            there = ops.cast(ops.reshape(mask, (-1, 1)), "float32")
            # What is left out may be anything.
            states = ops.where(there > 0, states, 0.0)
        found = {
            "states": ops.sum(there),
            "total": ops.sum(states, axis=0),
            "moments": ops.matmul(ops.transpose(states), states),
        }
        shares = self._shares(outputs)
        if shares is not None:
            variances = ops.where(there > 0, shares * (1 - shares), 0.0)
            found["weights"] = ops.sum(variances, axis=0)
        return found

    def _shares(self, outputs):
        """Returns probabilities of words, or `None` for other outputs."""
        activation = getattr(self.layer, "activation", None)
        if activation in (activations.softmax, activations.sigmoid):
            return outputs
        if activation in (None, activations.linear):
            return ops.softmax(outputs)
        return None

    # Outside.

    def add(self, record: dict[str, Array]) -> None:
        """Adds what was recorded of a call."""
        if "ids" in record:
            ids, size = record["ids"].astype("int64"), len(self.lookups)
            known = (ids >= 0) & (ids < size)
            if self.skipped is not None:
                known &= ids != self.skipped
            self.lookups += np.bincount(ids[known], minlength=size)
            felt = record.get("felt", known)
            if len(felt) == len(ids):
                known &= felt
            self.felt += np.bincount(ids[known], minlength=size)
        if "gradients" in record:
            self._check_finite(record["gradients"], "gradients")
            self.gradients += record["gradients"]
        if "states" in record:
            self._check_finite(record["moments"], "hidden states")
            self.states += float(record["states"])
            self.total += record["total"]
            self.moments += record["moments"]
            self.weights += record.get("weights", 0.0)

    def _check_finite(self, moments, what):
        if not np.isfinite(moments).all():
            raise ValueError(
                f"`data` must give finite {what}. Received: NaN or infinity "
                f"at '{self.path}'"
            )

    def statistics(self) -> TableStatistics:
        """Returns the statistics of all that was added."""
        if self.felt.any():  # without what has no gradient, such as padding
            self.lookups = self.felt
        looked_up = self.lookups.sum()
        if not looked_up and not self.states:
            raise ValueError(
                "`data` must reach every table of the model. Received: data "
                f"without an id or a hidden state for '{self.path}'"
            )
        self._warn_of_one_id(looked_up)
        counts = [x / x.sum() for x in (self.lookups, self.weights) if x.any()]
        moments = [
            x / np.trace(x)
            for x in (self.moments, self.gradients)
            if np.trace(x) > 0
        ]
        covariance = sum(moments) / len(moments) if moments else None
        mean = None
        if self.states and not self.gradients.any():
            covariance, mean = (
                x / self.states for x in (self.moments, self.total)
            )
        positions = int(looked_up + self.states)
        return TableStatistics(
            positions * sum(counts) / len(counts) if counts else None,
            covariance,
            mean,
            positions,
        )

    def _warn_of_one_id(self, looked_up):
        most = int(self.lookups.argmax())
        if self.lookups[most] > _MOST * looked_up:
            warnings.warn(
                f"Id {most} of '{self.path}' has "
                f"{self.lookups[most] / looked_up:.0%} of the data's ids, so "
                "its row decides the error. If it is padding, make the layer "
                "with `mask_zero=True`.",
                stacklevel=4,
            )


def _flat(tensor):
    tensor = densified(tensor)
    tensor = getattr(tensor, "flat_values", tensor)
    return ops.reshape(ops.cast(tensor, "float32"), (-1, int(tensor.shape[-1])))


def _flat_ids(call):
    """Returns the ids of a lookup; those of a bag that weigh nothing are -1."""
    ids = call.inputs
    if is_ragged(ids):
        ids = ids.flat_values
    elif is_jagged(ids):
        ids = ids.values()
    ids = ops.cast(ops.reshape(densified(ids), (-1,)), "int32")
    weights = call.others.get("weights", call.others.get(1))
    if weights is not None and getattr(weights, "shape", None) is not None:
        weights = getattr(weights, "flat_values", weights)
        ids = ops.where(ops.reshape(weights, (-1,)) != 0, ids, -1)
    return ids


def statistics_of(
    model: keras.Model, data: Any, verbose: int = 0
) -> Statistics:
    """Returns the statistics of data, or those that `data` is."""
    if isinstance(data, Statistics):
        return data
    return table_statistics(model, data, verbose=verbose)


def weighed_tables(
    model: keras.Model, frequencies: Any = None, data: Any = None
) -> list[Table]:
    """Returns the dense tables of a model, with what counts in each.

    Args:
        model: Built model.
        frequencies: As for `plan_compression`; they go before those of data.
        data: As for `plan_compression`.
    """
    tables = tables_of(model, frequencies)
    if data is None:
        return tables
    found = statistics_of(model, data).tables
    missing = [t.path for t in tables if t.path not in found]
    if missing:
        raise ValueError(
            "`data` must be statistics of all tables of the model. "
            f"Received: none of {', '.join(missing)}"
        )
    return [_weighed(table, found[table.path]) for table in tables]


def _weighed(table, found):
    covariance, mean, turned = found.covariance, found.mean, None
    if covariance is not None:
        if table.arguments.get("use_bias"):  # which takes the mean's part
            covariance = covariance - np.outer(mean, mean)
        turning = Turning.of(covariance, table.values.shape[1])
        turned = turning.turned(table.values)
    return table._replace(
        counts=found.counts if table.counts is None else table.counts,
        covariance=covariance,
        mean=mean,
        turned=turned,
    )
