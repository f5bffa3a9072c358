"""From compressed layers back to plain ones of Keras."""

import keras
from keras import ops

from keras_embcomp._compat import source_policy
from keras_embcomp.models.copy import replaced
from keras_embcomp.models.find import compressed_places, is_embedding, is_tied


def to_keras(model: keras.Model) -> keras.Model:
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
    common = {
        "name": layer.name,
        "trainable": layer.trainable,
        "activity_regularizer": layer.activity_regularizer,
    }
    policy = layer.dtype_policy
    common["dtype"] = source_policy(policy)
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
