"""Makes a copy of a model by a plan."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_embcomp.compression.candidates import fitted, rows_between
from keras_embcomp.compression.entries import check_structure
from keras_embcomp.compression.plan import (
    CompressionPlan,
    TablePlan,
    entry_named,
)
from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.methods import method_named
from keras_embcomp.models.copy import Copying
from keras_embcomp.models.find import Table
from keras_embcomp.models.replace import replacements
from keras_embcomp.numerics.blocks import row_blocks


def compressed(
    model: keras.Model,
    tables: Sequence[Table],
    plan: CompressionPlan,
    verbose: int = 0,
) -> keras.Model:
    """Returns a copy of a model whose tables are compressed by a plan.

    Args:
        model: Built model of any class.
        tables: Its dense tables, with what counts in each.
        plan: A plan of some of them.
        verbose: 1 prints the plan and shows progress.

    Raises:
        ValueError: if the plan names layers that the model does not have, or
            if a layer cannot be made again.
    """
    known = {table.path: table for table in tables}
    plan.check()
    for number, entry in enumerate(plan.tables, start=1):
        with entry_named(number, entry.layer):
            _check_entry(entry, known)
    entries = [entry for entry in plan.tables if entry.method != "keep"]
    copying = Copying(model)
    copying.check({id(known[e.layer].layer) for e in entries})
    if verbose:
        print(plan)
    layers = {}
    for entry in entries:
        table = known[entry.layer]
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
    return copying.finished(replacements(tables, layers))


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
