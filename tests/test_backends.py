"""The backends agree, repeated ids and adaptive optimizers included."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES
from xla_flags import QUICK

SCRIPT = Path(__file__).parent / "support" / "adam_steps.py"


def ten_steps(backend, folder):
    path = folder / f"{backend}.npz"
    subprocess.run(
        [sys.executable, str(SCRIPT), str(path)],
        env={**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": QUICK},
        check=True,
        capture_output=True,
    )
    return np.load(path)


@pytest.mark.long
@pytest.mark.tensorflow_only  # once is enough: it starts all
def test_ten_adam_steps_agree_on_all_backends(tmp_path):
    expected = ten_steps("tensorflow", tmp_path)
    every_case = [*EMBEDDINGS, *SOFTMAXES]
    losses = [name for name in expected.files if name.endswith("losses")]
    assert len(losses) == len(every_case)
    for backend in ("jax", "torch"):
        found = ten_steps(backend, tmp_path)
        assert found.files == expected.files
        for name in expected.files:
            np.testing.assert_allclose(
                found[name],
                expected[name],
                rtol=1e-5,
                atol=1e-6,
                err_msg=f"{name} on {backend}",
            )
