import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_embcomp_command
from keras_embcomp import LowRankEmbedding, __version__
from keras_embcomp.cli import main
from keras_embcomp.deploy.litert.prepare import FORMATS
from keras_embcomp.layers.method import EFFORTS
from keras_embcomp.layers.methods import METHODS
from keras_embcomp.models.read import KINDS, read_table

pytestmark = pytest.mark.tensorflow_only
ROOT = Path(__file__).parent.parent


@pytest.fixture
def saved(tmp_path):
    ids = keras.Input((3,), dtype="int32", name="ids")
    keras.Model(ids, LowRankEmbedding(20, 4, 2)(ids)).save(
        tmp_path / "model.keras"
    )
    return str(tmp_path / "model.keras")


def test_exports_by_the_suffix_of_the_output(saved, tmp_path, capsys):
    output = tmp_path / "model.tflite"
    assert main(["export", saved, str(output)]) == 0
    told = capsys.readouterr().out
    assert f"{output.stat().st_size:,} bytes, error " in told
    assert " ms a call" in told
    small = tmp_path / "small.tflite"
    fixed = ["--batch", "1", "--sequence", "3", "--format", "int8", "--json"]
    assert main(["export", saved, str(small), *fixed]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == small.stat().st_size
    assert 1e-4 < told["error"] < 0.05
    folder = tmp_path / "served"
    assert main(["export", saved, str(folder), "--format", "int8"]) == 1
    assert "an output that ends in .tflite" in capsys.readouterr().err
    assert main(["export", saved, str(folder), "--version", "3"]) == 0
    assert (folder / "3" / "saved_model.pb").exists()


def test_says_what_is_wrong_in_a_line_and_exits_with_1(saved, tmp_path, capsys):
    for model, output, message in (
        (str(tmp_path / "none.keras"), "model.tflite", "must be a file"),
        (
            saved,
            str(tmp_path / "none" / "model.tflite"),
            "in a folder that exists",
        ),
    ):
        assert main(["export", model, output]) == 1
        error = capsys.readouterr().err
        assert error.startswith("keras-embcomp: ")
        assert message in error


@pytest.fixture
def dense(tmp_path, generator):
    ids = keras.Input((3,), dtype="int32", name="ids")
    layer = keras.layers.Embedding(600, 16, name="words")
    model = keras.Model(ids, layer(ids))
    table = generator.normal(size=(600, 16)) / np.arange(1, 17)
    layer.set_weights([table])
    model.save(tmp_path / "dense.keras")
    return str(tmp_path / "dense.keras")


def test_compresses_by_a_plan_or_a_goal(dense, tmp_path, capsys):
    plan, small = tmp_path / "plan.json", tmp_path / "small.keras"
    goal = ["--ratio", "4", "--method", "product_codes"]
    assert main(["plan", dense, *goal, "--output", str(plan)]) == 0
    assert "words" in capsys.readouterr().out
    assert main(["compress", dense, str(small), "--plan", str(plan)]) == 0
    assert f"{small.stat().st_size:,} bytes" in capsys.readouterr().out
    first = keras.saving.load_model(small).get_weights()
    both = ["--plan", str(plan), "--method", "low_rank", "--overwrite"]
    assert main(["compress", dense, str(small), *both]) == 1
    assert "--plan must come without --method" in capsys.readouterr().err
    both[2:4] = ["--effort", "high"]
    assert main(["compress", dense, str(small), *both]) == 1
    assert "--plan must come without --effort" in capsys.readouterr().err
    arguments = ["compress", dense, str(small), *goal, "--json"]
    assert main(arguments) == 1
    assert "unless --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == small.stat().st_size
    for one, other in zip(
        first, keras.saving.load_model(small).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_reports_and_sweeps(dense, tmp_path, capsys):
    small, plot = tmp_path / "small.keras", tmp_path / "sweep.png"
    goal = ["--max-error", "0.3", "--method", "product_codes", "--json"]
    assert main(["compress", dense, str(small), *goal]) == 0
    capsys.readouterr()
    assert main(["report", str(small), "--baseline", dense, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["tables"]
    assert 0 < row["error"] < 0.3
    swept = ["--ratios", "3", "6", "--methods", "low_rank", "--plot", str(plot)]
    assert main(["sweep", dense, *swept, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["goal"] for row in rows] == [3, 6]
    assert rows[0]["error"] < rows[1]["error"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def write_table(path, table):
    words = [f"word{i}" for i in range(len(table))]
    lines = [
        f"{word} {' '.join(f'{x:.6f}' for x in row)}"
        for word, row in zip(words, table, strict=True)
    ]
    if path.suffix == ".npy":
        np.save(path, table)
    elif path.suffix == ".npz":
        np.savez(path, table=table)
    elif path.suffix == ".vec":
        sizes = f"{table.shape[0]} {table.shape[1]}"
        path.write_text("\n".join([sizes, *lines]))
    else:
        path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.vec", "a.txt"])
def test_reads_bare_tables_and_counts(name, tmp_path, generator, capsys):
    table = generator.normal(size=(300, 6)).astype("float32")
    write_table(tmp_path / name, table)
    np.testing.assert_allclose(
        read_table(tmp_path / name), table, atol=1e-6, rtol=0
    )
    np.save(tmp_path / "counts.npy", np.arange(1, 301))
    small = tmp_path / "small.keras"
    arguments = ["compress", str(tmp_path / name), str(small), "--json"]
    counts = ["--frequencies", str(tmp_path / "counts.npy")]
    assert main([*arguments, "--ratio", "1.5", *counts]) == 0
    model = keras.saving.load_model(small)
    assert model(np.array([[0, 299]])).shape == (1, 2, 6)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.keras", b"none", "must be a Keras model"),
        ("a.npy", b"none", "must hold numbers, as NumPy"),
        ("a.npz", b"PK\x03\x04", "must hold numbers, as NumPy"),
        ("a.vec", b"3 2\none 1 2\ntwo 1 x\n", "line 3: 'two 1 x"),
        ("a.txt", b"", "without any"),
        ("b.vec", b"9 2\none 1 2\n", "says 9 x 2 and has 1 x 2"),
        ("a.bin", b"", "must end in one of .keras, .h5, .hdf5, .npy"),
    ],
)
def test_refuses_foreign_files(name, content, message, tmp_path, capsys):
    (tmp_path / name).write_bytes(content)
    output = tmp_path / "out.keras"
    arguments = ["compress", str(tmp_path / name), str(output), "--ratio", "2"]
    assert main(arguments) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not output.exists()
    assert not list(tmp_path.glob(".writing*"))


@pytest.mark.parametrize("command", ["plan", "compress", "report", "sweep"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "keras-embcomp compress model.keras" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "model.v1"])
def test_an_unknown_suffix_is_refused(saved, tmp_path, capsys, name):
    assert main(["export", saved, str(tmp_path / name)]) == 1
    error = capsys.readouterr().err
    assert "The suffix of the output must be known: " in error
    assert "ends in .tflite" in error and "a folder that exists" in error
    assert not (tmp_path / name).exists()


def test_a_folder_that_exists_may_have_a_dot(saved, tmp_path):
    folder = tmp_path / "model.v1"
    folder.mkdir()
    assert main(["export", saved, str(folder)]) == 0
    assert [path.name for path in folder.iterdir()] == ["1"]


def test_options_that_mean_nothing_are_refused(saved, tmp_path, capsys):
    lite, folder = tmp_path / "model.tflite", tmp_path / "served"
    for output, option, message in (
        (lite, ["--version", "3"], "--version is for the folder of a served"),
        (folder, ["--overwrite"], "--overwrite is for a .tflite or .onnx file"),
        (folder, ["--batch", "1"], "an output that ends in .tflite"),
        (folder, ["--version", "0"], "`version` must be a positive integer"),
    ):
        assert main(["export", saved, str(output), *option]) == 1
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_overwrite_and_version_do_what_they_say(saved, tmp_path, capsys):
    lite, folder = tmp_path / "model.tflite", tmp_path / "served"
    lite.write_text("old")
    assert main(["export", saved, str(lite)]) == 1
    assert "unless --overwrite" in capsys.readouterr().err
    assert lite.read_text() == "old"
    assert main(["export", saved, str(lite), "--overwrite"]) == 0
    assert lite.read_bytes()[4:8] == b"TFL3"
    assert main(["export", saved, str(folder), "--version", "7"]) == 0
    assert main(["export", saved, str(folder), "--version", "7"]) == 1
    assert "`version` must be new" in capsys.readouterr().err
    assert main(["export", saved, str(folder)]) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["7", "8"]


@pytest.mark.parametrize(
    "kind, code, message",
    [
        (KeyboardInterrupt, 130, "interrupted"),
        (MemoryError, 1, "not enough memory"),
        (OSError(28, "No space left on device", "/x"), 1, "[Errno 28] No sp"),
        (RuntimeError("two\nlines"), 1, "two lines"),
    ],
)
def test_what_ends_a_command_is_a_line(
    dense, tmp_path, monkeypatch, capsys, kind, code, message
):
    def failing(model, path, *args, **kwargs):
        path.write_text("half")
        raise kind

    output = tmp_path / "small.keras"
    output.write_text("old")
    monkeypatch.setattr(keras.Model, "save", failing)
    goal = ["--ratio", "2.1", "--method", "low_rank", "--overwrite", "--json"]
    assert main(["compress", dense, str(output), *goal]) == code
    error = capsys.readouterr().err
    assert error.startswith(f"keras-embcomp: {message}")
    assert error.count("\n") == 1
    assert output.read_text() == "old"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"dense.keras", "small.keras"}


def test_a_full_disk_in_tensorflow_is_a_line(
    saved, tmp_path, monkeypatch, capsys
):
    import tensorflow as tf

    def full(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left")

    monkeypatch.setattr(tf.saved_model, "save", full)
    assert main(["export", saved, str(tmp_path / "served")]) == 1
    error = capsys.readouterr().err
    assert "`path` must have room to be written. Received: path=" in error
    assert "No space left" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_a_wrong_plan_is_named(dense, tmp_path, capsys):
    plan, small = tmp_path / "plan.json", tmp_path / "small.keras"
    goal = ["--ratio", "2.1", "--method", "low_rank"]
    assert main(["plan", dense, *goal, "--output", str(plan)]) == 0
    content = json.loads(plan.read_text())
    content["tables"][0]["arguments"]["mask_zero"] = True
    plan.write_text(json.dumps(content))
    assert main(["compress", dense, str(small), "--plan", str(plan)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        f"keras-embcomp: {plan}: Entry 1 of the plan ('words'): `arguments` "
    )
    assert main(["compress", dense, str(small), "--plan", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_imports_what_registers_the_classes_of_a_model(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "my_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('mine')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, inputs):\n"
        "        return 2 * inputs\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from my_layers import Twice

    entry = keras.Input((3,), dtype="int32")
    rows = keras.layers.Embedding(1_000, 8)(entry)
    model, small = str(tmp_path / "m.keras"), str(tmp_path / "small.keras")
    keras.Model(entry, Twice()(rows)).save(model)
    keras.saving.get_custom_objects().pop("mine>Twice")
    command = ["compress", model, small, "--ratio", "4", "--method", "low_rank"]
    assert main(command) == 1
    assert "Twice" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "my_layers")
    assert main([*command, "--import", "my_layers"]) == 0
    command.append("--overwrite")
    assert main([*command, "--import", "no_such_module"]) == 1
    assert "no_such_module" in capsys.readouterr().err


IN_A_FRESH_PROCESS = """
import sys
from keras_embcomp_command import main
try:
    code = main(sys.argv[1:])
except SystemExit as stopped:
    code = stopped.code
heavy = {"tensorflow", "keras", "numpy", "keras_embcomp"} & set(sys.modules)
print(code, *sorted(heavy))
"""


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--help"], 0, "keras-embcomp compress model.keras"),
        (["--version"], 0, f"keras-embcomp {__version__}"),
        (["export", "--help"], 0, "--sequence"),
        (["plan", "m.keras", "--ratio", "x"], 2, "invalid float value: 'x'"),
        (
            ["plan", "m.keras", "--ratio", "8", "--method", "best"],
            2,
            "invalid choice: 'best'",
        ),
        (["plan", "m.keras", "--ratio", "1"], 1, "`ratio` must be above 1."),
        (
            ["plan", "m.keras", "--max-error", "1"],
            1,
            "`max_error` must be above 0 and below 1.",
        ),
        (["plan", "m.keras", "--ratio", "8"], 1, "must be a file. Received"),
        (["report", "m.bin"], 1, "must end in one of .keras, .h5"),
        (["export", "m.keras", "m.h5"], 1, "suffix of the output must be"),
        (
            ["compress", "m.keras", "s.h5", "--ratio", "8"],
            1,
            "must end in .keras.",
        ),
        (["count", "a.txt", "counts.txt"], 1, "must end in .npy."),
        (["trim", "m.keras", "none/s.keras"], 1, "in a folder that exists"),
    ],
)
def test_what_needs_no_model_imports_no_tensorflow(
    arguments, code, message, tmp_path
):
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert message in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == str(code)


def test_a_command_says_nothing_of_its_own_on_stderr(saved):
    done = subprocess.run(
        [sys.executable, "-m", "keras_embcomp_command", "report", saved],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "LowRankEmbedding" in done.stdout
    assert done.stderr == ""


def test_the_command_knows_what_the_package_has():
    names = {"auto", *(method.name for method in METHODS)}
    assert set(keras_embcomp_command.METHODS) == names
    assert keras_embcomp_command.EFFORTS == EFFORTS
    assert keras_embcomp_command.FORMATS == FORMATS
    assert keras_embcomp_command.KINDS == KINDS


SCORES = """
import numpy as np

def data():
    return np.arange(96, dtype="int32").reshape(8, 12) % 40

def score(model):
    return -float(np.std(model.predict(data(), verbose=0)))

def numbers(model):
    return float(sum(weight.size for weight in model.get_weights()))
"""


def test_takes_data_and_an_evaluation(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("scores_of_test.py").write_text(SCORES)
    ids = keras.Input((12,), dtype="int32")
    words = keras.layers.Embedding(2_000, 16, name="words")
    keras.Model(ids, words(ids)).save("model.keras")
    np.save("ids.npy", np.arange(24, dtype="int32").reshape(2, 12))
    goal = ["--ratio", "6", "--method", "low_rank", "--json"]
    for data in ("ids.npy", "scores_of_test:data"):
        assert main(["plan", "model.keras", "--data", data, *goal]) == 0
        told = json.loads(capsys.readouterr().out)
        assert 0 <= told["tables"][0]["error"] < 0.5
    scored = ["--evaluate", "scores_of_test:numbers", "--min-score", "9000"]
    small = ["compress", "model.keras", "small.keras", *goal[2:], *scored]
    assert main(small) == 0
    told = json.loads(capsys.readouterr().out)
    found = keras.models.load_model("small.keras")
    assert sum(weight.size for weight in found.get_weights()) >= 9_000
    assert told["plan"]["tables"][0]["method"] == "low_rank"
    swept = ["sweep", "model.keras", "--ratios", "4", "--methods", "low_rank"]
    assert main([*swept, "--evaluate", "scores_of_test:score"]) == 0
    assert "dense" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-drop", "0.1"], "need --evaluate"),
        (["--ratio", "4", "--evaluate", "a:b"], "need --evaluate"),
        (["--max-drop", "-1", "--evaluate", "a:b"], "`max_drop` must be above"),
        (["--min-score", "1", "--evaluate", "ab"], "must be MODULE:FUNCTION"),
        (["--ratio", "4", "--data", "none.npz"], "`data` must be a file"),
        (
            ["--min-score", "1", "--evaluate", "json:nothing"],
            "`json` must have a function `nothing`",
        ),
    ],
)
def test_refuses_what_is_no_evaluation(saved, capsys, arguments, message):
    assert main(["plan", saved, *arguments]) == 1
    assert message in capsys.readouterr().err
