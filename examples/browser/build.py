"""Makes the models of the page from the output of the main example.

    python examples/sentence_classification.py --output /tmp/news
    python examples/browser/build.py /tmp/news

Writes to `build`, in the folder of this file: the dense and the compressed
model as LiteRT files that take one text, the words, the labels, and texts with
the probabilities that the files give here. `npm start` serves the page.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from ai_edge_litert.interpreter import Interpreter  # noqa: E402
from artefacts import new_folder  # noqa: E402
from text_pipeline import TextToIds  # noqa: E402

from keras_embcomp import export_litert  # noqa: E402

# By name: the file of the main example, and the number format of its tables.
MODELS = {
    "dense": ("dense.keras", "float32"),
    "compressed": ("model.keras", "float32"),
    "compressed, 4 bits": ("model.keras", "int4"),
}
# The page starts with the first one; the others are hard to split.
TEXTS = (
    "The Bank of England left interest rates unchanged on Thursday, and said "
    "that growth in house prices and consumer borrowing had slowed.",
    "Arsenal won 3-1 after two late goals at Highbury.",
    "The minister's plan for ID cards was voted down by MPs.",
    'Film: "Sideways" took five Oscar nominations; best actor isn\'t one.',
    "Broadband users download 10GB of music a month, a £5.3bn market!",
    "STRASSE, Straße, ΟΔΟΣ, οδός, İstanbul, naïve, 東京 🙂",
    "no-break\u00a0space, tab\tline\nfeed\u000bvertical soft\u00adhyphen",
    "\ufb01lm, \uff26\uff29\uff2c\uff2d, \u2460 \u00bd, zero\u200bwidth",
    "",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="output of the main example")
    options = parser.parse_args()
    missing = [
        name
        for name in (*dict(MODELS.values()), "vocabulary.txt", "labels.txt")
        if not (options.results / name).is_file()
    ]
    if missing:
        parser.error(
            f"{options.results} must hold the output of "
            f"sentence_classification.py; it has no {', '.join(missing)}"
        )
    shutil.rmtree(HERE / "build", ignore_errors=True)
    with new_folder(HERE / "build") as folder:
        build(options.results, folder)


def build(results, folder):
    for name in ("vocabulary.txt", "labels.txt"):
        shutil.copy(results / name, folder)
    lines = (folder / "vocabulary.txt").read_text("utf-8").split("\n")
    listed, probabilities = [], []
    for number, (name, (file, table_format)) in enumerate(MODELS.items()):
        model = keras.saving.load_model(results / file)
        # Without the marks of padding and unknown words, and the last end.
        text_to_ids = TextToIds(lines[2:-1], model.input_shape[1])
        ids = text_to_ids(tf.constant(TEXTS)).numpy()
        written = export_litert(
            model,
            folder / f"model-{number}.tflite",
            batch=1,
            table_format=table_format,
        )
        listed.append({"name": name, "file": written.path.name})
        probabilities.append(outputs_of(written.path, ids))
        print(f"{name}: {written.bytes:,} bytes")
    examples = [
        {"text": text, "ids": own, "probabilities": values}
        for text, own, *values in zip(
            TEXTS, ids.tolist(), *probabilities, strict=True
        )
    ]
    (folder / "models.json").write_text(json.dumps(listed))
    (folder / "examples.json").write_text(json.dumps(examples))


def outputs_of(file, ids):
    """Returns the outputs of a LiteRT file for each row of ids."""
    runner = Interpreter(str(file)).get_signature_runner("serving_default")
    return [
        next(iter(runner(ids=row[None]).values()))[0].tolist() for row in ids
    ]


if __name__ == "__main__":
    main()
