"""Adds a trained model to the released ones, with outputs and a card.

    python saved_models/release.py NAME model.keras --command "..." \\
        --metric "..."

A test loads every released model and compares its outputs with the stored ones,
so that a released file can be read forever.
"""

import argparse
import hashlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_embcomp
from keras_embcomp.deploy.verify import predictions, sample_inputs

CARD = """# {name}

| | |
|---|---|
| layers | {layers} |
| command | `{command}` |
| metric | {metric} |
| versions | keras_embcomp {ours}, keras {keras}, tensorflow {tensorflow} |
| bytes | {bytes} |
| sha256 of model.keras | {sha256} |

`outputs.npz` has the inputs by name, and the model's output for them as
`output`.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("model", type=Path)
    parser.add_argument("--command", required=True)
    parser.add_argument("--metric", required=True)
    options = parser.parse_args()
    folder = Path(__file__).parent / options.name
    folder.mkdir()
    model = keras.saving.load_model(options.model, compile=False)
    model.save(folder / "model.keras")  # without the optimizer's state
    samples = list(sample_inputs(model))[-1]
    (output,) = predictions(model, samples)
    np.savez_compressed(folder / "outputs.npz", output=output, **samples)
    content = (folder / "model.keras").read_bytes()
    ours = [
        type(layer).__name__
        for layer in model.layers
        if type(layer).__name__ in keras_embcomp.__all__
    ]
    card = CARD.format(
        name=options.name,
        layers=", ".join(ours),
        command=options.command,
        metric=options.metric,
        ours=keras_embcomp.__version__,
        keras=keras.__version__,
        tensorflow=tf.__version__,
        bytes=f"{len(content):,}",
        sha256=hashlib.sha256(content).hexdigest(),
    )
    (folder / "README.md").write_text(card)


if __name__ == "__main__":
    main()
