import keras
import pytest

from keras_embcomp import LowRankEmbedding
from keras_embcomp.cli import main

pytestmark = pytest.mark.tensorflow_only


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
    assert f"{output.stat().st_size:,} bytes" in capsys.readouterr().out
    folder = tmp_path / "served"
    assert main(["export", saved, str(folder), "--version", "3"]) == 0
    assert (folder / "3" / "saved_model.pb").exists()


def test_says_what_is_wrong_in_a_line_and_exits_with_1(saved, tmp_path, capsys):
    for model, output, message in (
        (str(tmp_path / "none.keras"), "model.tflite", "File not found"),
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


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "keras-embcomp export model.keras" in capsys.readouterr().out
