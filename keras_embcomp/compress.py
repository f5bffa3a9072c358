"""From a trained model to a smaller one, and back to plain Keras layers."""

import keras
from keras import ops

from keras_embcomp.candidates import fitted
from keras_embcomp.cloning import (
    compressed_places,
    is_embedding,
    is_tied,
    replaced,
)
from keras_embcomp.planning import plan_compression, tables_of


def compress(model, plan=None, verbose=0, **goal):
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
    if verbose:
        print(plan)
    tables = {t.path: t for t in tables_of(model, goal.get("frequencies"))}
    missing = [e.layer for e in plan.tables if e.layer not in tables]
    if missing:
        raise ValueError(
            "`plan` must name tables of the model, which are "
            f"{', '.join(tables)}. Received: {', '.join(missing)}"
        )
    layers = {}
    for entry in plan.tables:
        if entry.method == "keep":
            continue
        table = tables[entry.layer]
        layers[id(table.layer)] = fitted(
            entry.method,
            entry.number_format,
            entry.arguments,
            table.values,
            table.counts,
            like=table.layer,
            verbose=verbose,
        )
    return replaced(model, layers)


def to_keras(model):
    """Returns a copy of a model with plain Keras layers in place of ours.

    A compressed embedding becomes an `Embedding`, or a `ReversibleEmbedding`
    if the model calls it with `reverse=True`, and a compressed softmax becomes
    a `Dense`. The tables are the same, so the copy computes the same; it needs
    no keras_embcomp.

    Args:
        model: Built Functional or Sequential model.
    """
    return replaced(
        model,
        {
            id(place.layer): _dense(place.layer)
            for place in compressed_places(model)
        },
    )


def _dense(layer):
    table = layer.to_dense()
    common = {"name": layer.name, "trainable": layer.trainable}
    policy = layer.dtype_policy
    common["dtype"] = getattr(policy, "_source_name", None) or policy
    if is_embedding(layer):
        dense_class = keras.layers.Embedding
        if is_tied(layer):
            dense_class = keras.layers.ReversibleEmbedding
        dense = dense_class(*table.shape, mask_zero=layer.mask_zero, **common)
        dense.build()
        dense.set_weights([table])
        return dense
    dense = keras.layers.Dense(
        len(table),
        activation=layer.activation,
        use_bias=layer.use_bias,
        **common,
    )
    dense.build((None, table.shape[1]))
    bias = [ops.convert_to_numpy(layer.bias)] if layer.use_bias else []
    dense.set_weights([table.T, *bias])
    return dense
