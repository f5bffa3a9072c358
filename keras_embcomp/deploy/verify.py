"""What every export shares: its inputs and its comparison with Keras."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_embcomp._compat import every_layer, producer_name
from keras_embcomp._types import Array, Tensor

SAMPLE_TEXTS = np.array(["", "A sentence, to compare with.", "naïve 東京 42"])
# Dynamic dimensions are tried at these sizes, in turn.
_SIZES = ((1, 24), (3, 41))
# Of the largest output: float32 sums in another order stay far below it.
_TOLERANCE = 1e-4


def check_exportable(model: keras.Model) -> None:
    """Raises unless the model can be traced on the TensorFlow backend."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Export runs on the TensorFlow backend: save the model as "
            "`.keras`, and load and export it with KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()}"
        )
    if not getattr(model, "inputs", None):
        raise ValueError(
            "`model` must be a built Functional or Sequential model: a "
            "subclassed one has no named inputs. "
            f"Received: model={model!r}"
        )


def input_shapes(
    model: keras.Model, batch: int | None = None, sequence: int | None = None
) -> dict[str, tuple[int | None, ...]]:
    """Returns the shapes of a model's inputs, by name.

    Args:
        model: Model with named inputs.
        batch: Size of the first dimension where it is free; `None` leaves it.
        sequence: Size of the second dimension where it is free.
    """
    fixed = (batch, sequence)
    return {
        spec.name: tuple(
            fixed[axis] if size is None and axis < len(fixed) else size
            for axis, size in enumerate(spec.shape)
        )
        for spec in model.inputs
    }


def check_preprocess(model: keras.Model, preprocess: Any) -> None:
    """Raises unless a module can make the model's only input."""
    import tensorflow as tf

    if len(model.inputs) != 1:
        raise ValueError(
            "`preprocess` must serve a model with one input. "
            f"Received: a model with {len(model.inputs)}"
        )
    if not callable(preprocess) or not isinstance(
        preprocess, (tf.Module, keras.Layer)
    ):
        raise ValueError(
            "`preprocess` must be a `tf.Module` or a Keras layer that can be "
            f"called with strings. Received: preprocess={preprocess!r}"
        )


def sample_inputs(
    model: keras.Model,
    seed: int = 0,
    batch: int | None = None,
    sequence: int | None = None,
) -> Iterator[dict[str, Array]]:
    """Yields dicts of NumPy inputs for the model, by name, in several shapes.

    Sizes that are given are fixed, as in `input_shapes`.

    Integer inputs, and the input of a Sequential model that starts with an
    embedding, are ids below the smallest vocabulary of the model, with a zero
    at the end: padding, where id 0 is that.
    """
    vocabularies = [
        layer.input_dim
        for layer in every_layer(model)
        if hasattr(layer, "input_dim")
    ]
    vocabulary = min(vocabularies, default=2)
    starts_with_ids = isinstance(model, keras.Sequential) and hasattr(
        model.layers[0], "input_dim"
    )
    generator = np.random.default_rng(seed)
    shapes = input_shapes(model, batch, sequence)
    for sizes in _SIZES:
        samples = {}
        for spec in model.inputs:
            shape = [
                size if size is not None else sizes[min(axis, 1)]
                for axis, size in enumerate(shapes[spec.name])
            ]
            if starts_with_ids or keras.backend.is_int_dtype(spec.dtype):
                sample: Array = generator.integers(0, vocabulary, shape)
                sample[..., -1:] = 0
            else:
                sample = generator.normal(size=shape)
            samples[spec.name] = sample.astype(spec.dtype)
        yield samples


def call(model: keras.Model, inputs: list[Tensor]) -> list[Tensor]:
    """Returns the list of a model's outputs for a list of its inputs."""
    if isinstance(model, keras.Sequential):
        (inputs,) = inputs
    else:
        inputs = keras.tree.pack_sequence_as(model.input, inputs)
    return keras.tree.flatten(model(inputs, training=False))


def output_names(model: keras.Model) -> list[str]:
    """Returns a name for each output: its layer's, numbered if it has two."""
    layers = [producer_name(output) for output in model.outputs]
    names = []
    for index, name in enumerate(layers):
        count = layers[:index].count(name)
        names.append(f"{name}_{count}" if count else name)
    return names


def predictions(
    model: keras.Model, samples: Mapping[str, Array]
) -> list[Array]:
    """Returns the model's outputs for a dict of inputs, as NumPy arrays."""
    outputs = call(model, [samples[spec.name] for spec in model.inputs])
    return [keras.ops.convert_to_numpy(output) for output in outputs]


def largest_difference(
    expected: Sequence[Array],
    found: Sequence[Array],
    tolerance: float = _TOLERANCE,
) -> float:
    """Returns the largest difference, or raises if it is more than rounding.

    Args:
        expected: List of arrays.
        found: List of arrays.
        tolerance: What is rounding, as a share of the largest number.
    """
    difference = 0.0
    for one, other in zip(expected, found, strict=True):
        one, other = one.astype("float32"), other.astype("float32")
        differences = np.abs(one - other)[np.isfinite(one)]
        difference = max(difference, float(np.max(differences, initial=0.0)))
        # A mean over padding alone is NaN in Keras too.
        largest = np.max(np.abs(one[np.isfinite(one)]), initial=0.0)
        if not np.allclose(
            one, other, rtol=0, atol=tolerance * largest, equal_nan=True
        ):
            raise RuntimeError(
                "The exported model differs from the Keras model by "
                f"{difference:.3g}, where {tolerance * largest:.3g} would be "
                "rounding, so it was not written. This is a fault of the "
                "converter: try fixed sizes or another format, and please "
                "report the model's layers."
            )
    return difference
