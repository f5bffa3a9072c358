"""Representative data: what a model is given, to find ranges of its numbers."""

import itertools

import keras
import numpy as np

_MOST_SAMPLES = 200


def samples_of(data, model, shapes):
    """Returns a list of dicts of arrays by the names of a model's inputs.

    Args:
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
            "`representative_data` must be an iterable of samples. "
            f"Received: representative_data={data!r}"
        ) from None
    if not chosen:
        raise ValueError(
            "`representative_data` must have samples. Received: none"
        )
    return [_sample(value, model, shapes) for value in chosen]


def _sample(value, model, shapes):
    names = [spec.name for spec in model.inputs]
    if not isinstance(value, dict):
        values = value if isinstance(value, (tuple, list)) else (value,)
        if len(values) != len(names):
            raise _wrong(
                f"be samples of {len(names)} inputs, {', '.join(names)}",
                f"one of {len(values)}",
            )
        value = dict(zip(names, values, strict=True))
    if set(value) != set(names):
        raise _wrong(
            f"have the names of the inputs, {', '.join(names)}",
            ", ".join(map(str, value)) or "none",
        )
    return {
        spec.name: _array(value[spec.name], spec, shapes[spec.name])
        for spec in model.inputs
    }


def _array(value, spec, shape):
    try:
        array = np.asarray(value)
        kind = keras.backend.standardize_dtype(array.dtype)
    except (ValueError, TypeError):
        raise _wrong(
            f"have arrays of {spec.dtype} for {spec.name}", f"{value!r}"
        ) from None
    whole = keras.backend.is_int_dtype(spec.dtype)
    if whole and not keras.backend.is_int_dtype(kind):
        raise _wrong(f"have integers for {spec.name}", f"dtype {kind}")
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, size)
        for wanted, size in zip(shape, array.shape, strict=True)
    )
    if not fits or not array.size:
        raise _wrong(
            f"have the shape {shape} for {spec.name}", f"shape {array.shape}"
        )
    return array.astype(spec.dtype)


def _wrong(rule, received):
    return ValueError(
        f"`representative_data` must {rule}. Received: {received}"
    )
