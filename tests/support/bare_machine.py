"""Trains every case and runs a row of the benchmark of accelerators.

KERAS_BACKEND=jax PYTHONPATH=benchmarks python tests/support/bare_machine.py
"""

import sys

import accelerator
import keras
import numpy as np
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH


def trained(layer, inputs):
    """Returns whether two steps changed a layer, and all of it is finite."""
    entry = keras.Input(inputs.shape[1:], dtype=str(inputs.dtype))
    model = keras.Model(entry, layer(entry))
    before = model.get_weights()
    model.compile("adam", "mse")
    targets = np.ones((len(inputs), *model.output_shape[1:]), "float32")
    model.fit(inputs, targets, batch_size=8, verbose=0)
    after = model.get_weights()
    return all(np.isfinite(w).all() for w in after) and not all(
        np.array_equal(*pair) for pair in zip(before, after, strict=True)
    )


def main():
    generator = np.random.default_rng(0)
    table = generator.normal(size=(VOCABULARY, WIDTH)).astype("float32")
    ids = generator.integers(0, VOCABULARY, (16, 6)).astype("int32")
    for case in EMBEDDINGS:
        layer = case.layer(VOCABULARY, WIDTH, **case.structure)
        assert trained(layer, ids), case
    for case in SOFTMAXES:
        layer = case.layer(VOCABULARY, **case.structure, activation=None)
        assert trained(layer, table[:16]), case
    for case in (*EMBEDDINGS, *SOFTMAXES):
        if {"tt_ranks", "codebook_size"} & set(case.structure):
            continue  # t3f and faiss fit these
        layer = case.layer.from_dense(table, **case.structure)
        error = np.linalg.norm(layer.to_dense() - table)
        assert error < np.linalg.norm(table), case
    sizes = "--vocabulary 300 --units 300 --width 16 --batch 2 --length 3"
    for side in accelerator.SIDES:
        row = ["--row", side, "low rank", "--repeats", "1"]
        sys.argv = ["accelerator.py", *row, *sizes.split()]
        accelerator.main()


if __name__ == "__main__":
    main()
