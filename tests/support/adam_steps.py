"""Trains every case by ten Adam steps; run once on each backend.

KERAS_BACKEND=jax python tests/support/adam_steps.py found.npz
"""

import sys

import keras
import numpy as np
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH

STEPS, BATCH = 10, 8


def _batch(arrays, step):
    rows = slice(step * BATCH, (step + 1) * BATCH)
    if isinstance(arrays, list):
        return [array[rows] for array in arrays]
    return arrays[rows]


def trained(model, inputs, targets):
    """Returns the losses of steps from seeded weights, and the last weights."""
    generator = np.random.default_rng(1)
    model.set_weights(
        [
            generator.normal(size=weight.shape) * 0.3
            if weight.trainable
            else weight
            for weight in model.weights
        ]
    )
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    losses = [
        model.train_on_batch(*(_batch(x, i) for x in (inputs, targets)))
        for i in range(STEPS)
    ]
    return losses, model.get_weights()


def models():
    """Returns a model, inputs and targets for each case."""
    generator = np.random.default_rng(0)
    count = STEPS * BATCH
    # Few ids, so that each comes several times in a batch.
    ids = generator.integers(0, 5, (count, 6)).astype("int32")
    rows = generator.normal(size=(count, 6, WIDTH)).astype("float32")
    scores = generator.normal(size=(count, VOCABULARY)).astype("float32")
    words = keras.Input((6,), dtype="int32")
    hidden = keras.Input((WIDTH,))
    for case in EMBEDDINGS:
        layer = case.layer(VOCABULARY, WIDTH, **case.structure)
        found = layer(words)
        tied = layer(found[:, 0], reverse=True)
        yield str(case), keras.Model(words, [found, tied]), ids, [rows, scores]
    for case in SOFTMAXES:
        layer = case.layer(VOCABULARY, **case.structure, activation=None)
        model = keras.Model(hidden, layer(hidden))
        yield str(case), model, rows[:, 0], scores


def main(path):
    found = {}
    for name, model, inputs, targets in models():
        found[f"{name}/losses"], weights = trained(model, inputs, targets)
        for i, weight in enumerate(weights):
            found[f"{name}/{i}"] = weight
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
