"""What every export shares: its inputs and its comparison with Keras."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_embcomp._compat import (
    every_layer,
    outputs_of,
    producer,
    producer_name,
)
from keras_embcomp._types import Array, Tensor
from keras_embcomp.checks import positive_int

SAMPLE_TEXTS = np.array(["", "A sentence, to compare with.", "naïve 東京 42"])
# Dynamic dimensions are tried at these sizes, two at a time: shorter ones if a
# model has no positions for so many steps.
_SIZES = (
    ((1, 24), (3, 41)),
    ((1, 12), (3, 16)),
    ((1, 5), (3, 8)),
    ((1, 2), (3, 3)),
    ((1, 1), (3, 1)),
)
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
    for output in model.outputs:
        layer = producer(output)
        if type(layer).__name__ == "CrossentropyHead":
            raise ValueError(
                "`model` must end in what it predicts. Export the predictor, "
                f"`model.get_layer({layer.name!r}).predictor(model)`. "
                "Received: a model that trains, with a `CrossentropyHead`"
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


def check_sizes(
    models: Iterable[keras.Model], sizes: Mapping[str, int | None]
) -> None:
    """Raises unless each size that is given is that of an input."""
    for axis, (name, size) in enumerate(sizes.items()):
        if size is None:
            continue
        positive_int(name, size)
        for model in models:
            found = [
                shape[axis]
                for shape in input_shapes(model, **sizes).values()
                if len(shape) > axis
            ]
            if size not in found:
                raise ValueError(
                    f"`{name}` must be free in an input of the model, or the "
                    f"size it has. Received: {name}={size}, and inputs of "
                    f"size {', '.join(map(str, found)) or 'none'}"
                )


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
    batch: int | None = None,
    sequence: int | None = None,
    seed: int = 0,
) -> Iterator[dict[str, Array]]:
    """Yields dicts of NumPy inputs for the model, by name, in several shapes.

    Sizes that are given are fixed, as in `input_shapes`.

    Integer inputs, and the input of a Sequential model that starts with an
    embedding, are ids below the smallest vocabulary of the model, with a zero
    at the end: padding, where id 0 is that. Strings are a few texts. Sizes
    that are free are as long as the model allows, up to 41.

    Raises:
        ValueError: if the model fails on all of them.
    """
    first: Exception | None = None
    for sizes in _SIZES:
        made = list(_made_up(model, sizes, seed, batch, sequence))
        try:
            for samples in made:
                predictions(model, samples)
        except Exception as error:  # models raise whatever they like
            first = first or error
            continue
        yield from made
        return
    raise ValueError(
        "`samples` must be given, for the model fails on ids that are made up "
        "for its inputs. Received: no samples, and a model that raises "
        f"{' '.join(str(first).split())[:300]}"
    ) from first


def _made_up(model, every_size, seed, batch, sequence):
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
    for sizes in every_size:
        samples = {}
        for spec in model.inputs:
            shape = [
                size if size is not None else sizes[min(axis, 1)]
                for axis, size in enumerate(shapes[spec.name])
            ]
            if spec.dtype == "string":
                samples[spec.name] = np.resize(SAMPLE_TEXTS, shape)
                continue
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
    """Returns a name for each output.

    It is the key in a dictionary of outputs, else the name of the layer,
    numbered if it has two.
    """
    outputs = outputs_of(model)
    if isinstance(outputs, dict):
        flat = keras.tree.flatten(outputs)
        keys = {id(value): key for key, value in outputs.items()}
        if all(id(tensor) in keys for tensor in flat):
            return [str(keys[id(tensor)]) for tensor in flat]
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
    outputs = call(
        model, [_as_tensor(samples[spec.name]) for spec in model.inputs]
    )
    return [keras.ops.convert_to_numpy(output) for output in outputs]


def _as_tensor(sample):
    if np.asarray(sample).dtype.kind not in "OSU":
        return sample
    import tensorflow as tf

    return tf.constant(sample)  # Keras takes no arrays of strings


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
        if one.shape != other.shape:
            raise RuntimeError(
                "The exported model has an output of another shape than the "
                "Keras model, so it was not written: Keras itself computes "
                "another shape in a function than eagerly. Fix the sizes that "
                f"are free. Received: shapes {one.shape} and {other.shape}"
            )
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
