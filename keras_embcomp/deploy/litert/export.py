"""Export to LiteRT (TensorFlow Lite): one file, builtin operations only."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_embcomp.deploy.litert.compare import (
    compared,
    inputs_of,
    interpreters,
)
from keras_embcomp.deploy.litert.convert import converted, operations_of
from keras_embcomp.deploy.litert.prepare import check_format, formatted
from keras_embcomp.deploy.samples import given_samples, samples_of
from keras_embcomp.deploy.verify import (
    check_exportable,
    check_preprocess,
    check_sizes,
    input_shapes,
    sample_inputs,
)
from keras_embcomp.files import checked_path, written_whole


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
    model: keras.Model,
    path: str | os.PathLike,
    table_format: str = "float32",
    batch: int | None = None,
    sequence: int | None = None,
    representative_data: Iterable[Any] | None = None,
    signatures: Mapping[str, keras.Model] | None = None,
    preprocess: Any = None,
    samples: Any = None,
) -> LiteRTExport:
    """Writes a model as a `.tflite` file and checks it against Keras.

    Without `preprocess` the file holds builtin operations only, so that it runs
    on every LiteRT runtime. It is run, in several shapes, before it is moved
    to `path`; its signature `serving_default` has the names of the model's
    inputs and outputs.

    Args:
        model: Keras model with named inputs: a Functional or Sequential
            one, or a subclass of these, such as those of keras-hub.
        path: File to write or to replace, in a folder that exists.
        table_format: `"float32"`, `"float16"`, `"int8"`, `"int4"`, `"int2"`
            or `"ternary"`: how the vocabulary tables are stored, those of
            compressed layers and of plain `Embedding`, `ReversibleEmbedding`
            and `Dense` layers; a layer that is quantized stays as it is. With
            `"float16"`, all weights. The last three take a block, as in
            `"int4/64"`: the columns of a row that share a scale. The model
            itself does not change.
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
        preprocess: `tf.Module` that makes the model's only input of a string
            tensor of shape `(batch,)`, by operations of TensorFlow Text such
            as those of `FastBertTokenizer`. The signature then takes strings,
            as `text`, and a runtime must have the operations that
            `tensorflow_text.tflite_registrar` registers.
        samples: Inputs to compare the file with Keras on: a dict of arrays by
            name, the array of the only input, or a list of these. `None` makes
            up ids below the smallest vocabulary of the model, which may not
            suit it. A model in `signatures` takes them if its inputs have
            their names.

    Returns:
        A `LiteRTExport`.

    Raises:
        ValueError: if the model cannot be traced, needs an operation that is
            neither builtin nor, for `preprocess`, of TensorFlow Text, or
            `path` cannot be written.
        RuntimeError: if the converted model computes something else.
    """
    target = checked_path(path)
    models = {"serving_default": model, **_checked_signatures(signatures)}
    check_format(table_format)
    sizes = {"batch": batch, "sequence": sequence}
    for one in models.values():
        check_exportable(one)
    check_sizes(models.values(), sizes)
    calibration = _checked_samples(
        representative_data, table_format, models, sizes
    )
    before = {}
    if preprocess is not None:
        _check_text(model, preprocess, calibration)
        before = {"serving_default": preprocess}
    compared_on = _samples_by_model(samples, models, sizes, calibration, before)
    interpreter_of = interpreters(preprocess is not None)
    with written_whole(target) as temporary:
        rounded = formatted(models, "float32" if calibration else table_format)
        content, tolerance = _content(
            rounded, models, table_format, sizes, calibration, before
        )
        operations = operations_of(content, preprocess is not None)
        interpreter = interpreter_of(content)
        cases = [
            compared(
                interpreter.get_signature_runner(name),
                one,
                rounded[name],
                inputs_of(one, sizes, compared_on.get(name), before.get(name)),
                tolerance,
            )
            for name, one in models.items()
        ]
        temporary.write_bytes(content)
    differences, errors, latencies = zip(*cases, strict=True)
    return LiteRTExport(
        target,
        len(content),
        max(differences),
        operations,
        max(errors),
        latencies[0],
    )


def _content(rounded, models, table_format, sizes, samples, before):
    """Returns the file of models, and what rounding may change in outputs."""
    from keras_embcomp.deploy.litert.tables import FileTables

    halves = table_format == "float16"
    tables = FileTables(halves, ranges=samples is not None)
    names = {
        name: [spec.name for spec in one.inputs] for name, one in models.items()
    }
    content = converted(rounded, names, sizes, tables, samples, before)
    again = tables.with_one_form()
    if again is not None:
        tables = again
        content = converted(rounded, names, sizes, tables, samples, before)
    return tables.filled(content), tables.tolerance


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
    return samples_of(
        "representative_data", data, model, input_shapes(model, **sizes)
    )


def _samples_by_model(samples, models, sizes, calibration, before):
    """Returns the samples to compare each model on, or `None`, by name."""
    found = dict.fromkeys(models, calibration)
    if samples is None and calibration is None:
        return {
            name: list(sample_inputs(model, **sizes))
            for name, model in models.items()
            if name not in before
        }
    if samples is None:
        return found
    first = models["serving_default"]
    given = given_samples(samples, first, input_shapes(first, **sizes))
    for name, model in models.items():
        # In the order of its inputs.
        names = [spec.name for spec in model.inputs]
        if set(names) <= set(given[0]):
            found[name] = [{n: one[n] for n in names} for one in given]
    return found


def _check_text(model, preprocess, samples):
    check_preprocess(model, preprocess)
    if samples is not None:
        raise ValueError(
            "`preprocess` must come without `representative_data`, which is "
            "for ids. Received: both"
        )
