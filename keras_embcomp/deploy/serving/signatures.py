"""What a served model can be asked: its functions, and examples of requests."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_embcomp._types import Array, Tensor
from keras_embcomp.deploy.verify import (
    SAMPLE_TEXTS,
    output_names,
    predictions,
    sample_inputs,
)

# The name of a signature, inputs, and the outputs in Keras.
Example: TypeAlias = tuple[str, dict[str, Array], dict[str, Tensor]]
_IDS = ("int32", "int64")


def served_functions(module: Any, preprocess: Any = None) -> dict[str, Any]:
    """Returns functions of the model, by the names of their signatures.

    Args:
        module: That of `traced_module`, of the model alone.
        preprocess: What makes the model's only input of strings, or `None`.
    """
    import tensorflow as tf

    serve = module.serve
    specs = serve.input_signature
    functions = {"serving_default": serve}
    if preprocess is not None:
        text = tf.TensorSpec((None,), tf.string, name="text")
        functions["serving_default"] = _before(serve, [text], preprocess)
    if not any(spec.dtype.name in _IDS for spec in specs):
        return functions
    for dtype in _IDS:
        ids = [
            tf.TensorSpec(spec.shape, dtype, name=spec.name)
            if spec.dtype.name in _IDS
            else spec
            for spec in specs
        ]
        if ids != list(specs):
            functions[f"serving_default_{dtype}"] = _before(serve, ids)
        elif preprocess is not None:
            functions[f"serving_default_{dtype}"] = serve
    return functions


def _before(serve, specs, preprocess=None):
    """Returns a function of other inputs that calls `serve` with its own."""
    import tensorflow as tf

    def call(*inputs):
        given = list(inputs)
        if preprocess is not None:
            given = [preprocess(inputs[0])]
        pairs = zip(given, serve.input_signature, strict=True)
        return serve(*[_as(tensor, spec) for tensor, spec in pairs])

    return tf.function(call, input_signature=specs)


def _as(tensor, spec):
    """Returns a tensor with the dtype and the shape of an input."""
    import tensorflow as tf

    if tensor.dtype == tf.int64 and spec.dtype == tf.int32:
        # A cast would drop the upper bits, and find the row of another id.
        tensor = tf.clip_by_value(tensor, tf.int32.min, tf.int32.max)
    return tf.ensure_shape(tf.cast(tensor, spec.dtype), spec.shape)


def checked_signatures(
    signatures: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns the user's functions, or raises unless they can be served."""
    import tensorflow as tf

    for name, function in (signatures or {}).items():
        specs = getattr(function, "input_signature", None) or ()
        names = [getattr(spec, "name", None) for spec in specs]
        if (
            not str(name).isidentifier()
            or name.startswith("serving_default")
            or not specs
            or None in names
            or len(set(names)) < len(names)
            or not all(isinstance(spec, tf.TensorSpec) for spec in specs)
            or any(spec.shape.rank is None for spec in specs)
        ):
            raise ValueError(
                "`signatures` must map names that do not begin with "
                "'serving_default' to functions made by "
                "`tf.function(input_signature=...)`, of tensors of a known "
                "rank with a name each. "
                f"Received: {name!r}: {function!r}"
            )
    return dict(signatures or {})


def examples_of(
    model: keras.Model,
    module: Any,
    preprocess: Any,
    signatures: Mapping[str, Any],
    sizes: Mapping[str, Any],
    given: list[dict[str, Array]] | None = None,
) -> Iterator[Example]:
    """Yields the name of a signature, inputs, and the outputs in Keras.

    Inputs are dicts of NumPy arrays, outputs dicts of tensors. Those in `given`
    are taken, if there are any.
    """
    import tensorflow as tf

    def outputs_for(samples):
        found = map(tf.constant, predictions(model, samples))
        return dict(zip(output_names(model), found, strict=True))

    functions = served_functions(module, preprocess)
    if preprocess is not None:
        functions.pop("serving_default")
        inputs = preprocess(tf.constant(SAMPLE_TEXTS))
        samples = {model.inputs[0].name: inputs}
        yield "serving_default", {"text": SAMPLE_TEXTS}, outputs_for(samples)
    made_up = given or sample_inputs(model, **sizes)
    for samples in made_up if functions else ():
        outputs = outputs_for(samples)
        for name, function in functions.items():
            specs = function.input_signature
            inputs = {
                spec.name: _of_dtype(samples[spec.name], spec.dtype)
                for spec in specs
            }
            yield name, inputs, outputs
    for name, function in signatures.items():
        inputs = _inputs_for(function.input_signature, given)
        try:
            outputs = function(*map(tf.constant, inputs.values()))
        except Exception as error:  # a user's function raises what it likes
            raise wrong_signature(name, inputs, error) from error
        if not isinstance(outputs, dict):
            raise ValueError(
                "`signatures` must return dicts of tensors. "
                f"Received: {name!r}, which returns a {type(outputs).__name__}"
            )
        yield name, inputs, outputs


def _of_dtype(sample, dtype):
    if dtype.name == "string":
        return sample
    return sample.astype(dtype.as_numpy_dtype)


def _inputs_for(specs, given):
    """Returns a dict of inputs for a user's function."""
    names = {spec.name for spec in specs}
    if given and names <= set(given[0]):
        return {s.name: _of_dtype(given[0][s.name], s.dtype) for s in specs}
    return {spec.name: _sample(spec) for spec in specs}


def wrong_signature(
    name: str, inputs: Mapping[str, Array], error: Exception
) -> ValueError:
    """Returns the error of a signature that fails on samples."""
    shown = ", ".join(
        f"{key} of shape {np.shape(value)}, as {np.ravel(value)[:3]}"
        for key, value in inputs.items()
    )
    return ValueError(
        "A signature must take the samples that it is compared on: give "
        f"`samples` that suit it. Received: {name!r}, which fails on {shown} "
        f"({' '.join(str(error).split())[:200]})"
    )


def _sample(spec):
    import tensorflow as tf

    shape = [size or len(SAMPLE_TEXTS) for size in spec.shape]
    if spec.dtype == tf.string:
        return np.resize(SAMPLE_TEXTS, shape)
    return np.zeros(shape, spec.dtype.as_numpy_dtype)
