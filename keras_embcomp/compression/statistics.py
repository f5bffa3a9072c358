"""What data do to the tables of a model: which rows they reach, and how."""

import itertools
import time
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_embcomp.checks import positive_int
from keras_embcomp.compression.losses import loss_of
from keras_embcomp.compression.table_sums import (
    TableStatistics,
    TableSums,
    with_gradient,
)
from keras_embcomp.models.batches import Batch, batches_of
from keras_embcomp.models.find import Table, tables_of
from keras_embcomp.models.recorded import Recording, records_of
from keras_embcomp.numerics.covariance import Turning


class ModelStatistics(NamedTuple):
    """What data do to the tables of a model.

    Args:
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
) -> ModelStatistics:
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
        `ModelStatistics`. Its attribute `tables` has a `TableStatistics` by the
        path of each table, as plans name them.

    Raises:
        ValueError: if the model does not take the data, a table is not reached
            by them, or hidden states are not finite (names the layer).

    Example:

    >>> words = keras.layers.Embedding(2_000, 32, name="words")
    >>> model = keras.Sequential([keras.Input((4,), dtype="int32"), words])
    >>> found = table_statistics(model, np.array([[0, 1, 1, 2]], "int32"))
    >>> found.tables["words"].counts[:3]
    array([1., 2., 1.])

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
    sums = {table.path: TableSums(table) for table in tables}
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
    return ModelStatistics(found, time.perf_counter() - start)


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
    texts = keras.tree.map_structure(_as_texts, batch.x)
    found = model.preprocess_samples(texts, batch.y, batch.sample_weight)
    return Batch(*found) if isinstance(found, tuple) else Batch(found)


def _holds_text(inputs):
    return any(
        isinstance(leaf, str)
        or getattr(getattr(leaf, "dtype", None), "kind", "") in "OSU"
        or getattr(leaf, "dtype", None) == "string"
        for leaf in keras.tree.flatten(inputs)
    )


def _as_texts(leaf):
    """Returns an array of strings as a list, as tokenizers take them."""
    if getattr(getattr(leaf, "dtype", None), "kind", "") in "OSU":
        return leaf.tolist()
    return leaf


def _steps(steps):
    return None if steps is None else positive_int("steps", steps)


def statistics_of(
    model: keras.Model, data: Any, verbose: int = 0
) -> ModelStatistics:
    """Returns the statistics of data, or those that `data` is."""
    if isinstance(data, ModelStatistics):
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
    covariance, mean = found.covariance, found.mean
    turning = turned = None
    if covariance is not None:
        if table.arguments.get("use_bias"):  # which takes the mean's part
            covariance = covariance - np.outer(mean, mean)
        turning = Turning.of(covariance, table.values.shape[1])
        turned = turning.turned(table.values)
    return table._replace(
        counts=found.counts if table.counts is None else table.counts,
        covariance=covariance,
        mean=mean,
        turning=turning,
        turned=turned,
    )
