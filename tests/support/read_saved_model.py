"""Runs SavedModels with another TensorFlow than that which wrote them.

Each folder holds a version and what it gives: `inputs.npy`, `outputs.npy` and
`model/1`. Nothing of keras_embcomp is imported, and the oldest API is used.

    python read_saved_model.py FOLDER...
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def largest_difference(folder):
    """Returns how far outputs are from those that were stored."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        model = tf.compat.v1.saved_model.load(
            session, ["serve"], str(folder / "model" / "1")
        )
    signature = model.signature_def["serving_default"]
    (entry,) = signature.inputs.values()
    (result,) = signature.outputs.values()
    feeds = {entry.name: np.load(folder / "inputs.npy")}
    found = session.run(result.name, feeds)
    return np.abs(found - np.load(folder / "outputs.npy")).max()


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        difference = largest_difference(folder)
        print(f"{folder.name}: differs by {difference:.2g} in {tf.__version__}")
        if not difference < 1e-5:
            sys.exit(1)
