"""TPU compilers take the train step of every layer; nothing runs on a TPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import accelerator_layers
import pytest
from cases import EMBEDDINGS, SOFTMAXES

ROOT = Path(__file__).parent.parent
STRUCTURES = accelerator_layers.structures(5_003, 128)
EVERY = (accelerator_layers.DENSE, *STRUCTURES)
SOME = ("low rank", "tensor train", "GroupReduce", "hashed")

needs_compiler = [
    pytest.mark.tensorflow_only,  # once is enough: backends are chosen here
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason='needs the compiler of TPUs: pip install -e ".[tpu-test]"',
    ),
    pytest.mark.timeout(1_800),
]


def lines_of(script, *arguments, backend="jax"):
    """Runs a script, whose settings JAX reads at its import, in a process."""
    folders = [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join(folders),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def compiled(side, target, dtype, chips, layers, backend="jax"):
    """Returns a row for each layer that was compiled, by its name."""
    rows = lines_of(
        ROOT / "benchmarks/accelerator_compile.py",
        *("--sides", side, "--targets", target, "--dtypes", dtype),
        *("--chips", *chips, "--layers", *layers, "--json"),
        backend=backend,
    )
    assert len(rows) == len(layers) * len(chips)
    for row in rows:
        assert row["found"] == [], row
    return rows


def test_every_case_has_a_structure_for_accelerators():
    known = {
        (f"{method}{side}", *sorted(structure))
        for method, structure in STRUCTURES.values()
        for side in ("Embedding", "Softmax")
    }
    for case in (*EMBEDDINGS, *SOFTMAXES):
        assert (case.layer.__name__, *sorted(case.structure)) in known


@pytest.mark.parametrize("side", ["Embedding", "Softmax"])
class TestTrainStep:
    pytestmark = needs_compiler

    def test_every_layer_compiles_for_one_chip(self, side):
        for row in compiled(side, "v5e", "float32", ["one"], EVERY):
            assert row["all-reduces"] == 0, row

    def test_step_of_tensorflow_compiles(self, side):
        for row in compiled(
            side, "v5e", "float32", ["one"], SOME, "tensorflow"
        ):
            assert row["state MB"] > 0, row

    def test_bfloat16_compiles_data_parallel(self, side):
        for row in compiled(side, "v6e", "mixed_bfloat16", ["all"], SOME):
            assert row["all-reduces"] > 0, row

    def test_factors_shard(self, side):
        # Layouts are JAX's, the same for each chip: one side for each.
        target = {"Embedding": "v5e", "Softmax": "v6e"}[side]
        layers = ("tensor train", "GroupReduce")
        rows = compiled(side, target, "float32", ["all", "sharded"], layers)
        whole, parts = rows[: len(layers)], rows[len(layers) :]
        for one, other in zip(whole, parts, strict=True):
            assert one["layer"] == other["layer"]
            assert other["state MB"] < 0.75 * one["state MB"], (one, other)
            assert other["all-reduces"] > 0, other


class TestControls:
    pytestmark = needs_compiler

    def test_what_must_be_refused_is_refused(self):
        (found,) = lines_of(ROOT / "tests/support/tpu_controls.py")
        assert "exceeds available HBM" in found.pop("too large")
        assert found == {
            "nothing": [],
            "callback": ["host call"],
            "float64": ["f64"],
            "int64": ["s64"],
        }

    def test_on_tensorflow_too(self):
        script = ROOT / "tests/support/tpu_controls_tensorflow.py"
        (found,) = lines_of(script, backend="tensorflow")
        assert "No registered 'PyFunc'" in found.pop("callback")
        assert found == {"nothing": [], "float64": ["f64"], "int64": ["s64"]}
