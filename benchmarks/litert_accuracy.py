"""Test accuracy of the main example's models in every format of LiteRT.

python examples/sentence_classification.py --output news
python benchmarks/litert_accuracy.py news
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

import keras
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from artefacts import predicted_labels
from text_datasets import load
from text_pipeline import TextToIds

from keras_embcomp import export_litert

FORMATS = ("float32", "float16", "int8", "int4")
MODELS = {"dense": "dense.keras", "low rank, fine-tuned": "model.keras"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="output of the main example")
    folder = parser.parse_args().results
    told = json.loads((folder / "results.json").read_text())
    test = load(told["dataset"], None, told["seed"]).test
    lines = (folder / "vocabulary.txt").read_text("utf-8").split("\n")
    print("| model | format | bytes | error | accuracy | same labels |")
    print("|---|---|---:|---:|---:|---:|")
    for name, file in MODELS.items():
        model = keras.saving.load_model(folder / file)
        text_to_ids = TextToIds(lines[2:-1], model.input_shape[1])
        ids = text_to_ids(tf.constant(test.texts)).numpy()
        expected = predicted_labels(model, ids)
        for table_format in FORMATS:
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary) / "model.tflite"
                written = export_litert(model, path, table_format)
                runner = Interpreter(str(path)).get_signature_runner()
                labels = predicted_labels(
                    lambda batch, run=runner: run(ids=batch)["probabilities"],
                    ids,
                )
            print(
                f"| {name} | {table_format} | {written.bytes:,} | "
                f"{written.error:.4f} | {(labels == test.labels).mean():.2%} | "
                f"{(labels == expected).sum()} of {len(labels)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
