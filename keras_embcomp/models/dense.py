"""From compressed layers back to plain ones of Keras."""

from typing import Any

import keras
from keras import ops

from keras_embcomp._compat import (
    Functional,
    children,
    every_layer,
    reversible_embedding,
    source_policy,
)
from keras_embcomp._types import Array
from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.two_sided import TwoSidedEmbedding
from keras_embcomp.models.copy import replaced
from keras_embcomp.models.find import check_model, is_embedding, is_tied

_CALLERS = (Functional, keras.Sequential, keras.layers.Wrapper)


def to_keras(model: keras.Model) -> keras.Model:
    """Returns a copy of a model with plain Keras layers in place of ours.

    A compressed embedding becomes an `Embedding`, or a `ReversibleEmbedding`
    if the model may call it with `reverse=True`, and a compressed softmax
    becomes a `Dense`. The tables are the same, so the copy computes the same;
    it needs no keras_embcomp.

    Args:
        model: Built model of any class.
    """
    check_model(model)
    layers: dict[int, keras.Layer] = {}
    inside: set[int] = set()
    for layer in every_layer(model):
        if isinstance(layer, TwoSidedEmbedding):
            layers[id(layer)] = _reversible(layer)
            inside.update(map(id, children(layer)))
        elif isinstance(layer, Compressed) and id(layer) not in inside:
            layers[id(layer)] = _dense(layer, _may_reverse(model, layer))
    return replaced(model, layers)


def _may_reverse(model, layer):
    """Returns whether a model calls a layer in reverse, as far as one knows."""
    return is_tied(layer) or any(
        layer in children(owner)
        for owner in every_layer(model)
        if not isinstance(owner, _CALLERS)
    )


def _reversible(layer):
    """Returns a `ReversibleEmbedding` for a `TwoSidedEmbedding`."""
    dense: Any = reversible_embedding()(
        *_table(layer.embedding).shape,
        tie_weights=layer.head is None,
        mask_zero=layer.mask_zero,
        reverse_dtype=layer.reverse_dtype,
        logit_soft_cap=layer.logit_soft_cap,
        **_common(layer),
    )
    dense.build()
    tables = [_table(layer.embedding)]
    if layer.head is not None:
        tables.append(_table(layer.head).T)
    dense.set_weights(tables)
    return dense


def _table(layer: Any) -> Array:
    if isinstance(layer, Compressed):
        return layer.to_dense()
    if is_embedding(layer):
        return ops.convert_to_numpy(layer.embeddings)
    return ops.convert_to_numpy(layer.kernel).T


def _common(layer: Any) -> dict[str, Any]:
    return {
        "name": layer.name,
        "trainable": layer.trainable,
        "activity_regularizer": layer.activity_regularizer,
        "dtype": source_policy(layer.dtype_policy),
    }


def _dense(layer, may_reverse):
    table = layer.to_dense()
    if is_embedding(layer):
        dense_class = keras.layers.Embedding
        if may_reverse:
            dense_class = reversible_embedding()
        dense = dense_class(
            *table.shape, mask_zero=layer.mask_zero, **_common(layer)
        )
        dense.build()
        dense.set_weights([table])
        return dense
    dense = keras.layers.Dense(
        len(table),
        activation=layer.activation,
        use_bias=layer.use_bias,
        **_common(layer),
    )
    dense.build((None, table.shape[1]))
    bias = [ops.convert_to_numpy(layer.bias)] if layer.use_bias else []
    dense.set_weights([table.T, *bias])
    return dense
