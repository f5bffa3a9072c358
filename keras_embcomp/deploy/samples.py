"""What a user gives as inputs of a model: to compare, or to find ranges."""

import itertools
from typing import Any

import keras
import numpy as np

from keras_embcomp._types import Array

_MOST_SAMPLES = 200


def samples_of(
    name: str,
    data: Any,
    model: keras.Model,
    shapes: dict[str, tuple[int | None, ...]],
) -> list[dict[str, Array]]:
    """Returns a list of dicts of arrays by the names of a model's inputs.

    Args:
        name: Name of the argument, for errors.
        data: Iterable of samples: each a dict of arrays by name, a tuple or
            list of arrays in the order of the inputs, or the array of the only
            input. All have a batch dimension.
        model: Keras model.
        shapes: That of `input_shapes`.

    Raises:
        ValueError: if it is not that.
    """
    try:
        chosen = list(itertools.islice(data, _MOST_SAMPLES))
    except TypeError:
        raise ValueError(
            f"`{name}` must be an iterable of samples. "
            f"Received: {name}={data!r}"
        ) from None
    if not chosen:
        raise ValueError(f"`{name}` must have samples. Received: none")
    return [_sample(name, value, model, shapes) for value in chosen]


def given_samples(
    samples: Any,
    model: keras.Model,
    shapes: dict[str, tuple[int | None, ...]],
) -> list[dict[str, Array]]:
    """Returns the samples that a user gives, as `samples_of`.

    One dict, or one array for the only input, is one sample.
    """
    if isinstance(samples, dict) or hasattr(samples, "shape"):
        samples = [samples]
    return samples_of("samples", samples, model, shapes)


def _sample(name, value, model, shapes):
    names = [spec.name for spec in model.inputs]
    if not isinstance(value, dict):
        values = value if isinstance(value, (tuple, list)) else (value,)
        if len(values) != len(names):
            raise _wrong(
                name,
                f"be samples of {len(names)} inputs, {', '.join(names)}",
                f"one of {len(values)}",
            )
        value = dict(zip(names, values, strict=True))
    if set(value) != set(names):
        raise _wrong(
            name,
            f"have the names of the inputs, {', '.join(names)}",
            ", ".join(map(str, value)) or "none",
        )
    return {
        spec.name: _array(name, value[spec.name], spec, shapes[spec.name])
        for spec in model.inputs
    }


def _array(name, value, spec, shape):
    try:
        array = np.asarray(value)
        if spec.dtype == "string" and array.dtype.kind in "OSU":
            kind = "string"
        else:
            kind = keras.backend.standardize_dtype(array.dtype)
    except (ValueError, TypeError):
        rule = f"have arrays of {spec.dtype} for {spec.name}"
        raise _wrong(name, rule, f"{value!r}") from None
    whole = keras.backend.is_int_dtype(spec.dtype)
    if whole and not keras.backend.is_int_dtype(kind):
        raise _wrong(name, f"have integers for {spec.name}", f"dtype {kind}")
    if spec.dtype == "string" and kind != "string":
        raise _wrong(name, f"have strings for {spec.name}", f"dtype {kind}")
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, size)
        for wanted, size in zip(shape, array.shape, strict=True)
    )
    if not fits or not array.size:
        raise _wrong(
            name,
            f"have the shape {shape} for {spec.name}",
            f"shape {array.shape}",
        )
    return array if kind == "string" else array.astype(spec.dtype)


def _wrong(name, rule, received):
    return ValueError(f"`{name}` must {rule}. Received: {received}")
