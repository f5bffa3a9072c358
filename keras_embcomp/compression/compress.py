"""From a trained model to a smaller one."""

from typing import Any

import keras

from keras_embcomp.compression.apply import compressed
from keras_embcomp.compression.choose import plan_compression
from keras_embcomp.compression.plan import CompressionPlan
from keras_embcomp.compression.search import search_plan
from keras_embcomp.compression.statistics import (
    statistics_of,
    weighed_tables,
)

_SCORES = {"evaluate", "max_drop", "min_score"}
_SIZES = {"ratio", "max_error", "max_bytes"}


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
        **goal: Arguments of `plan_compression`, such as `ratio=20`; or of
            `search_plan`, such as `evaluate=accuracy, max_drop=0.01`, for the
            smallest model that scores well enough. Beside a plan,
            `frequencies` and `data` only.

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
    if plan is None and set(goal) & _SCORES:
        others = sorted(set(goal) & _SIZES)
        if others:
            raise ValueError(
                "A score must be the only goal. Received: "
                f"{', '.join(sorted(set(goal) & _SCORES))} and "
                f"{', '.join(others)}"
            )
        return search_plan(model, verbose=verbose, **goal).model
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
    tables = weighed_tables(model, goal.get("frequencies"), goal.get("data"))
    return compressed(model, tables, plan, verbose)
