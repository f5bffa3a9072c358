"""Export to TensorFlow Serving: a versioned SavedModel, each weight once."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_embcomp.checks import positive_int
from keras_embcomp.deploy.samples import given_samples
from keras_embcomp.deploy.serving.extras import write_card, write_warmup
from keras_embcomp.deploy.serving.signatures import (
    checked_signatures,
    examples_of,
    served_functions,
    wrong_signature,
)
from keras_embcomp.deploy.tracing import traced_module
from keras_embcomp.deploy.verify import (
    check_exportable,
    check_preprocess,
    check_sizes,
    input_shapes,
    largest_difference,
    sample_inputs,
)
from keras_embcomp.files import written_whole


def export_serving(
    model: keras.Model,
    path: str | os.PathLike,
    version: int | None = None,
    preprocess: Any = None,
    signatures: Mapping[str, Any] | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    samples: Any = None,
) -> Path:
    """Writes a model for TensorFlow Serving and checks it against Keras.

    The signature `serving_default` has the names of the model's inputs and
    outputs. A server does not cast, so ids have signatures of their own,
    `serving_default_int32` and `serving_default_int64`, wherever
    `serving_default` takes something else. Each weight is stored once for all
    of them, where `model.export` of Keras 3.15 stores it twice.

    A server that watches `path` never sees half a version: the folder gets its
    number when it is whole. Its `assets.extra` holds requests with which the
    server warms up, and a card in JSON, `keras_embcomp.json`: signatures,
    compressed layers, bytes and versions of packages.

    Args:
        model: Keras model with named inputs: a Functional or Sequential
            one, or a subclass of these, such as those of keras-hub.
        path: Folder of the served model, made if it does not exist. The files
            go to `path/<version>`, which must not exist.
        version: Integer above 0. By default the number after the highest one
            that there is, or 1.
        preprocess: `tf.Module`, or a Keras layer such as `TextVectorization`,
            to serve with the model: called with a string tensor of shape
            `(batch,)`, it returns the model's only input. The signature
            `serving_default` then takes strings, as `text`.
        signatures: Dict of more functions to serve, by name: each a
            `tf.function` with an `input_signature`, whose specs have the names
            of its inputs, that returns a dict of tensors. They may use the
            layers of the model and `preprocess`, and constants.
        batch: Integer. Fixes the first size of all inputs where it is free.
        sequence: Integer. Fixes the second size of all inputs where it is
            free.
        samples: Inputs to compare with Keras on, and to warm up with: a dict
            of arrays by name, the array of the only input, or a list of these.
            `None` makes up ids below the smallest vocabulary of the model,
            which may not suit it. Functions in `signatures` take them if their
            inputs have their names.

    Returns:
        The folder of the version.

    Raises:
        ValueError: if the model cannot be traced, the version exists, a
            signature is no such function, something calls Python, or `path`
            cannot be written.
        RuntimeError: if the saved model computes something else.
    """
    check_exportable(model)
    import tensorflow as tf

    target = _new_version(Path(path).expanduser(), version)
    if preprocess is not None:
        check_preprocess(model, preprocess)
    signatures = checked_signatures(signatures)
    sizes: dict[str, Any] = {"batch": batch, "sequence": sequence}
    check_sizes([model], sizes)
    shapes = input_shapes(model, **sizes)
    given = None
    if samples is not None:
        given = given_samples(samples, model, shapes)
    elif preprocess is None:
        given = list(sample_inputs(model, **sizes))
    module = traced_module(model, signatures, sizes)
    module.preprocess = preprocess
    module.served = {**served_functions(module, preprocess), **module.extra}
    examples = list(
        examples_of(model, module, preprocess, signatures, sizes, given)
    )
    with _folder(target.parent), written_whole(target) as temporary:
        _save(module, temporary, target)
        loaded = tf.saved_model.load(str(temporary)).signatures
        for name, inputs, outputs in examples:
            _compare(outputs, _answer(loaded[name], name, inputs))
        write_warmup(temporary, target.parent.name, examples)
        write_card(temporary, model, loaded)
    return target


def _save(module, folder, target):
    """Writes a SavedModel, or raises what Python raises of a full disk."""
    import tensorflow as tf

    try:
        tf.saved_model.save(module, str(folder), signatures=module.served)
    except (
        tf.errors.ResourceExhaustedError,
        tf.errors.UnknownError,
        tf.errors.InternalError,
    ) as error:
        raise OSError(
            "`path` must have room to be written. "
            f"Received: path={target} ({error.message})"
        ) from error


def _answer(function, name, inputs):
    """Returns what a served function gives for samples, or raises."""
    import tensorflow as tf

    try:
        return function(**{k: tf.constant(v) for k, v in inputs.items()})
    except tf.errors.OpError as error:
        raise wrong_signature(name, inputs, error) from error


def _new_version(path, version):
    """Returns the folder of a version, or raises if it exists."""
    names = [entry.name for entry in path.glob("*")]
    used = {int(name) for name in names if name.isdecimal()}
    if version is None:
        version = max(used, default=0) + 1
    target = path / str(positive_int("version", version))
    if version in used:
        raise ValueError(
            "`version` must be new. "
            f"Received: version={version}, and {target} exists"
        )
    return target


def _compare(expected, found):
    """Raises unless a served function gives what it gave before."""
    for name, one in expected.items():
        one, other = one.numpy(), found[name].numpy()
        if found[name].dtype.is_floating:
            largest_difference([one], [other])
        elif not (one == other).all():
            raise RuntimeError(
                f"The exported function has another {name!r} than before, "
                "so it was not written. This is a fault of the export: please "
                "report the model's layers."
            )


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
        # It fails if anything is in it, also what another export writes.
        with contextlib.suppress(OSError):
            path.rmdir()
