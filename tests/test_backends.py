"""The backends agree, repeated ids and adaptive optimizers included."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("adam_steps.py")


@pytest.mark.tensorflow_only  # once is enough: it starts both
def test_four_adam_steps_agree_on_tensorflow_and_jax(tmp_path):
    found = {}
    for backend in ("tensorflow", "jax"):
        path = tmp_path / f"{backend}.npz"
        subprocess.run(
            [sys.executable, str(SCRIPT), str(path)],
            env={**os.environ, "KERAS_BACKEND": backend},
            check=True,
            capture_output=True,
        )
        found[backend] = np.load(path)
    assert found["tensorflow"].files == found["jax"].files
    for name in found["jax"].files:
        one, other = found["tensorflow"][name], found["jax"][name]
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=name)
