"""Chooses a method and its sizes for each table of a model."""

import gc
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_embcomp.checks import frequency_weights, one_of, positive_number
from keras_embcomp.compression.candidates import (
    arguments_for,
    fitted,
    least_bytes,
    rows_between,
)
from keras_embcomp.compression.plan import CompressionPlan, TablePlan
from keras_embcomp.compression.statistics import weighed_tables
from keras_embcomp.layers.method import EFFORTS, Method
from keras_embcomp.layers.methods import METHODS, method_named
from keras_embcomp.models.find import Table
from keras_embcomp.numerics.blocks import row_blocks, squared_norms

# A method, a number format and an effort.
Try: TypeAlias = tuple[Method, str | None, str]

_SHARES = (0.5, 0.7, 1.0, 1.4, 2.0)
_SMALL = 1e-3  # of the budget: a table that is kept
_LARGE = 2**26  # bytes, for which a collection of garbage is worth its time
_RATIOS = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2)


class UnreachableError(ValueError):
    """A budget that no method meets."""


def plan_compression(
    model: keras.Model,
    ratio: float | None = None,
    max_error: float | None = None,
    max_bytes: float | None = None,
    frequencies: Any = None,
    method: str = "auto",
    effort: str = "low",
    data: Any = None,
) -> CompressionPlan:
    """Returns how to compress the vocabulary tables of a trained model.

    Looks at every `Embedding`, `ReversibleEmbedding` (its two sides are one
    table, or two that are not tied) and `Dense` of 1,000 units or more that
    has more units than inputs and whose outputs no other layer multiplies,
    wherever the model holds them. Methods and
    number formats are tried on the tables themselves, of which k-means sees a
    sample; nothing is copied or changed.

    Args:
        model: Built model of any class.
        ratio: Number above 1: bytes of the tables before, over those after.
        max_error: Number between 0 and 1: the largest relative error of a
            table. One of `ratio`, `max_error` and `max_bytes` must be given.
        max_bytes: Integer: the bytes that all tables may take together.
        frequencies: Counts of the rows, of shape `(vocabulary,)`, or a
            dictionary of them by path of the layer. If given, a row's squared
            error is weighed by its count.
        method: `"auto"`, or the one to use: `"trellis_codes"`,
            `"product_codes"`, `"low_rank"`, `"group_reduce"`, `"distilled"`,
            `"tensor_train"` or `"hashed"`.
        effort: `"low"`, or `"high"` for trellis codes that are some percent
            nearer to the table and take four times as long to fit.
        data: Data of the model, as `fit` or `predict` takes them, or what
            `table_statistics` returned. If given, rows count as much as data
            reach them, and errors of an output table are those of its logits.
            `frequencies` that are given go before.

    Returns:
        A `CompressionPlan`.

    Raises:
        ValueError: if there is nothing to compress, a budget cannot be met
            (says which could), or counts fit no table.

    Example:

    >>> words = keras.layers.Embedding(2_000, 32)
    >>> model = keras.Sequential([keras.Input((4,), dtype="int32"), words])
    >>> plan = plan_compression(model, ratio=8, method="low_rank")
    >>> plan.bytes_before / plan.bytes_after > 8
    True
    """
    check_goal(ratio=ratio, max_error=max_error, max_bytes=max_bytes)
    tries = tries_of(method, effort)
    tables = weighed_tables(model, frequencies, data)
    if max_error is not None:
        return CompressionPlan(
            [_nearest(table, max_error, tries) for table in tables]
        )
    held = sum(table.bytes for table in tables)
    budget = max_bytes
    if budget is None:
        assert ratio is not None  # by `check_goal`
        budget = held / ratio
    return plan_of(tables, budget, tries)


def plan_of(
    tables: list[Table], budget: float, tries: list[Try]
) -> CompressionPlan:
    """Returns the plan of least error for tables that keep to a budget.

    Tables that are small beside the budget are kept, as nothing is to be gained
    of them: a table that is alone then is fitted to one budget, not to several.
    """
    small: set[int] = set()
    sizes = sorted((t.bytes, n) for n, t in enumerate(tables))
    left = budget
    for held, number in sizes:
        if held > _SMALL * budget or len(small) == len(tables) - 1:
            break
        small.add(number)
        left -= held
    large = [t for n, t in enumerate(tables) if n not in small]
    if len(large) == 1:
        plans = [best_plan(large[0], left, tries)]
    else:
        plans = _of_several(large, left, tries)
    found = iter(plans)
    return CompressionPlan(
        [
            _kept(table) if number in small else next(found)
            for number, table in enumerate(tables)
        ]
    )


def _of_several(tables, budget, tries):
    """Returns one plan a table, from plans for several budgets of each."""
    held = sum(table.bytes for table in tables)
    curves = []
    for table in tables:
        fair = budget * table.bytes / held
        plans = [_best(table, share * fair, tries) for share in _SHARES]
        if not any(plans):
            plans = [_smallest(table, tries)]
        curves.append([_kept(table), *filter(None, plans)])
    return _divided(tables, curves, budget, tries)


def check_goal(**goals: float | None) -> None:
    """Raises unless one goal is given, and in its range."""
    given = {name: x for name, x in goals.items() if x is not None}
    if len(given) != 1:
        *names, last = (f"`{name}`" for name in goals)
        raise ValueError(
            f"One of {', '.join(names)} and {last} must be given. "
            f"Received: {', '.join(given) or 'none of them'}"
        )
    ((name, value),) = given.items()
    positive_number(name, value)
    if name == "ratio" and value <= 1:
        raise ValueError(f"`ratio` must be above 1. Received: ratio={value}")
    if name == "max_error" and value >= 1:
        raise ValueError(
            f"`max_error` must be below 1. Received: max_error={value}"
        )


