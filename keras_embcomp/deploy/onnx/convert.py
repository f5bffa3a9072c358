"""ONNX files: what tf2onnx writes, with tables in the place of inputs.

The converter, and the optimizer of TensorFlow before it, compute what depends
on constants alone. So the model is traced with its tables as inputs, which
become initializers of the finished file: each has the bytes that it has in
Keras, and is there once, however many layers use it.
"""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_embcomp._compat import every_layer, numpy_for_tf2onnx, own_variables
from keras_embcomp.deploy.onnx.graph import (
    RUNTIME,
    ZERO,
    graphs_of,
    nodes_of,
    shorten_names,
    sort,
    take_tables_off,
    use_bytes,
)
from keras_embcomp.deploy.onnx.tables import OnnxExecution
from keras_embcomp.deploy.verify import call, input_shapes, output_names
from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.execution import running

OPSET = 18
_HELD_APART = (Compressed, keras.layers.Embedding, keras.layers.Dense)


def converted(
    model: keras.Model,
    input_names: list[str],
    sizes: Mapping[str, int | None],
) -> tuple[Any, bool]:
    """Returns an ONNX model, and whether it multiplies in 8 bits.

    Args:
        model: Keras model.
        input_names: Names of its inputs in the file.
        sizes: `batch` and `sequence`, as for `input_shapes`.

    Raises:
        ValueError: if the model needs an operation that ONNX lacks.
    """
    from onnx import numpy_helper

    execution = OnnxExecution()
    weights = _weights(model)
    entries = _entries(model, input_names, sizes)
    _traced(model, entries, execution, weights)
    tables = list(execution.products.values())
    inside = {id(table.factor.values) for table in tables}
    weights = {n: v for n, v in weights.items() if id(v) not in inside}
    function = _traced(model, entries, execution, weights)
    proto = _proto(function)
    values = {n: keras.ops.convert_to_numpy(v) for n, v in weights.items()}
    values.update(_captured(function))
    names = [_table_names(index, t) for index, t in enumerate(tables)]
    steps = {id(v): name for name, v in weights.items()}
    for (codes, matrix), table in zip(names, tables, strict=True):
        values[codes] = table.bytes()
        use_bytes(
            proto, table, codes, matrix, steps.get(id(table.factor.steps))
        )
    take_tables_off(proto, input_names, values)
    for graph in graphs_of(proto.graph):
        sort(graph)
    shorten_names(proto, values)
    read = {name for node in nodes_of(proto.graph) for name in node.input}
    proto.graph.initializer.extend(
        numpy_helper.from_array(value, name)
        for name, value in values.items()
        if name in read
    )
    proto.graph.name, proto.graph.doc_string = model.name, ""
    if tables:
        proto.opset_import.add(domain=RUNTIME, version=1)
    return proto, bool(tables)


def _weights(model):
    """Returns the variables that are inputs of the trace, by name."""
    found = {}
    for layer in every_layer(model):
        if not isinstance(layer, _HELD_APART):
            continue
        for variable in own_variables(layer):
            if len(variable.shape) > 1 and id(variable) not in found:
                found[id(variable)] = variable
    return {
        f"weight_{index}/{_plain(variable.path)}": variable
        for index, variable in enumerate(found.values())
    }


def _table_names(index, table):
    path = _plain(table.factor.values.path)
    return f"table_{index}/{path}", f"matrix_{index}/{path}"


def _plain(name):
    return re.sub(r"[^A-Za-z0-9_./-]", "_", name)


def _entries(model, input_names, sizes):
    import tensorflow as tf

    shapes = input_shapes(model, **sizes)
    return [
        tf.TensorSpec(shapes[spec.name], spec.dtype, name=name)
        for spec, name in zip(model.inputs, input_names, strict=True)
    ]


def _traced(model, inputs, execution, weights):
    """Returns a function of a model's inputs, its weights, and its tables."""
    import tensorflow as tf

    held = [
        tf.TensorSpec(variable.shape, variable.dtype, name=name)
        for name, variable in weights.items()
    ]
    pairs = []
    for index, table in enumerate(execution.products.values()):
        codes, matrix = _table_names(index, table)
        rows, columns = table.factor.shape
        pairs.append(tf.TensorSpec(table.shape, "uint8", name=codes))
        pairs.append(tf.TensorSpec((columns, rows), "float32", name=matrix))
    names = output_names(model)

    def serve(*given):
        first, (zero, *rest) = given[: len(inputs)], given[len(inputs) :]
        values, tables = rest[: len(held)], rest[len(held) :]
        execution.give(zero, zip(tables[::2], tables[1::2], strict=True))
        state = list(zip(weights.values(), values, strict=True))
        with keras.StatelessScope(state), running(execution):
            return dict(zip(names, call(model, list(first)), strict=True))

    zero = tf.TensorSpec((), "int32", name=ZERO)
    function = tf.function(
        serve, input_signature=[*inputs, zero, *held, *pairs], autograph=False
    )
    function.get_concrete_function()
    return function


def _captured(function):
    """Returns the tensors that layers hold besides their weights, by name.

    The converter makes an input of each.
    """
    graph = function.get_concrete_function().graph
    return {
        inside.name: tensor.numpy()
        for tensor, inside in graph.captures
        if hasattr(tensor, "numpy") and tensor.dtype.name != "resource"
    }


def _proto(function):
    """Returns what the converter makes of a function."""
    import tf2onnx

    numpy_for_tf2onnx()
    with _messages() as messages:
        try:
            proto, _ = tf2onnx.convert.from_function(
                function,
                input_signature=function.input_signature,
                opset=OPSET,
                custom_op_handlers={"Erfc": (_erfc, [])},
            )
        except Exception as error:  # of any class: it checks little
            raise _unknown("what it cannot convert", [str(error)]) from error
    lacking = sorted(
        {node.op_type for node in nodes_of(proto.graph) if _is_foreign(node)}
    )
    if lacking or messages:
        raise _unknown(", ".join(lacking) or "others", messages)
    return proto


def _unknown(needed, messages):
    words = " ".join(" ".join(messages).split())
    return ValueError(
        "`model` must need operations only that ONNX has. Received: a model "
        f"that needs {needed}. The converter says: {words[:200]}"
    )


def _erfc(ctx, node, name, args):
    """Converts an operation that the converter lacks, that of an exact GELU."""
    dtype, shape = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0])
    one = ctx.make_const(f"{name}/one", np.float32(1)).output[0]
    erf = ctx.make_node("Erf", node.input).output[0]
    ctx.remove_node(name)
    ctx.make_node(
        "Sub",
        [one, erf],
        outputs=node.output,
        name=name,
        shapes=[shape],
        dtypes=[dtype],
    )


@contextlib.contextmanager
def _messages() -> Iterator[list[str]]:
    """Collects the errors that the converter logs and goes on after."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tf2onnx")
    level, spreads = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = spreads


def _is_foreign(node):
    import onnx

    if node.domain not in ("", "ai.onnx"):
        return True
    return not onnx.defs.has(node.op_type)
