"""Models that were released still load and give the outputs they gave."""

import hashlib
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES

FOLDER = Path(__file__).parent.parent / "saved_models"
RELEASED = sorted(path.parent for path in FOLDER.glob("*/outputs.npz"))


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_gives_its_stored_outputs(folder):
    content = (folder / "model.keras").read_bytes()
    card = (folder / "README.md").read_text()
    assert hashlib.sha256(content).hexdigest() in card
    stored = dict(np.load(folder / "outputs.npz"))
    expected = stored.pop("output")
    model = keras.saving.load_model(folder / "model.keras")
    inputs = [stored[spec.name] for spec in model.inputs]
    found = model(inputs if len(inputs) > 1 else inputs[0])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_every_layer_has_a_released_model():
    cards = " ".join(
        re.search(r"\| layers \| (.*) \|", path.read_text()).group(1)
        for path in FOLDER.glob("*/README.md")
    )
    layers = {case.layer.__name__ for case in (*EMBEDDINGS, *SOFTMAXES)}
    assert layers <= set(re.findall(r"\w+", cards))