def tries_of(name: str, effort: str = "low") -> list[Try]:
    """Returns the methods and number formats to try for a method's name."""
    one_of("effort", effort, EFFORTS)
    one_of("method", name, ("auto", *(method.name for method in METHODS)))
    if name == "auto":
        return [
            (method, form, effort)
            for method in METHODS
            for form in method.formats_of_auto
        ]
    method = method_named(name)
    return [(method, form, effort) for form in method.formats]


def best_plan(table: Table, max_bytes: float, tries: list[Try]) -> TablePlan:
    """Returns the plan of least error for a table and a budget, or raises."""
    if max_bytes >= table.bytes:
        return _kept(table)
    plan = _best(table, max_bytes, tries)
    if plan is None:
        raise _unreachable(max_bytes, [table], tries)
    return plan


def _best(table, max_bytes, tries):
    """Returns the plan of least error that takes at most so many bytes."""
    weights = frequency_weights(table.counts, len(table.values))
    plans = []
    for method, number_format, effort in _suited(table, tries):
        values = _seen_by(method, table)
        found = arguments_for(
            method, number_format, values, max_bytes, weights, effort
        )
        if found is None:
            continue
        plans.append(_plan(table, method, number_format, *found))
    return min(plans, key=lambda plan: plan.error, default=None)


def _suited(table, tries):
    """Returns the tries without formats that the layer cannot compute in."""
    layer = table.layer
    half = layer is not None and layer.compute_dtype == "float16"
    return [how for how in tries if how[1] is None or not half]


def _smallest(table, tries):
    """Returns the smallest plan there is for a table."""
    shape = table.values.shape
    tries = _suited(table, tries)
    method, number_format, _ = min(
        tries, key=lambda how: least_bytes(how[0], how[1], shape)
    )
    return _plan(
        table,
        method,
        number_format,
        method.smallest(shape),
        least_bytes(method, number_format, shape),
    )


def _plan(table, method, number_format, arguments, held):
    """Returns a plan with its expected error."""
    shape = table.values.shape
    return TablePlan(
        layer=table.path,
        shape=shape,
        method=method.name,
        number_format=number_format,
        arguments=arguments,
        bytes_before=table.bytes,
        bytes_after=held,
        error=_relative_error(method, number_format, arguments, table),
        operations=method.operations(arguments, shape, not table.is_input),
    )


def _nearest(table, max_error, tries):
    """Returns the smallest plan within an error; keeps the layer if none is."""
    *ratios, least = _RATIOS
    largest = _best(table, table.bytes / least, tries)
    if largest is None or largest.error > max_error:
        return _kept(table)  # as fewer bytes lose more
    for ratio in ratios:
        plan = _best(table, table.bytes / ratio, tries)
        if plan is not None and plan.error <= max_error:
            return plan
    return largest


def _kept(table):
    """Returns the plan that leaves a table as it is."""
    return TablePlan(
        layer=table.path,
        shape=table.values.shape,
        method="keep",
        number_format=None,
        arguments={},
        bytes_before=table.bytes,
        bytes_after=table.bytes,
        error=0.0,
        operations=0,
    )


def _divided(tables, curves, budget, tries):
    """Returns one plan a table, with the least sum of squared errors.

    From the smallest plans on, the step to a larger one that lowers the sum
    most for its bytes is taken, as long as one fits.
    """
    curves = [sorted(curve, key=lambda p: p.bytes_after) for curve in curves]
    chosen = [curve[0] for curve in curves]
    left = budget - sum(plan.bytes_after for plan in chosen)
    if left < 0:
        raise _unreachable(budget, tables, tries)
    while True:
        steps = []
        for number, (plan, curve) in enumerate(
            zip(chosen, curves, strict=True)
        ):
            for larger in curve:
                more = larger.bytes_after - plan.bytes_after
                gain = plan.error**2 - larger.error**2
                gain *= tables[number].importance
                if 0 < more <= left and gain > 0:
                    steps.append((gain / more, number, larger))
        if not steps:
            return chosen
        _, number, larger = max(steps, key=lambda step: step[0])
        left -= larger.bytes_after - chosen[number].bytes_after
        chosen[number] = larger


def _unreachable(budget, tables, tries):
    least = sum(
        min(least_bytes(m, form, table.values.shape) for m, form, _ in tries)
        for table in tables
    )
    return UnreachableError(
        "The tables must be allowed more bytes; the smallest reachable are "
        f"{least:,}. Received: {int(budget):,} bytes"
    )


def _seen_by(method, table):
    """Returns the numbers whose squared errors a method's fit minimises."""
    if table.turned is not None and method.takes_covariance:
        return table.turned
    return table.values


def _relative_error(method, number_format, arguments, table):
    """Returns the error that a layer with such arguments would have.

    The square root of its weighted squared errors over the table's weighted
    squares; with a covariance, of the logits.
    """
    values = table.values
    weights = frequency_weights(table.counts, len(values))
    squares = weights @ squared_norms(
        values if table.turned is None else table.turned
    )
    if squares == 0:  # nothing counts that could be lost
        return 0.0
    if method.expected_loss is not None:
        seen = _seen_by(method, table)
        lost = method.expected_loss(seen, weights, **arguments)
    else:
        layer = fitted(
            method,
            number_format,
            arguments,
            values,
            table.counts,
            covariance=table.covariance,
        )
        root = None if table.turning is None else table.turning.root
        lost = 0.0
        for part in row_blocks(len(values)):
            errors = rows_between(layer, part) - values[part]
            errors = errors if root is None else errors @ root
            lost += weights[part] @ squared_norms(errors)
        del layer
        if values.nbytes > _LARGE:
            gc.collect()  # Keras' layers are cycles, which would wait for it
    return float(np.sqrt(lost / squares))
