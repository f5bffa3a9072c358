"""`keras-embcomp count` and `keras-embcomp trim`."""

import json

import keras
import keras_hub
import numpy as np
import pytest
from tokenizers_of_text import hugging_face, texts
from vocabulary_models import task

from keras_embcomp import Trimming
from keras_embcomp.cli import main

pytestmark = [
    pytest.mark.tensorflow_only,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(texts()[:30]), "utf-8")
    return str(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["Bert TextClassifier", "Bert Backbone"])
def test_a_preset_becomes_a_preset(kind, corpus, tmp_path, capsys):
    model = task("Bert TextClassifier")
    preset, output = tmp_path / "preset", tmp_path / "small"
    counts = str(tmp_path / "counts.npy")
    if "Backbone" in kind:
        model.backbone.save_to_preset(str(preset))
        model.preprocessor.tokenizer.save_to_preset(str(preset))
    else:
        model.save_to_preset(str(preset))
    assert main(["count", corpus, counts, "--tokenizer", str(preset)]) == 0
    assert "of 360 used" in capsys.readouterr().out
    how = ["--counts", counts, "--coverage", "0.9", "--texts", corpus]
    assert main(["trim", str(preset), str(output), *how, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    trimming = Trimming.load(tmp_path / "small.trimming.json")
    assert told["rows"] == [360, len(trimming.new_to_old)]
    assert told["coverage"] == trimming.coverage >= 0.9
    assert told["bytes"][1] < told["bytes"][0]
    small = keras_hub.models.Backbone.from_preset(str(output))
    assert small.vocabulary_size == len(trimming.new_to_old)
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(str(output))
    assert tokenizer.vocabulary_size() == len(trimming.new_to_old)
    lengths = [
        len(ids)
        for ids in np.array(
            keras_hub.tokenizers.Tokenizer.from_preset(str(preset))(
                texts()[:30]
            ),
            dtype=object,
        )
    ]
    assert told["pieces"][0] == pytest.approx(np.mean(lengths))


def test_a_model_and_a_tokenizer_json(corpus, tmp_path, capsys):
    hugging_face("bytes").save(str(tmp_path / "tokenizer.json"))
    ids = keras.Input((4,), dtype="int32")
    model = keras.Model(ids, keras.layers.Embedding(400, 8)(ids))
    model.save(tmp_path / "model.keras")
    tokenizer = ["--tokenizer", str(tmp_path / "tokenizer.json")]
    counts, output = tmp_path / "counts.npy", tmp_path / "small.keras"
    assert main(["count", corpus, str(counts), *tokenizer]) == 0
    assert len(np.load(counts)) == 360  # the table has more rows
    arguments = ["trim", str(tmp_path / "model.keras"), str(output)]
    arguments += ["--counts", str(counts), *tokenizer]
    arguments += ["--multiple-of", "8", "--texts", corpus]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "pieces of a text" in told
    assert "kept: 2" in told
    small = keras.saving.load_model(output)
    content = json.loads((tmp_path / "small.tokenizer.json").read_text())
    assert len(content["model"]["vocab"]) <= small.layers[1].input_dim
    assert small.layers[1].input_dim % 8 == 0
    assert main(arguments) == 1
    assert "must not exist, unless --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["count", "none.txt", "n.npy", "--vocabulary", "3"], "text in UTF-8"),
        (["count", "none.txt", "n.txt", "--vocabulary", "3"], "end in .npy"),
        (["count", "none.npy", "n.npy"], "`vocabulary` must be given"),
        (["trim", "none.keras", "x.keras", "--keep", "k.npy"], "must be a fil"),
        (["trim", ".", "x", "--keep", "k.npy"], "must be a preset of keras-h"),
        (
            ["count", "x", "n.npy", "--tokenizer", "t.json"],
            "The tokenizer must be a file",
        ),
    ],
)
def test_says_what_is_wrong(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("n.*"))
