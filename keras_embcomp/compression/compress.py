"""From a trained model to a smaller one."""

from typing import Any

import keras

from keras_embcomp.compression.candidates import fitted, structure_bytes
from keras_embcomp.compression.choose import plan_compression
from keras_embcomp.compression.plan import CompressionPlan, TablePlan
from keras_embcomp.layers.methods import METHODS, method_named
from keras_embcomp.models.copy import check_copyable, replaced
from keras_embcomp.models.find import tables_of


def compress(
    model: keras.Model,
    plan: CompressionPlan | None = None,
    verbose: int = 0,
    **goal: Any,
) -> keras.Model:
    """Returns a copy of a trained model with its vocabulary tables compressed.

    Layers keep their names, and all others their weights. The model stays as
    it is. If it is compiled, so is the copy, with a new optimizer.

    Args:
        model: Built Functional or Sequential model.
        plan: A `CompressionPlan`; `None` makes one from `goal`.
        verbose: 1 prints the plan and shows progress, 0 nothing.
        **goal: Arguments of `plan_compression`, such as `ratio=20`. Beside a
            plan, `frequencies` only.

    Raises:
        ValueError: as `plan_compression`, and if the plan names layers that
            the model does not have.

    Example:

    >>> words = keras.layers.Embedding(2_000, 32)
    >>> model = keras.Sequential([keras.Input((4,), dtype="int32"), words])
    >>> small = compress(model, ratio=8, method="low_rank")
    >>> small.layers[0].dense_shape
    (2000, 32)
    """
    if plan is None:
        plan = plan_compression(model, **goal)
    elif set(goal) - {"frequencies"}:
        raise ValueError(
            "`plan` must come without a goal of its own. Received: a plan and "
            f"{', '.join(sorted(set(goal) - {'frequencies'}))}"
        )
    elif not isinstance(plan, CompressionPlan):
        raise ValueError(
            "`plan` must be a `CompressionPlan`, or None with a goal such as "
            f"`ratio=20`. Received: plan={plan!r}"
        )
    tables = {t.path: t for t in tables_of(model, goal.get("frequencies"))}
    missing = [e.layer for e in plan.tables if e.layer not in tables]
    if missing:
        raise ValueError(
            "`plan` must name tables of the model, which are "
            f"{', '.join(tables)}. Received: {', '.join(missing)}"
        )
    for entry in plan.tables:
        _check_entry(entry, tables[entry.layer].values.shape)
    entries = [entry for entry in plan.tables if entry.method != "keep"]
    check_copyable(model, {id(tables[e.layer].layer) for e in entries})
    if verbose:
        print(plan)
    layers = {}
    for entry in entries:
        table = tables[entry.layer]
        layers[id(table.layer)] = fitted(
            method_named(entry.method),
            entry.number_format,
            entry.arguments,
            table.values,
            table.counts,
            like=table.layer,
            verbose=verbose,
        )
    return replaced(model, layers)


def _check_entry(entry: TablePlan, shape: tuple[int, int]) -> None:
    """Raises unless a plan's entry fits a table; corrects its bytes."""
    if entry.shape != tuple(shape):
        raise ValueError(
            f"The plan of '{entry.layer}' must have the shape of its table, "
            f"{tuple(shape)}. Received: shape={entry.shape}"
        )
    if entry.method == "keep":
        return
    names = [method.name for method in METHODS]
    if entry.method not in names:
        raise ValueError(
            f"The method of '{entry.layer}' must be one of keep, "
            f"{', '.join(names)}. Received: method={entry.method}"
        )
    method = method_named(entry.method)
    if entry.number_format not in method.formats:
        raise ValueError(
            f"The number format of '{entry.layer}' must be one of "
            f"{', '.join(map(str, method.formats))}. "
            f"Received: number_format={entry.number_format}"
        )
    try:
        entry.bytes_after = structure_bytes(
            method, entry.number_format, entry.arguments, shape
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The arguments of '{entry.layer}' must be those of "
            f"`{method.embedding.__name__}`. "
            f"Received: {entry.arguments} ({error})"
        ) from error
