"""What goes with a SavedModel to a server: warm-up requests, and a card."""

import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from keras_embcomp._compat import every_layer
from keras_embcomp._types import Array
from keras_embcomp.deploy.serving.signatures import Example
from keras_embcomp.layers.base import Compressed, weight_bytes

_PYTHON = {"EagerPyFunc", "PyFunc", "PyFuncStateless"}
_PACKAGES = ("keras_embcomp", "keras", "tensorflow", "numpy")


def write_warmup(
    folder: Path, model_name: str, examples: Iterable[Example]
) -> None:
    """Writes requests that a server runs before it answers any.

    They are records of the message `PredictionLog` of TensorFlow Serving, in
    `assets.extra/tf_serving_warmup_requests`.

    Args:
        folder: Path of the SavedModel.
        model_name: String. The server does not check it.
        examples: Those of `examples_of`.
    """
    import tensorflow as tf

    extra = folder / "assets.extra"
    extra.mkdir()
    path = extra / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs, _ in examples:
            writer.write(prediction_log(model_name, signature, inputs))


def prediction_log(
    model_name: str, signature: str, inputs: Mapping[str, Array]
) -> bytes:
    """Returns a `PredictionLog` message that holds a `PredictRequest`.

    It is built by hand, field by field: its Python classes are in a package
    that nothing else here needs.

    Args:
        model_name: String.
        signature: String. Name of the signature.
        inputs: Dict of NumPy arrays, by the names of the signature.
    """
    import tensorflow as tf

    # ModelSpec: 1 name, 3 signature_name. PredictRequest: 1 model_spec, 2
    # inputs. PredictLog: 1 request. PredictionLog: 6 predict_log.
    request = _field(
        1, _field(1, model_name.encode()) + _field(3, signature.encode())
    )
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _field(number, content):
    """Returns a field of a protocol buffer that is text, bytes or a message."""
    prefix = bytearray([number << 3 | 2])
    size = len(content)
    while size > 127:
        prefix.append(size & 127 | 128)
        size >>= 7
    return bytes([*prefix, size]) + content


def write_card(
    folder: Path, model: keras.Model, signatures: Mapping[str, Any]
) -> None:
    """Writes what the SavedModel in a folder is, as JSON.

    Args:
        folder: Path of the SavedModel.
        model: The Keras model.
        signatures: The functions of the SavedModel, loaded.

    Raises:
        ValueError: if one calls a Python function, which no server has.
    """
    card = {
        "model": model.name,
        "signatures": {
            name: {
                "inputs": _tensors(function.structured_input_signature[1]),
                "outputs": _tensors(function.structured_outputs),
            }
            for name, function in signatures.items()
        },
        "compressed_layers": [
            _layer(layer)
            for layer in every_layer(model)
            if isinstance(layer, Compressed)
        ],
        "bytes_of_variables": weight_bytes(model.variables),
        "bytes_of_files": {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        "operations_of_other_packages": _foreign_operations(folder),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }
    path = folder / "assets.extra" / "keras_embcomp.json"
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _tensors(specs):
    return {
        name: {
            "dtype": spec.dtype.name,
            "shape": None if spec.shape.rank is None else list(spec.shape),
        }
        for name, spec in sorted(specs.items())
    }


def _layer(layer):
    return {
        "name": layer.name,
        "class": type(layer).__name__,
        "table": list(layer.dense_shape),
        "format": layer.quantization_mode or layer.variable_dtype,
        "bytes": weight_bytes(layer.weights),
        "dense_bytes": 4 * layer._dense_parameters,
        "compression_ratio": round(layer.compression_ratio, 2),
    }


def _foreign_operations(folder):
    """Returns operations that TensorFlow alone does not have, or raises."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    content = (folder / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    nodes = list(graph.graph_def.node)
    for function in graph.graph_def.library.function:
        nodes += function.node_def
    operations = {node.op for node in nodes}
    if operations & _PYTHON:
        raise ValueError(
            "`model`, `preprocess` and `signatures` must not call Python "
            "functions: a server has no Python. "
            f"Received: functions that need {sorted(operations & _PYTHON)}"
        )
    return sorted(name for name in operations if not hasattr(tf.raw_ops, name))
