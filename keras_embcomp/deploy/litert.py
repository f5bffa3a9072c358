"""Export to LiteRT (TensorFlow Lite): one file, builtin operations only."""

from pathlib import Path
from typing import NamedTuple

from keras_embcomp.deploy.tracing import traced_module
from keras_embcomp.deploy.verify import (
    check_exportable,
    largest_difference,
    output_names,
    predictions,
    sample_inputs,
    written_whole,
)


class LiteRTExport(NamedTuple):
    """What `export_litert` wrote."""

    path: Path
    bytes: int
    max_difference: float
    operations: tuple[str, ...]


def export_litert(model, path) -> LiteRTExport:
    """Writes a model as a `.tflite` file and checks it against Keras.

    The file holds builtin operations only, so that it runs on every LiteRT
    runtime. It is run, in several shapes, before it is moved to `path`; its
    signature `serving_default` has the names of the model's inputs and
    outputs.

    Args:
        model: Functional or Sequential Keras model.
        path: File to write, in a folder that exists.

    Returns:
        A `LiteRTExport`: the path, the size in bytes, the largest difference
        between its outputs and the model's, and the operations it holds.

    Raises:
        ValueError: if the model cannot be traced, needs an operation that is
            not builtin, or `path` cannot be written.
        RuntimeError: if the converted model computes something else.
    """
    check_exportable(model)
    path = Path(path).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            "`path` must be a file in a folder that exists. "
            f"Received: path={path}"
        )
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    interpreter_class = _interpreter_class()
    module = traced_module(model)
    # Without the module the converter writes a file without weights.
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.serve.get_concrete_function()], module
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        content = converter.convert()
    except ConverterError as error:
        raise ValueError(
            "`model` must need builtin LiteRT operations only. (A recurrent "
            "layer needs a fixed batch: `keras.Input(batch_shape=(1, length))`"
            f", or `unroll=True`.) The converter says: {error}"
        ) from error
    operations = builtin_operations(content)
    runner = interpreter_class(model_content=content).get_signature_runner(
        "serving_default"
    )
    difference = 0.0
    for samples in sample_inputs(model):
        found = runner(**samples)
        found = [found[name] for name in output_names(model)]
        difference = max(
            difference, largest_difference(predictions(model, samples), found)
        )
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
    return LiteRTExport(path, len(content), difference, operations)


def builtin_operations(content: bytes) -> tuple[str, ...]:
    """Returns the names of a flatbuffer's operations, or raises.

    Raises:
        ValueError: if one is custom or Flex, or reads a variable: then the
            weights are not in the file.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    names = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if not name.startswith("_")
    }
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    operations = {
        names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    }
    refused = operations & {"CUSTOM", "VAR_HANDLE", "READ_VARIABLE"}
    if refused:
        raise ValueError(
            "`model` must need builtin LiteRT operations only. "
            f"Received: a model that needs {sorted(refused)}"
        )
    return tuple(sorted(operations))


def _interpreter_class():
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            "`export_litert` checks the file with ai-edge-litert: "
            "pip install 'keras_embcomp[deploy]'"
        ) from error
    return Interpreter
