"""Training on several devices and in two processes, in programs apart."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES
from random_layers import made

from keras_embcomp import TableParallel, layout_map
from keras_embcomp.layers.methods import METHODS as EVERY_METHOD

SUPPORT = Path(__file__).parents[1] / "support"
PAGE = SUPPORT.parents[1] / "docs" / "distribution.md"
METHODS = [str(case) for case in EMBEDDINGS]
# Of each method the last: it has all weights of the others, and more.
WHOLE = [str(case) for case in {c.layer: c for c in EMBEDDINGS}.values()]
# Once is enough: the programs choose their backends.
pytestmark = pytest.mark.tensorflow_only


def test_a_weight_is_split_by_one_rule():
    rules = {}
    for method in EVERY_METHOD:
        for name, axis in method.device_axes.items():
            assert rules.setdefault(name, axis) == axis, name
    for case in (*EMBEDDINGS, *SOFTMAXES):
        for weight in made(case).weights:
            found = [name for name in rules if re.fullmatch(name, weight.name)]
            assert len(found) <= 1, (str(case), weight.name)


def start(script, *arguments, backend, **variables):
    environment = {**os.environ, "KERAS_BACKEND": backend, **variables}
    return subprocess.Popen(
        [sys.executable, str(SUPPORT / script), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    try:
        said = [process.communicate(timeout=500)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def losses_under_each_layout_are_those_without_one(found):
    for method in METHODS:
        losses = found[method]["losses"]
        assert losses["none"][1] < losses["none"][0]
        close(losses["tables"], losses["none"])
        if method in WHOLE:
            close(losses["data"], losses["none"])
    close(found["special"]["plain"], found[METHODS[0]]["losses"]["none"])


def each_device_holds_its_part_of_tables_and_their_slots(found):
    split = {
        "LowRankEmbedding": {"embeddings": 0},
        "TTEmbedding": {"core_1": 3, "core_2": 1},
        "HashedEmbedding": {"subvectors": 1},
        "HashedEmbedding-private": {"subvectors": 1},
        "GroupReduceEmbedding": {"embeddings_0": 0, "embeddings_2": 0},
        "DistilledEmbedding": {"embeddings": 0},
        "DistilledEmbedding-hidden": {"embeddings": 0},
        "ProductQuantizedEmbedding": {"codes": 0},
        "ProductQuantizedEmbedding-kept": {"codes": 0, "kept": 0},
        "TrellisCodedEmbedding": {"codes": 0},
        "TrellisCodedEmbedding-groups": {"codes": 0},
    }
    assert list(split) == METHODS
    for method, places in split.items():
        one = found[method]
        for name, place in places.items():
            path = f"words/{name}"
            assert one["splits"][path].index("model") == place, (method, name)
            assert one["parts"][path] == 0.25
            if name != "codes":
                slot = one["slots"][f"adam/words_{name}_momentum"]
                assert slot == one["splits"][path]
    groups = found["GroupReduceEmbedding"]["splits"]
    assert groups["head/kernels_2"] == ["model", None]
    assert groups["head/projections_2"] == [None, None]


def files_load_under_other_layouts_and_none(found):
    for method in METHODS:
        equal = {"none": True, "data": True, "2": True}
        assert found[method]["equal"] == equal, method


def own_layouts_go_first(found):
    assert found["special"]["own"] == {
        "words/embeddings": [None, "model"],
        "words/projection": [None, None],
        "head/embeddings": ["model", None],
        "head/projection": [None, None],
        "head/bias": ["model"],
    }


def what_does_not_divide_is_split_otherwise_or_kept_and_said(found):
    for rank, splits, what in (
        ("4", [None, "model"], "axis 1 is split in its place"),
        ("3", [None, None], "each device holds all of it"),
    ):
        one = found["special"]["not dividing"][rank]
        close(*one["losses"])
        assert one["splits"]["words/embeddings"] == splits
        assert one["warnings"][0] == (
            f"Axis 0 of 'words/embeddings', of shape (307, {rank}), does not "
            f"divide by the 4 devices along 'model', so {what}. The next size "
            "that divides is 308."
        )
        assert len(one["warnings"]) == 2


def batches_that_do_not_divide_are_refused(found):
    assert found["special"]["first batch"] == (
        "Each batch must divide by the devices that share it, the last one "
        "too: drop it, or choose another `batch_size`. Received: a batch of "
        "15, 2 devices along 'batch'"
    )
    assert (
        "should evenly divide the shape" in found["special"]["last batch"]
    )  # JAX's


@pytest.mark.long
def test_each_method_trains_on_eight_devices(tmp_path):
    finish(start("on_devices.py", tmp_path, backend="jax"))
    found = json.loads((tmp_path / "found.json").read_text())
    losses_under_each_layout_are_those_without_one(found)
    each_device_holds_its_part_of_tables_and_their_slots(found)
    files_load_under_other_layouts_and_none(found)
    own_layouts_go_first(found)
    what_does_not_divide_is_split_otherwise_or_kept_and_said(found)
    batches_that_do_not_divide_are_refused(found)
    assert found["special"]["axis"] == (
        "`axis` must be one of the mesh. Received: axis=words, "
        "axis_names=('batch', 'model')"
    )


def test_wrong_backends_are_refused():
    mesh = keras.distribution.DeviceMesh((1,), ("model",), ["cpu:0"])
    for refused in (layout_map, TableParallel):
        with pytest.raises(ValueError, match="needs the JAX backend: set"):
            refused(mesh)


@pytest.mark.long
def test_two_processes_train_as_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    finish(
        *(
            start("two_processes.py", process, port, tmp_path, backend="jax")
            for process in range(2)
        )
    )
    for process in range(2):
        found = json.loads((tmp_path / f"{process}.json").read_text())
        assert list(found) == [*METHODS[:2], "across"]
        for expected, *others in found.values():
            for losses in others:
                close(losses, expected)
    # TensorFlow loads what JAX wrote.
    models = [
        keras.saving.load_model(tmp_path / f"{process}.keras", compile=False)
        for process in range(2)
    ]
    expected = [weight.copy() for weight in models[0].get_weights()]
    for found in models[1].get_weights(), gathered(models[0], tmp_path):
        for weight, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(weight, other, atol=1e-3)


def gathered(model, folder):
    """Returns weights of a model that no process had all of."""
    model.load_weights(folder / "0-across.weights.h5")
    return model.get_weights()


@pytest.mark.long
def test_a_mirrored_strategy_changes_no_loss(tmp_path):
    path = tmp_path / "found.json"
    finish(start("mirrored.py", path, backend="tensorflow"))
    found = json.loads(path.read_text())
    assert list(found) == ["replicas", *WHOLE, "cycled"]
    assert found["replicas"] == 2
    for method in WHOLE:
        close(*reversed(found[method]))
    one, two = found["cycled"]
    close(two["loss"], one["loss"])
    assert two["learning_rate"] == one["learning_rate"]


def test_blocks_of_the_guide_run_on_eight_devices(tmp_path):
    blocks = re.findall(r"```python jax\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 2
    script = tmp_path / "blocks.py"
    script.write_text("\n".join(blocks))
    flags = "--xla_force_host_platform_device_count=8"
    finish(start(script, backend="jax", JAX_PLATFORMS="cpu", XLA_FLAGS=flags))
