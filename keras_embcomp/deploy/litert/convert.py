"""Files of LiteRT: what the converter writes, and what it holds."""

import contextlib
import functools
import hashlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_embcomp._compat import (
    converter_error,
    litert_schema,
    replace_input,
)
from keras_embcomp._types import Array
from keras_embcomp.deploy.tracing import traced_function

_HISTORY = b"CONVERSION_METADATA"
_SAME_NUMBERS = ("ConcatV2", "ExpandDims", "Identity", "Reshape", "Transpose")


def converted(
    models: Mapping[str, keras.Model],
    names: Mapping[str, list[str]],
    sizes: Mapping[str, int | None],
    tables: Any,
    samples: list[dict[str, Array]] | None,
    preprocess: Mapping[str, Any],
) -> bytes:
    """Returns a file with a signature for each model of a dict.

    Args:
        models: Dict of Keras models.
        names: Dict of the names of their inputs.
        sizes: Dict of the sizes that `traced_function` fixes.
        tables: `FileTables`.
        samples: List of dicts of inputs or `None`. If given, the file computes
            in 8 bits where it can.
        preprocess: Dict of what makes the input of a model of strings, by the
            model's name. The file may hold custom operations for it.

    Raises:
        ValueError: if a model needs an operation that is not builtin.
    """
    import tensorflow as tf

    # Without a module that has the weights the converter writes none.
    module = tf.Module()
    module.preprocess = preprocess
    module.functions = {
        name: traced_function(
            model,
            preprocess.get(name),
            **sizes,
            input_names=names[name],
            file_tables=None if samples else tables,
            finish=_rewrite_for_converter,
        )
        for name, model in models.items()
    }
    module.weights = [v.value for m in models.values() for v in m.variables]
    functions = [
        function.get_concrete_function()
        for function in module.functions.values()
    ]
    if len(functions) == 1:
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            functions, module
        )
        return _converted(converter, tables.halves, samples, bool(preprocess))
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=module.functions)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(models)
        )
        return _converted(converter, tables.halves, samples, bool(preprocess))


def _converted(converter, halves, samples, custom):
    import tensorflow as tf

    kinds = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if halves:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    if samples:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(samples)
        kinds = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, *kinds]
    converter.target_spec.supported_ops = kinds
    converter.allow_custom_ops = custom
    try:
        with warnings.catch_warnings(), _silent():
            # Its own, which it finds ranges with.
            warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is dep")
            return converter.convert()
    except converter_error() as error:
        raise ValueError(
            "`model` must need builtin LiteRT operations only. "
            f"Received: a model that needs {_needed(str(error))}. "
            f"The converter says: {_first_words(str(error))}"
        ) from None  # its dump fills screens


