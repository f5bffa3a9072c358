"""Runs of a LiteRT file beside the Keras model that it came from."""

import itertools
import time

import numpy as np

from keras_embcomp.deploy.verify import (
    SAMPLE_TEXTS,
    largest_difference,
    output_names,
    predictions,
)

_CALLS = 20
_COMPARED = 8


def inputs_of(model, sizes, samples, preprocess):
    """Yields dicts of inputs: those of the file, and those of the model."""
    if preprocess is None:
        for one in samples:
            yield one, one
        return
    for texts in (SAMPLE_TEXTS[1:2], SAMPLE_TEXTS):
        texts = np.resize(texts, sizes["batch"] or len(texts))
        yield {"text": texts}, {model.inputs[0].name: preprocess(texts)}


def compared(runner, model, rounded, inputs, tolerance):
    """Returns what a signature differs, its error, and its milliseconds.

    Args:
        runner: Of the signature.
        model: The model as it was given.
        rounded: The model with the rounding of the file.
        inputs: Pairs of dicts, of `inputs_of`.
        tolerance: That of `largest_difference`.
    """
    difference, squares, total, latency = 0.0, 0.0, 0.0, None
    names = output_names(rounded)
    for given, samples in itertools.islice(inputs, _COMPARED):
        found = runner(**given)
        found = [found[name].astype("float32") for name in names]
        copies = [spec.name for spec in rounded.inputs]
        expected = predictions(
            rounded, dict(zip(copies, samples.values(), strict=True))
        )
        difference = max(
            difference, largest_difference(expected, found, tolerance)
        )
        if rounded is model:
            exact = expected
        else:
            exact = predictions(model, samples)
        for one, other in zip(exact, found, strict=True):
            one = one.astype("float32")
            known = np.isfinite(one)
            squares += np.sum(np.square(one[known] - other[known]))
            total += np.sum(np.square(one[known]))
        if latency is None:
            latency = _milliseconds(lambda g=given: runner(**g))
    return difference, float(np.sqrt(squares / max(total, 1e-38))), latency


def _milliseconds(function):
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1_000 * float(np.median(times))


def interpreters(text):
    """Returns a function from a file to its interpreter, of one thread.

    One thread compares with other machines, and with itself.

    Args:
        text: Boolean. Whether it has the operations of TensorFlow Text.
    """
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise ImportError(
            "`export_litert` checks the file with ai-edge-litert: "
            "pip install 'keras_embcomp[deploy]'"
        ) from error
    if not text:
        return lambda content: interpreter.Interpreter(
            model_content=content, num_threads=1
        )
    try:
        from tensorflow_text import tflite_registrar
    except ImportError as error:
        raise ImportError(
            "`preprocess` needs tensorflow-text: "
            "pip install 'keras_embcomp[examples]'"
        ) from error

    def with_text(content):
        try:
            found = interpreter.InterpreterWithCustomOps(
                model_content=content,
                custom_op_registerers=tflite_registrar.SELECT_TFTEXT_OPS,
                num_threads=1,
            )
            found.allocate_tensors()
        except RuntimeError as error:
            raise ValueError(
                "`preprocess` must need operations only that are builtin or "
                "that TensorFlow Text has for LiteRT, such as those of "
                f"`FastBertTokenizer`. LiteRT says: {error}"
            ) from error
        return found

    return with_text
