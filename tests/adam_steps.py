"""Trains every case by four Adam steps; run once on each backend.

KERAS_BACKEND=jax python tests/adam_steps.py weights.npz
"""

import sys

import keras
import numpy as np
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH


def trained_weights(layer, inputs, targets):
    """Returns the layer's weights after four steps from seeded weights."""
    entry = keras.Input(inputs.shape[1:], dtype=str(inputs.dtype))
    model = keras.Model(entry, layer(entry))
    generator = np.random.default_rng(1)
    model.set_weights(
        [generator.normal(size=w.shape) * 0.3 for w in model.get_weights()]
    )
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    model.fit(inputs, targets, batch_size=8, shuffle=False, verbose=0)
    return model.get_weights()


def main(path):
    generator = np.random.default_rng(0)
    # Few ids, so that each comes several times in a batch.
    ids = generator.integers(0, 5, (32, 6)).astype("int32")
    rows = generator.normal(size=(32, 6, WIDTH)).astype("float32")
    classes = generator.normal(size=(32, VOCABULARY)).astype("float32")
    weights = {}
    for case in EMBEDDINGS:
        layer = case.layer(VOCABULARY, WIDTH, **case.structure)
        for i, weight in enumerate(trained_weights(layer, ids, rows)):
            weights[f"{case}/{i}"] = weight
    for case in SOFTMAXES:
        layer = case.layer(VOCABULARY, **case.structure, activation=None)
        for i, weight in enumerate(trained_weights(layer, rows[:, 0], classes)):
            weights[f"{case}/{i}"] = weight
    np.savez(path, **weights)


if __name__ == "__main__":
    main(sys.argv[1])
