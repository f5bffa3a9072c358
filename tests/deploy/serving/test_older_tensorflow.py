"""TensorFlow 2.20 reads what 2.21 wrote, in an environment of its own.

Its wheel has 259 MB, so this is run where the environment variable
OLDER_TENSORFLOW names a Python that has it:

    python3 -m venv build/older
    build/older/bin/pip install "tensorflow-cpu==2.20.*"
    OLDER_TENSORFLOW=build/older/bin/python pytest tests/deploy/serving/test_older_tensorflow.py
"""  # noqa: E501

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES
from random_layers import (
    FORMATS,
    expected_of,
    inputs_of,
    made,
    model_of,
    quantize,
)

from keras_embcomp import export_serving

PYTHON = os.environ.get("OLDER_TENSORFLOW")
pytestmark = [
    pytest.mark.tensorflow_only,
    pytest.mark.skipif(not PYTHON, reason="OLDER_TENSORFLOW is not set"),
    # Keras' `model.quantize` says so of each layer that has no weights.
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not"),
]


def test_an_older_tensorflow_reads_every_layer(tmp_path):
    folders = []
    for case in (*EMBEDDINGS, *SOFTMAXES):
        for mode in (None, *FORMATS):
            layer = made(case)
            model = model_of(case, layer)
            if mode is not None:
                quantize(model, mode)
            folder = tmp_path / f"{case}-{mode}"
            export_serving(model, folder / "model")
            np.save(folder / "inputs.npy", inputs_of(case))
            np.save(folder / "outputs.npy", expected_of(case, layer))
            folders.append(str(folder))
    reader = Path(__file__).parents[2] / "support" / "read_saved_model.py"
    done = subprocess.run(
        [PYTHON, str(reader), *folders],
        capture_output=True,
        text=True,
        env={"TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("in 2.20.") == len(folders) == 80
