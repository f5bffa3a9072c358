"""A new folder of results, and a classifier in three file formats."""

import contextlib
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keras_embcomp import export_litert, export_serving

_BATCH = 256


@contextlib.contextmanager
def new_folder(path):
    """Yields a temporary folder, which becomes `path` at the end.

    If the body raises, the folder is deleted.

    Raises:
        SystemExit: with one line, if `path` holds something or cannot be made.
    """
    path = Path(path).absolute()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise SystemExit(
                f"--output {path} exists: name a new or an empty folder"
            )
        temporary.mkdir(parents=True)
    except OSError as error:
        raise SystemExit(
            f"--output {path} cannot be written ({error.strerror}): name a "
            "folder in a place that can"
        ) from error
    try:
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass
class Exports:
    """The files of one classifier."""

    keras_file: Path
    litert_file: Path
    serving_folder: Path

    def sizes(self):
        """Returns the bytes of each format."""
        return {
            "keras_bytes": self.keras_file.stat().st_size,
            "litert_bytes": self.litert_file.stat().st_size,
            "saved_model_bytes": _folder_bytes(self.serving_folder),
        }


def without_optimizer(model):
    """Returns an uncompiled copy, which has no optimizer state to save."""
    plain = keras.Model.from_config(model.get_config())
    plain.set_weights(model.get_weights())
    return plain


def export(model, folder, text_to_ids):
    """Writes a classifier to a folder as `.keras`, `.tflite` and SavedModel.

    The first two take ids. The SavedModel, for TensorFlow Serving, takes
    strings, because it contains `text_to_ids`.
    """
    plain = without_optimizer(model)
    exports = Exports(
        folder / "model.keras",
        folder / "model.tflite",
        folder / "serving" / "1",
    )
    plain.save(exports.keras_file)
    export_litert(plain, exports.litert_file)
    export_serving(plain, folder / "serving", version=1, preprocess=text_to_ids)
    return exports


def predicted_labels(predict, inputs):
    """Returns the most probable labels, from a function of a batch."""
    batches = [
        np.argmax(predict(inputs[start : start + _BATCH]), axis=1)
        for start in range(0, len(inputs), _BATCH)
    ]
    return np.concatenate(batches)


def check_agreement(model, exports, texts, ids):
    """Reloads the three formats and compares their labels with the model's.

    Raises:
        RuntimeError: if a label differs.
    """
    labels = predicted_labels(model, ids)
    reloaded = keras.saving.load_model(exports.keras_file)
    litert = Interpreter(model_path=str(exports.litert_file))
    runner = litert.get_signature_runner("serving_default")
    served = tf.saved_model.load(str(exports.serving_folder))
    serve = served.signatures["serving_default"]
    found = {
        ".keras": predicted_labels(reloaded, ids),
        ".tflite": predicted_labels(
            lambda batch: runner(ids=batch)["probabilities"], ids
        ),
        "SavedModel": predicted_labels(
            lambda batch: serve(text=tf.constant(batch))["probabilities"],
            texts,
        ),
    }
    for name, reloaded_labels in found.items():
        num_same = int(np.sum(reloaded_labels == labels))
        print(f"Reloaded {name}: {num_same} of {len(labels)} labels the same")
        if num_same != len(labels):
            raise RuntimeError(
                f"The reloaded {name} gives {len(labels) - num_same} of the "
                f"{len(labels)} test texts another label than the model"
            )


def _folder_bytes(folder):
    # The fingerprint has random numbers, so its length varies.
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name != "fingerprint.pb"
    )
