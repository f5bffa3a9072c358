"""Models for accelerators: each layer at a size that is worth one.

Imports nothing that a machine with Keras and one backend has not.
"""

import keras

import keras_embcomp

LABELS = 20
DENSE = "dense"


def group_sizes(vocabulary):
    """Returns three groups: a hundredth, a tenth, and the other words."""
    first = (vocabulary // 100, vocabulary // 10)
    return (*first, vocabulary - sum(first))


def structures(vocabulary, width):
    """Returns `{name: (method, structural arguments)}` of every method."""
    coded = {"num_parts": width // 8, "part_width": 8, "codebook_size": 256}
    sizes = group_sizes(vocabulary)
    ranks = (width // 2, width // 4, width // 16)
    groups = {
        "group_sizes": sizes,
        "group_ranks": tuple(map(min, sizes, ranks)),
    }
    return {
        "low rank": ("LowRank", {"rank": width // 16}),
        "tensor train": ("TT", {"tt_ranks": 16}),
        "hashed": (
            "Hashed",
            {"num_subvectors": vocabulary // 4, "num_parts": 8},
        ),
        "GroupReduce": ("GroupReduce", groups),
        "GroupReduce, permuted": ("GroupReduce", {**groups, "permuted": True}),
        "distilled": ("Distilled", {"rank": width // 16}),
        "distilled, hidden": (
            "Distilled",
            {"rank": width // 16, "hidden_dim": width // 4},
        ),
        "product codes": ("ProductQuantized", coded),
        "product codes, kept": (
            "ProductQuantized",
            {**coded, "num_kept": vocabulary // 1_000},
        ),
    }


def embedding(name, vocabulary, width, **kwargs):
    """Returns an embedding by name, or Keras' own."""
    if name == DENSE:
        return keras.layers.Embedding(vocabulary, width, **kwargs)
    method, structure = structures(vocabulary, width)[name]
    layer = getattr(keras_embcomp, f"{method}Embedding")
    return layer(vocabulary, width, **structure, **kwargs)


def softmax(name, vocabulary, width, **kwargs):
    """Returns a head by name, or Keras' own; it gives logits."""
    kwargs = {"activation": None, **kwargs}
    if name == DENSE:
        return keras.layers.Dense(vocabulary, **kwargs)
    method, structure = structures(vocabulary, width)[name]
    layer = getattr(keras_embcomp, f"{method}Softmax")
    return layer(vocabulary, **structure, **kwargs)


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
    # The loss is that of float32 under every policy.
    logits = keras.layers.Activation("linear", dtype="float32")(logits)
    model = keras.Model(inputs, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model
