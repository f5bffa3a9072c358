"""Export to TensorFlow Serving: a versioned SavedModel, each weight once."""

import contextlib
from pathlib import Path

import numpy as np

from keras_embcomp.checks import positive_int
from keras_embcomp.deploy.tracing import traced_module
from keras_embcomp.deploy.verify import (
    check_exportable,
    largest_difference,
    output_names,
    predictions,
    sample_inputs,
    written_whole,
)

_TEXTS = np.array(["", "A sentence, to compare with.", "naïve 東京 42"])


def export_serving(model, path, version=1, preprocess=None) -> Path:
    """Writes a model for TensorFlow Serving and checks it against Keras.

    The signature `serving_default` has the names of the model's inputs and
    outputs. Each weight is stored once, where `model.export` of Keras 3.15
    stores it twice. A server that watches `path` never sees half a version:
    the folder gets its number when it is whole.

    Args:
        model: Functional or Sequential Keras model.
        path: Folder of the served model, made if it does not exist. The files
            go to `path/<version>`, which must not exist.
        version: Integer above 0.
        preprocess: `tf.Module` to serve with the model: called with a string
            tensor of shape `(batch,)`, it returns the model's only input. The
            signature then takes strings, as `text`.

    Returns:
        The folder of the version.

    Raises:
        ValueError: if the model cannot be traced, the version exists, or
            `path` cannot be written.
        RuntimeError: if the saved model computes something else.
    """
    check_exportable(model)
    import tensorflow as tf

    target = Path(path).expanduser() / str(positive_int("version", version))
    if target.exists():
        raise ValueError(
            "`version` must be new. "
            f"Received: version={version}, and {target} exists"
        )
    if preprocess is not None and len(model.inputs) != 1:
        raise ValueError(
            "`preprocess` must serve a model with one input. "
            f"Received: a model with {len(model.inputs)}"
        )
    module = traced_module(model, preprocess)
    with _folder(target.parent), written_whole(target) as temporary:
        tf.saved_model.save(
            module,
            str(temporary),
            signatures={"serving_default": module.serve},
        )
        loaded = tf.saved_model.load(str(temporary))
        serve = loaded.signatures["serving_default"]
        for samples, expected in _cases(model, preprocess):
            tensors = {k: tf.constant(v) for k, v in samples.items()}
            found = serve(**tensors)
            found = [found[name].numpy() for name in output_names(model)]
            largest_difference(expected, found)
    return target


def _cases(model, preprocess):
    """Yields inputs of the signature and the model's outputs for them."""
    if preprocess is None:
        for samples in sample_inputs(model):
            yield samples, predictions(model, samples)
    else:
        inputs = {model.inputs[0].name: preprocess(_TEXTS)}
        yield {"text": _TEXTS}, predictions(model, inputs)


@contextlib.contextmanager
def _folder(path):
    """Makes a folder, and removes it again if it is empty at the end."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"`path` must be a writable folder. Received: path={path}"
        ) from error
    try:
        yield
    finally:
        if not any(path.iterdir()):
            path.rmdir()
