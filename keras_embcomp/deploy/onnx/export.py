"""Export to ONNX: one file, each table once, in as few bytes as in Keras."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_embcomp._compat import every_layer
from keras_embcomp.deploy.litert.compare import compared
from keras_embcomp.deploy.litert.prepare import formatted
from keras_embcomp.deploy.samples import given_samples
from keras_embcomp.deploy.verify import (
    check_exportable,
    check_sizes,
    input_shapes,
    output_names,
    sample_inputs,
)
from keras_embcomp.files import checked_path, written_whole

FORMATS = (None, "int8", "int4")
_LOOKUPS = (
    keras.layers.Hashing,
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
)
_MOST_BYTES = 2**31 - 2**20  # of a message of protocol buffers


class OnnxExport(NamedTuple):
    """What `export_onnx` wrote.

    Attributes:
        path: The file.
        bytes: Its size.
        max_difference: The largest difference of an output from Keras, of the
            model whose tables are rounded as in the file.
        operations: Names of the operators that the file holds.
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


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    table_format: str | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    samples: Any = None,
) -> OnnxExport:
    """Writes a model as an `.onnx` file and checks it against Keras.

    The file is run by ONNX Runtime, in several shapes, before it is moved to
    `path`. Its inputs and outputs have the names of the model's. Lookups are
    standard operators; logits of a table of 8 or 4 bits are `MatMulNBits` of
    ONNX Runtime, which rounds hidden states to 8 bits.

    Args:
        model: Keras model with named inputs: a Functional or Sequential
            one, or a subclass of these, such as those of keras-hub.
        path: File to write or to replace, in a folder that exists.
        table_format: `"int8"` or `"int4"`: how the vocabulary tables are
            stored, those of compressed layers and of plain `Embedding`,
            `ReversibleEmbedding` and `Dense` layers. With `None`, as they are.
            A layer that is quantized stays as it is, and so does the model.
        batch: Integer. Fixes the first size of all inputs; `None` leaves it
            free.
        sequence: Integer. Fixes the second size of all inputs where it is
            free.
        samples: Inputs to compare the file with Keras on: a dict of arrays by
            name, the array of the only input, or a list of these. `None` makes
            up ids below the smallest vocabulary of the model, which may not
            suit it.

    Returns:
        An `OnnxExport`.

    Raises:
        ImportError: if onnx, onnxruntime or tf2onnx is missing.
        ValueError: if the model cannot be traced, reads strings, needs an
            operator that ONNX lacks, or takes 2 GiB, or if `path` cannot be
            written.
        RuntimeError: if the converted model computes something else.
    """
    target = checked_path(path)
    if table_format not in FORMATS:
        raise ValueError(
            "`table_format` must be None, int8 or int4. "
            f"Received: table_format={table_format!r}"
        )
    check_exportable(model)
    _check_numbers(model)
    sizes: dict[str, Any] = {"batch": batch, "sequence": sequence}
    check_sizes([model], sizes)
    _check_packages()
    shapes = input_shapes(model, **sizes)
    if samples is None:
        given = list(sample_inputs(model, **sizes))
    else:
        given = given_samples(samples, model, shapes)
    from keras_embcomp.deploy.onnx.convert import converted
    from keras_embcomp.deploy.onnx.graph import operations_of

    with written_whole(target) as temporary:
        (rounded,) = formatted(
            {"model": model}, table_format or "float32"
        ).values()
        _check_bytes(rounded)
        names = [spec.name for spec in model.inputs]
        proto, rounds = converted(rounded, names, sizes)
        content = proto.SerializeToString()
        runner = _runner(content, rounded)
        found = compared(
            runner,
            model,
            rounded,
            ((one, one) for one in given),
            0.05 if rounds else 1e-4,
        )
        temporary.write_bytes(content)
    difference, error, latency = found
    return OnnxExport(
        target,
        len(content),
        difference,
        operations_of(proto),
        error,
        latency,
    )


def _check_packages():
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`export_onnx` converts with tf2onnx and checks the file with "
            f"ONNX Runtime: pip install 'keras_embcomp[onnx]' ({error})"
        ) from error


def _check_numbers(model):
    """Raises if a model reads strings, or looks values up in a hash table."""
    for layer in every_layer(model):
        if isinstance(layer, _LOOKUPS):
            raise ValueError(
                "`model` must take ids: an ONNX file has no hash tables of "
                "Keras. Export the part after the layer, and look words up "
                f"before. Received: layer '{layer.name}' "
                f"({type(layer).__name__})"
            )
    for spec in model.inputs:
        if spec.dtype == "string":
            raise ValueError(
                "`model` must take numbers: Keras' operations on strings are "
                f"not those of ONNX. Received: input '{spec.name}' of strings"
            )


def _check_bytes(model):
    size = sum(
        variable.value.dtype.size * variable.value.shape.num_elements()
        for variable in model.variables
    )
    if size > _MOST_BYTES:
        raise ValueError(
            "`model` must take less than 2 GiB, the most that an ONNX file "
            "holds: compress it, or give `table_format`. "
            f"Received: a model of {size:,} bytes"
        )


def _runner(content, model):
    """Returns a function that runs a file, on one thread, by names."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # it has classes of its own for each failure
        raise ValueError(
            "`model` must need operations only that ONNX Runtime has. "
            f"ONNX Runtime says: {' '.join(str(error).split())[:300]}"
        ) from error
    names = output_names(model)

    def run(**given):
        return dict(zip(names, session.run(names, given), strict=True))

    return run
