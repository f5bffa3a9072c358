"""What every export shares: its inputs, its comparison and its last rename."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np

# Dynamic dimensions are tried at these sizes, in turn.
_SIZES = ((1, 5), (3, 17))
# Float32 sums in another order; a lost operation shows far above it.
_TOLERANCE = 1e-4


def check_exportable(model):
    """Raises unless the model can be traced on the TensorFlow backend."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Export runs on the TensorFlow backend: save the model as "
            "`.keras`, and load and export it with KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()}"
        )
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            "`model` must be a built Functional or Sequential model: a "
            "subclassed one has no named inputs. "
            f"Received: model={model!r}"
        )


def sample_inputs(model, seed=0):
    """Yields dicts of NumPy inputs for the model, by name, in several shapes.

    Integer inputs are ids below the smallest vocabulary of the model.
    """
    vocabulary = min(
        (
            layer.input_dim
            for layer in model._flatten_layers()
            if hasattr(layer, "input_dim")
        ),
        default=2,
    )
    generator = np.random.default_rng(seed)
    for sizes in _SIZES:
        samples = {}
        for spec in model.inputs:
            shape = [
                size if size is not None else sizes[min(axis, 1)]
                for axis, size in enumerate(spec.shape)
            ]
            if keras.backend.is_int_dtype(spec.dtype):
                sample = generator.integers(0, vocabulary, shape)
            else:
                sample = generator.normal(size=shape)
            samples[spec.name] = sample.astype(spec.dtype)
        yield samples


def predictions(model, samples):
    """Returns the model's outputs for a dict of inputs, as NumPy arrays."""
    inputs = [samples[spec.name] for spec in model.inputs]
    outputs = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
    return [
        keras.ops.convert_to_numpy(output)
        for output in keras.tree.flatten(outputs)
    ]


def largest_difference(expected, found):
    """Returns the largest difference, or raises if it is more than rounding."""
    difference = 0.0
    for one, other in zip(expected, found, strict=True):
        one, other = one.astype("float32"), other.astype("float32")
        differences = np.abs(one - other)[np.isfinite(one)]
        difference = max(difference, float(np.max(differences, initial=0.0)))
        # A mean over padding alone is NaN in Keras too.
        if not np.allclose(
            one, other, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
        ):
            raise RuntimeError(
                "The exported model differs from the Keras model by "
                f"{difference:.3g}, so it was not written. This is a fault of "
                "the converter: please report the model's layers."
            )
    return difference


@contextlib.contextmanager
def written_whole(path):
    """Yields a temporary path beside `path`, renamed to it at the end.

    If the body raises, nothing is left behind.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(
            f"`path` must be in a folder that exists. Received: path={path}"
        )
    try:
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    except PermissionError as error:
        raise ValueError(
            f"`path` must be in a writable folder. Received: path={path}"
        ) from error
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder)
