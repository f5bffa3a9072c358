"""TensorFlow's own command shows and runs what was exported."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_embcomp import LowRankEmbedding, export_serving

pytestmark = pytest.mark.tensorflow_only


def command(*arguments):
    module = "tensorflow.python.tools.saved_model_cli"
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_command_shows_signatures_and_runs_them(tmp_path):
    ids = keras.Input((4,), dtype="int32", name="ids")
    words = LowRankEmbedding(50, 8, rank=3, name="words")
    model = keras.Model(ids, words(ids))
    folder = export_serving(model, tmp_path / "model")
    shown = command("show", "--dir", folder, "--all")
    assert "signature_def['serving_default']" in shown
    assert "signature_def['serving_default_int64']" in shown
    assert "inputs['ids'] tensor_info:\n        dtype: DT_INT64" in shown
    assert "outputs['words'] tensor_info:" in shown
    x = np.array([[1, 2, 49, 0]])
    np.save(tmp_path / "ids.npy", x)
    command(
        *("run", "--dir", folder, "--tag_set", "serve"),
        *("--signature_def", "serving_default_int64"),
        *("--inputs", f"ids={tmp_path / 'ids.npy'}"),
        *("--outdir", tmp_path),
    )
    found = np.load(tmp_path / "words.npy")
    np.testing.assert_allclose(found, model(x), rtol=1e-5, atol=1e-7)
