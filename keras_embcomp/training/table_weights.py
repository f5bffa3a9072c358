"""The weights of vocabulary tables, which optimizers may treat apart."""

import keras

from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.hashed.features import HashedFeatures
from keras_embcomp.models.find import dense_places, places


def table_weights(model: keras.Model) -> list[keras.Variable]:
    """Returns the weights of a model's vocabulary tables that train.

    Optimizers tell weights apart by name and shape, which says little of a
    table: the projection of a low-rank embedding is a matrix like that of a
    hidden layer. Give them the weights, or their paths.

    Args:
        model: Built model of any class.

    Returns:
        List of `keras.Variable`: of embeddings, output layers and
        `HashedFeatures`, dense or compressed, with biases. Each once.

    Raises:
        ValueError: if `model` is no model of Keras 3, or not built.

    Example:

    >>> words = LowRankEmbedding(5_000, 64, rank=8, name="words")
    >>> hidden = keras.layers.Dense(32, activation="relu", name="hidden")
    >>> entry = keras.Input((4,), dtype="int32")
    >>> model = keras.Model(entry, hidden(words(entry)))
    >>> [weight.path for weight in table_weights(model)]
    ['words/embeddings', 'words/projection']

    Without weight decay, as is usual for embeddings:

    >>> optimizer = keras.optimizers.AdamW(1e-3)
    >>> optimizer.exclude_from_weight_decay(var_list=table_weights(model))

    By Adam where the hidden layers have Muon:

    >>> optimizer = keras.optimizers.Muon(
    ...     exclude_layers=[
    ...         f"^{weight.path}$" for weight in table_weights(model)
    ...     ]
    ... )
    """
    tables = {id(place.layer) for place in dense_places(model)}
    found = {
        id(weight): weight
        for _, layer in places(model)
        if id(layer) in tables or isinstance(layer, Compressed | HashedFeatures)
        for weight in layer.trainable_weights
    }
    return list(found.values())
