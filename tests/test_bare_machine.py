"""A machine with Keras and JAX or PyTorch alone trains every layer."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from xla_flags import QUICK

FOLDER = Path(__file__).parent
MISSING = ("tensorflow", "t3f", "faiss", "matplotlib", "pandas", "tqdm")
# Python raises ModuleNotFoundError where a module is None.
CODE = f"""
import sys
sys.modules.update(dict.fromkeys({MISSING}))
import bare_machine
bare_machine.main()
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.long
@pytest.mark.tensorflow_only  # once is enough: it starts both
def test_layers_train_without_tensorflow(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    folders = (
        str(FOLDER / "support"),
        str(FOLDER.parent / "benchmarks"),
        os.environ.get("PYTHONPATH", ""),
    )
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "XLA_FLAGS": QUICK,
            "PYTHONPATH": os.pathsep.join(folders),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["parameters"] for row in rows] == [316, 616]
