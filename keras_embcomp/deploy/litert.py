"""Export to LiteRT (TensorFlow Lite): one file, builtin operations only."""

import itertools
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_embcomp.checks import positive_int
from keras_embcomp.deploy.litert_calibration import samples_of
from keras_embcomp.deploy.litert_files import builtin_operations, converted
from keras_embcomp.deploy.litert_formats import FORMATS, formatted
from keras_embcomp.deploy.verify import (
    check_exportable,
    input_shapes,
    largest_difference,
    output_names,
    predictions,
    sample_inputs,
    written_whole,
)

_CALLS = 20
_COMPARED = 8


class LiteRTExport(NamedTuple):
    """What `export_litert` wrote.

    Attributes:
        path: The file.
        bytes: Its size.
        max_difference: The largest difference of an output from Keras, of the
            model whose tables are rounded as in the file.
        operations: Names of the operations that the file holds.
        error: Relative error of all outputs against the model as it was given.
        latency_ms: Median time of a call in milliseconds, on one thread of
            this machine, with a batch of 1 and 24 steps where sizes are free.
    """

    path: Path
    bytes: int
    max_difference: float
    operations: tuple[str, ...]
    error: float
    latency_ms: float


def export_litert(
    model,
    path,
    table_format="float32",
    batch=None,
    sequence=None,
    representative_data=None,
    signatures=None,
) -> LiteRTExport:
    """Writes a model as a `.tflite` file and checks it against Keras.

    The file holds builtin operations only, so that it runs on every LiteRT
    runtime. It is run, in several shapes, before it is moved to `path`; its
    signature `serving_default` has the names of the model's inputs and
    outputs.

    Args:
        model: Functional or Sequential Keras model.
        path: File to write, in a folder that exists.
        table_format: `"float32"`, `"float16"`, `"int8"` or `"int4"`: how the
            vocabulary tables are stored, those of compressed layers and of
            plain `Embedding`, `ReversibleEmbedding` and `Dense` layers; a
            layer that is quantized stays as it is. With `"float16"`, all
            weights. The model itself does not change.
        batch: Integer. Fixes the first size of all inputs, as browsers and
            recurrent layers need it; `None` leaves it free.
        sequence: Integer. Fixes the second size of all inputs where it is
            free.
        representative_data: Iterable of samples of the inputs, each a dict of
            arrays by name, or the array of the only input: 200 are used. The
            converter then computes in 8 bits wherever it can, activations too,
            and stores the tables so, with a scale for each. It needs
            `table_format="int8"`.
        signatures: Dict of more models to call in the file, by name. Layers
            that they share with `model` are stored once.

    Returns:
        A `LiteRTExport`.

    Raises:
        ValueError: if the model cannot be traced, needs an operation that is
            not builtin, or `path` cannot be written.
        RuntimeError: if the converted model computes something else.
    """
    path = Path(path).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            "`path` must be a file in a folder that exists. "
            f"Received: path={path}"
        )
    models = {"serving_default": model, **_checked_signatures(signatures)}
    if table_format not in FORMATS:
        raise ValueError(
            f"`table_format` must be one of {', '.join(FORMATS)}. "
            f"Received: table_format={table_format!r}"
        )
    sizes = {"batch": batch, "sequence": sequence}
    for one in models.values():
        check_exportable(one)
    _check_sizes(models.values(), sizes)
    samples = _checked_samples(representative_data, table_format, models, sizes)
    interpreter_class = _interpreter_class()
    from keras_embcomp.deploy.litert_tables import FileTables

    with written_whole(path) as temporary:
        rounded = formatted(models, "float32" if samples else table_format)
        halves = table_format == "float16"
        tables = FileTables(halves, ranges=samples is not None)
        names = {
            name: [spec.name for spec in one.inputs]
            for name, one in models.items()
        }
        content = converted(rounded, names, sizes, tables, samples)
        content = tables.filled(content)
        operations = builtin_operations(content)
        # One thread: it compares with other machines, and with itself.
        interpreter = interpreter_class(model_content=content, num_threads=1)
        cases = [
            _compared(
                interpreter.get_signature_runner(name),
                one,
                rounded[name],
                samples or sample_inputs(one, **sizes),
                tables.tolerance,
            )
            for name, one in models.items()
        ]
        temporary.write_bytes(content)
    differences, errors, latencies = zip(*cases, strict=True)
    return LiteRTExport(
        path,
        len(content),
        max(differences),
        operations,
        max(errors),
        latencies[0],
    )


def _checked_signatures(signatures):
    for name, model in (signatures or {}).items():
        if (
            not str(name).isidentifier()
            or name == "serving_default"
            or not isinstance(model, keras.Model)
        ):
            raise ValueError(
                "`signatures` must map names other than 'serving_default' to "
                f"Keras models. Received: {name!r}: {model!r}"
            )
    return signatures or {}


def _check_sizes(models, sizes):
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


def _checked_samples(data, table_format, models, sizes):
    if data is None:
        return None
    if table_format != "int8" or len(models) > 1:
        raise ValueError(
            "`representative_data` must come with table_format='int8' and "
            f"without `signatures`. Received: table_format={table_format!r}, "
            f"{len(models) - 1} signatures"
        )
    (model,) = models.values()
    return samples_of(data, model, input_shapes(model, **sizes))


def _compared(runner, model, rounded, inputs, tolerance):
    """Returns what a signature differs, its error, and its milliseconds.

    Args:
        runner: Of the signature.
        model: The model as it was given.
        rounded: The model with the rounding of the file.
        inputs: Iterable of dicts of arrays by name.
        tolerance: That of `largest_difference`.
    """
    difference, squares, total, latency = 0.0, 0.0, 0.0, None
    names = output_names(rounded)
    for samples in itertools.islice(inputs, _COMPARED):
        found = runner(**samples)
        found = [found[name].astype("float32") for name in names]
        copies = [spec.name for spec in rounded.inputs]
        expected = predictions(
            rounded, dict(zip(copies, samples.values(), strict=True))
        )
        difference = max(
            difference, largest_difference(expected, found, tolerance)
        )
        for one, other in zip(predictions(model, samples), found, strict=True):
            one = one.astype("float32")
            known = np.isfinite(one)
            squares += np.sum(np.square(one[known] - other[known]))
            total += np.sum(np.square(one[known]))
        if latency is None:
            latency = _milliseconds(lambda s=samples: runner(**s))
    return difference, float(np.sqrt(squares / max(total, 1e-38))), latency


def _milliseconds(function):
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1_000 * float(np.median(times))


def _interpreter_class():
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            "`export_litert` checks the file with ai-edge-litert: "
            "pip install 'keras_embcomp[deploy]'"
        ) from error
    return Interpreter
