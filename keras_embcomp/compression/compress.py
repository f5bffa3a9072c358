"""From a trained model to a smaller one."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp.compression.candidates import fitted, rows_between
from keras_embcomp.compression.choose import plan_compression
from keras_embcomp.compression.entries import check_structure
from keras_embcomp.compression.plan import (
    CompressionPlan,
    TablePlan,
    entry_named,
)
from keras_embcomp.compression.statistics import (
    statistics_of,
    weighed_tables,
)
from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.methods import method_named
from keras_embcomp.models.copy import Copying
from keras_embcomp.models.find import Table
from keras_embcomp.models.replace import replacements
from keras_embcomp.numerics.blocks import row_blocks


def compress(
    model: keras.Model,
    plan: CompressionPlan | None = None,
    verbose: int = 0,
    **goal: Any,
) -> keras.Model:
    """Returns a copy of a trained model with its vocabulary tables compressed.

    The copy has the class, the attributes and the ties of the model. Layers
    keep their names, and all others their weights. The model stays as it is.
    If it is compiled, so is the copy, with a new optimizer.

    Args:
        model: Built model of any class, whose layers can be made again
            from their config.
        plan: A `CompressionPlan`; `None` makes one from `goal`.
        verbose: 1 prints the plan and shows progress, 0 nothing.
        **goal: Arguments of `plan_compression`, such as `ratio=20`. Beside a
            plan, `frequencies` and `data` only.

    Raises:
        ValueError: as `plan_compression`, if the plan names layers that the
            model does not have, or if a layer cannot be made again.

    Example:

    >>> words = keras.layers.Embedding(2_000, 32)
    >>> model = keras.Sequential([keras.Input((4,), dtype="int32"), words])
    >>> small = compress(model, ratio=8, method="low_rank")
    >>> small.layers[0].dense_shape
    (2000, 32)
    """
    if goal.get("data") is not None:  # once, for the plan and the fits
        goal["data"] = statistics_of(model, goal["data"], verbose)
    if plan is None:
        plan = plan_compression(model, **goal)
    elif set(goal) - {"frequencies", "data"}:
        raise ValueError(
            "`plan` must come without a goal of its own. Received: a plan and "
            f"{', '.join(sorted(set(goal) - {'frequencies', 'data'}))}"
        )
    elif not isinstance(plan, CompressionPlan):
        raise ValueError(
            "`plan` must be a `CompressionPlan`, or None with a goal such as "
            f"`ratio=20`. Received: plan={plan!r}"
        )
    weighed = weighed_tables(model, goal.get("frequencies"), goal.get("data"))
    tables = {table.path: table for table in weighed}
    plan.check()
    for number, entry in enumerate(plan.tables, start=1):
        with entry_named(number, entry.layer):
            _check_entry(entry, tables)
    entries = [entry for entry in plan.tables if entry.method != "keep"]
    copying = Copying(model)
    copying.check({id(tables[e.layer].layer) for e in entries})
    if verbose:
        print(plan)
    layers = {}
    for entry in entries:
        table = tables[entry.layer]
        layers[entry.layer] = fitted(
            method_named(entry.method),
            entry.number_format,
            {**table.arguments, **entry.arguments},
            table.values,
            table.counts,
            is_input=table.is_input,
            verbose=verbose,
            covariance=table.covariance,
        )
        _refit_bias(layers[entry.layer], table)
    return copying.finished(replacements(list(tables.values()), layers))


def _refit_bias(layer: Compressed, table: Table) -> None:
    """Lets a bias take the mean error of its logits over hidden states."""
    if layer.bias is None or table.mean is None:
        return
    errors = np.concatenate(
        [
            (table.values[part] - rows_between(layer, part)) @ table.mean
            for part in row_blocks(len(table.values))
        ]
    )
    layer.bias.assign(ops.convert_to_numpy(layer.bias) + errors)


def _check_entry(entry: TablePlan, tables: dict[str, Table]) -> None:
    """Raises unless a plan's entry fits its table; corrects its bytes."""
    if entry.layer not in tables:
        raise ValueError(
            "`layer` must be a table of the model, which are "
            f"{', '.join(tables)}. Received: layer={entry.layer!r}"
        )
    table = tables[entry.layer]
    if entry.shape != table.values.shape:
        raise ValueError(
            f"`shape` must be that of the table, {table.values.shape}. "
            f"Received: shape={entry.shape}"
        )
    if entry.method == "keep":
        return
    method = method_named(entry.method)
    held = check_structure(
        entry.method,
        entry.number_format,
        entry.arguments,
        entry.shape,
        side=method.embedding if table.is_input else method.softmax,
    )
    assert held is not None  # by the method, which is not "keep"
    entry.bytes_after = held