@contextlib.contextmanager
def _silent():
    """Keeps what C++ prints of a failure, a screen a line, off the terminal."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _needed(message):
    if "TensorList" in message:
        return (
            "lists of tensors, as a recurrent layer does unless `batch` is "
            "given or it has `unroll=True`, and `TimeDistributed` unless "
            "`sequence` is given"
        )
    names = ", ".join(re.findall(r"(?:Select|Custom) [Oo]ps: (.*)", message))
    if not names:
        return "what it cannot convert"
    return f"{names}; fixed sizes, `batch` and `sequence`, avoid some of them"


def _first_words(message):
    """Returns the first 200 characters of a message, on one line."""
    words = " ".join(message.split())
    return words if len(words) <= 200 else f"{words[:200]} ..."


def _rewrite_for_converter():
    """Rewrites what the converter of TensorFlow 2.21 loses or refuses.

    It has no sum of integers and a vector, which Keras makes of `ids +
    offsets`. It makes a `FULLY_CONNECTED` of a product with a transposed
    matrix that is computed; of others it makes a `BATCH_MATMUL`, and drops a
    ReLU that follows, or a comparison with a number; not after stacks of
    matrices.
    """
    import tensorflow as tf

    for op in tf.compat.v1.get_default_graph().get_operations():
        if op.type == "BiasAdd" and op.inputs[0].dtype.is_integer:
            _replace(op, tf.raw_ops.AddV2(x=op.inputs[0], y=op.inputs[1]))
        if op.type != "MatMul" or _is_weight(op.inputs[1]):
            continue
        right, turned = op.inputs[1], op.get_attr("transpose_b")
        while right.op.type == "Transpose":
            right, turned = right.op.inputs[0], not turned
        if not turned or op.get_attr("transpose_a"):
            _replace(op, _product_of_stacks(op))


def _replace(op, tensor):
    """Gives what reads the output of an operation another tensor."""
    (output,) = op.outputs
    for consumer in output.consumers():
        for index, one in enumerate(consumer.inputs):
            if one is output:
                replace_input(consumer, index, tensor)


def _product_of_stacks(op):
    """Returns a product of two stacks, of one matrix each, or of none.

    The runtime multiplies stacks without matrices, but no matrices without
    rows. The shapes differ for no rows alone; what is computed besides, for
    other numbers of rows, is a copy of the second matrix.
    """
    import tensorflow as tf

    left, right = op.inputs
    turned = op.get_attr("transpose_b")
    if op.get_attr("transpose_a"):
        left = tf.transpose(left)
    if left.shape[0] is not None:
        stacks = tf.expand_dims(left, 0), tf.expand_dims(right, 0)
        return tf.squeeze(tf.matmul(*stacks, transpose_b=turned), 0)
    rows = tf.shape(left)[0]
    some = tf.minimum(rows, 1)
    lefts = tf.reshape(left, (some, rows + 1 - some, tf.shape(left)[1]))
    rights = tf.gather(tf.expand_dims(right, 0), tf.range(some))
    products = tf.matmul(lefts, rights, transpose_b=turned)
    # Not a shape that is packed of scalars: see `LayerExecution.with_lead`.
    columns = op.outputs[0].shape[1:]
    if None in columns:
        columns = tf.shape(products)[2:]
    return tf.reshape(products, tf.concat([tf.shape(left)[:1], columns], 0))


def _is_weight(tensor):
    """Returns whether the converter will know a tensor to be constant."""
    op = tensor.op
    if op.type in _SAME_NUMBERS or (
        op.type == "Cast" and op.inputs[0].dtype.is_floating
    ):
        return all(map(_is_weight, op.inputs))
    return op.type in ("Const", "ReadVariableOp")


def edited(content: bytes, edit: Callable[[Any], None]) -> bytes:
    """Returns a file after a function changed it, with equal buffers once.

    Args:
        content: The file.
        edit: Function of the file as an object of the schema, a `ModelT`.
    """
    import flatbuffers

    schema = litert_schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    edit(model)
    _without_repetition(model)
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.Pack = functools.partial(_packed_aligned, buffer, schema)
    size = sum(len(b.data) for b in model.buffers if b.data is not None)
    builder = flatbuffers.Builder(size + 2**20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _without_repetition(model):
    """Drops names within a graph, and buffers that are empty or repeated."""
    old, model.buffers = model.buffers, model.buffers[:1]
    places = {}

    def place(index):
        data = old[index].data
        if data is None or not len(data):
            return 0
        digest = hashlib.sha256(data).digest()
        if digest not in places:
            places[digest] = len(model.buffers)
            model.buffers.append(old[index])
        return places[digest]

    model.metadata = [
        entry for entry in model.metadata or [] if entry.name != _HISTORY
    ]
    for entry in model.metadata:
        entry.buffer = place(entry.buffer)
    for graph in model.subgraphs:
        named = {*graph.inputs, *graph.outputs}
        for index, tensor in enumerate(graph.tensors):
            tensor.buffer = place(tensor.buffer)
            if index not in named:
                tensor.name = None
            quantization = tensor.quantization
            if quantization is not None and quantization.scale is None:
                tensor.quantization = None


def _packed_aligned(buffer, schema, builder):
    """Writes a buffer where the schema wants it, which its code forgets."""
    data = bytes(bytearray(buffer.data))
    builder.StartVector(1, len(data), 16)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    vector = builder.EndVector()
    schema.BufferStart(builder)
    schema.BufferAddData(builder, vector)
    return schema.BufferEnd(builder)


def operations_of(content: bytes, custom: bool = False) -> tuple[str, ...]:
    """Returns the names of a flatbuffer's operations, or raises.

    Args:
        content: The file.
        custom: Boolean. Whether operations may be custom or Flex.

    Raises:
        ValueError: if one is, or reads a variable: then the weights are not in
            the file.
    """
    schema = litert_schema()
    names = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if not name.startswith("_")
    }
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    operations = {
        code.customCode.decode()
        if custom and code.customCode
        else names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    }
    refused = operations & {"CUSTOM", "VAR_HANDLE", "READ_VARIABLE"}
    if refused:
        raise ValueError(
            "`model` must need builtin LiteRT operations only. "
            f"Received: a model that needs {sorted(refused)}"
        )
    return tuple(sorted(operations))
