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


def export_serving(
    model, path, version=1, preprocess=None, signatures=None
) -> Path:
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
        signatures: Dict of more functions to serve, by name: each a
            `tf.function` with an `input_signature`, whose specs have the names
            of its inputs, that returns a dict of tensors. They may use the
            layers of the model and `preprocess`, and constants.

    Returns:
        The folder of the version.

    Raises:
        ValueError: if the model cannot be traced, the version exists, a
            signature is no such function, or `path` cannot be written.
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
    outputs = {}
    for name, function in (signatures or {}).items():
        _check_signature(name, function)
        outputs[name] = _outputs(name, function)
    module = traced_module(model, preprocess, signatures)
    with _folder(target.parent), written_whole(target) as temporary:
        tf.saved_model.save(
            module,
            str(temporary),
            signatures={"serving_default": module.serve, **module.extra},
        )
        loaded = tf.saved_model.load(str(temporary))
        serve = loaded.signatures["serving_default"]
        for samples, expected in _cases(model, preprocess):
            tensors = {k: tf.constant(v) for k, v in samples.items()}
            found = serve(**tensors)
            found = [found[name].numpy() for name in output_names(model)]
            largest_difference(expected, found)
        for name, (samples, expected) in outputs.items():
            _compare(expected, loaded.signatures[name](**samples))
    return target


def _check_signature(name, function):
    import tensorflow as tf

    specs = getattr(function, "input_signature", None) or ()
    names = [getattr(spec, "name", None) for spec in specs]
    if (
        not str(name).isidentifier()
        or name == "serving_default"
        or not specs
        or None in names
        or len(set(names)) < len(names)
        or not all(isinstance(spec, tf.TensorSpec) for spec in specs)
        or any(spec.shape.rank is None for spec in specs)
    ):
        raise ValueError(
            "`signatures` must map names other than 'serving_default' to "
            "functions made by `tf.function(input_signature=...)`, of tensors "
            "of a known rank with a name each. "
            f"Received: {name!r}: {function!r}"
        )


def _outputs(name, function):
    """Returns inputs of a function, and what it gives for them."""
    import tensorflow as tf

    samples = {}
    for spec in function.input_signature:
        shape = [size or len(_TEXTS) for size in spec.shape]
        samples[spec.name] = (
            tf.constant(np.resize(_TEXTS, shape))
            if spec.dtype == tf.string
            else tf.zeros(shape, spec.dtype)
        )
    outputs = function(*samples.values())
    if not isinstance(outputs, dict):
        raise ValueError(
            "`signatures` must return dicts of tensors. "
            f"Received: {name!r}, which returns a {type(outputs).__name__}"
        )
    return samples, outputs


def _compare(expected, found):
    """Raises unless a served function gives what it gave before."""
    for name, one in expected.items():
        other = found[name].numpy()
        if one.dtype.is_floating:
            largest_difference([one.numpy()], [other])
        elif not np.array_equal(one.numpy(), other):
            raise RuntimeError(
                f"The exported function has another {name!r} than before, "
                "so it was not written. This is a fault of the export: please "
                "report the model's layers."
            )


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
