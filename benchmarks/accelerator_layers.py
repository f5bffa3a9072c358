"""Models for accelerators: each layer at a size that is worth one.

Imports nothing beyond Keras, NumPy, one backend and this package.
"""

import keras
from methods import variants

LABELS = 20
DENSE = "dense"


def layers(vocabulary, width):
    """Returns the variants of all methods, by title."""
    return {
        variant.title: variant
        for variant in variants("accelerator", vocabulary, width)
    }


def structures(vocabulary, width):
    """Returns `{title: (start of the classes' names, arguments)}`."""
    return {
        name: (
            variant.method.embedding.__name__.removesuffix("Embedding"),
            variant.arguments,
        )
        for name, variant in layers(vocabulary, width).items()
    }


def embedding(name, vocabulary, width, **kwargs):
    """Returns an embedding by title, or Keras' own."""
    if name == DENSE:
        return keras.layers.Embedding(vocabulary, width, **kwargs)
    variant = layers(vocabulary, width)[name]
    return variant.embedding(vocabulary, width, **kwargs)


def softmax(name, vocabulary, width, **kwargs):
    """Returns an output layer by title, or Keras' own; it gives logits."""
    if name == DENSE:
        return keras.layers.Dense(vocabulary, **{"activation": None, **kwargs})
    return layers(vocabulary, width)[name].softmax(vocabulary, **kwargs)


def classifier(layer, length):
    """Returns a compiled model of an embedding: dropout, mean, labels."""
    ids = keras.Input((length,), dtype="int32", name="ids")
    words = keras.layers.Dropout(0.1)(layer(ids))
    mean = keras.layers.GlobalAveragePooling1D()(words)
    return _compiled(ids, keras.layers.Dense(LABELS, name="labels")(mean))


def language_head(layer, length, width):
    """Returns a compiled model of an output layer on hidden states."""
    hidden = keras.Input((length, width), name="hidden")
    states = keras.layers.Dense(width, name="states")(hidden)
    return _compiled(hidden, layer(keras.layers.Dropout(0.1)(states)))


def _compiled(inputs, logits):
    # The loss is computed in float32 under every policy.
    logits = keras.layers.Activation("linear", dtype="float32")(logits)
    model = keras.Model(inputs, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model
