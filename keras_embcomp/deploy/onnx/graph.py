"""Edits of the graph in an ONNX file, whose tables are still inputs."""

import collections
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_embcomp._types import Array
from keras_embcomp.deploy.onnx.tables import BlockedTable

RUNTIME = "com.microsoft"
ZERO = "zero_0/of_ranges"
_STEP = -np.log(2) / 8  # logarithm of the scale that a step stands for


def graphs_of(graph: Any) -> Iterator[Any]:
    """Yields a graph and the graphs of the branches and loops in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g)


def nodes_of(graph: Any) -> Iterator[Any]:
    """Yields the nodes of a graph and of the graphs in it."""
    for inner in graphs_of(graph):
        yield from inner.node


def use_bytes(
    proto: Any, table: BlockedTable, codes: str, matrix: str, steps: str | None
) -> None:
    """Makes each product with a matrix one with the bytes of a table.

    Args:
        proto: ONNX model.
        table: `BlockedTable`.
        codes: Name of its bytes.
        matrix: Name of the input of floats that stands for it.
        steps: Name of the steps of its scales, or `None` without steps.

    Raises:
        RuntimeError: if something else than a product reads the matrix.
    """
    from onnx import helper

    graph = proto.graph
    rows, blocks, _ = table.shape
    scales = f"scales/{codes}"
    for node in nodes_of(graph):
        if matrix not in node.input:
            continue
        if node.op_type != "MatMul" or node.input[1] != matrix:
            raise _lost(f"used it for {node.op_type}")
        node.op_type, node.domain = "MatMulNBits", RUNTIME
        del node.input[1:]
        node.input.extend([codes, scales])
        attributes = {
            "K": table.factor.columns,
            "N": rows,
            "bits": table.bits,
            "block_size": table.block,
            "accuracy_level": 4,  # hidden states of 8 bits
        }
        node.attribute.extend(
            helper.make_attribute(name, value)
            for name, value in attributes.items()
        )
    nodes, constants = _scales(table, steps, scales, (rows, blocks))
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _scales(table, steps, name, shape):
    """Returns nodes that compute the scales of a table, and their constants.

    A runtime computes them once, when it loads the file.
    """
    from onnx import helper, numpy_helper

    constants = []

    def constant(part, value):
        constants.append(numpy_helper.from_array(value, f"{name}/{part}"))
        return f"{name}/{part}"

    def node(kind, inputs, part, **attributes):
        output = f"{name}/{part}" if part else name
        return helper.make_node(kind, inputs, [output], **attributes)

    if steps is None:
        size = constant("shape", np.array(shape, "int64"))
        one = constant("one", np.float32(1))
        return [node("Expand", [one, size], "")], constants
    nodes = [
        node("Cast", [steps], "steps", to=1),
        node("Abs", [f"{name}/steps"], "size"),
        node(
            "Mul", [f"{name}/size", constant("step", np.float32(_STEP))], "log"
        ),
        node("Exp", [f"{name}/log"], "exp"),
        node("Sign", [f"{name}/steps"], "sign"),
        node("Mul", [f"{name}/exp", f"{name}/sign"], "of_steps"),
        node(
            "Gather",
            [f"{name}/of_steps", constant("places", table.repeats)],
            "",
            axis=1,
        ),
    ]
    return nodes, constants


def take_tables_off(
    proto: Any, input_names: list[str], values: Mapping[str, Array]
) -> None:
    """Takes off all inputs that are not the model's, and hides tables.

    Args:
        proto: ONNX model.
        input_names: Names of the inputs that stay.
        values: Arrays by name, to be initializers in the place of the others.

    Raises:
        RuntimeError: if an input is neither.
    """
    graph = proto.graph
    inputs = [entry for entry in graph.input if entry.name in input_names]
    readers = _readers(graph)
    for entry in graph.input:
        known = entry.name in (ZERO, *input_names, *values)
        if readers[entry.name] and not known:
            raise _lost(f"reads {entry.name}")
    del graph.input[:]
    graph.input.extend(inputs)
    constants = {tensor.name for tensor in graph.initializer} | set(values)
    hidden = [
        name
        for name in values
        if not all(
            _only_reads(x, name, readers, constants) for x in readers[name]
        )
    ]
    if hidden or readers[ZERO]:
        _hide(graph, {name: values[name].shape for name in hidden}, readers)


def _readers(graph):
    """Returns the nodes that read each number, by its name."""
    readers = collections.defaultdict(list)
    for node in nodes_of(graph):
        for name in node.input:
            readers[name].append(node)
    return readers


def _only_reads(node, name, readers, constants):
    """Returns whether no runtime computes anything of a node beforehand.

    It would do so of constants alone, and hold the floats. Transposed it may
    be, if nothing else needs it: it takes no more memory then.
    """
    first, *others = node.input
    if node.op_type == "Gather":
        return first == name and others[0] not in constants
    if node.op_type == "MatMul":
        return first not in constants and others[0] == name
    if node.op_type == "Transpose":
        (turned,) = node.output
        known = constants | {turned}
        return len(readers[name]) == 1 and all(
            _only_reads(x, turned, readers, known) for x in readers[turned]
        )
    return node.domain == RUNTIME or node.output[0].startswith("scales/")


def _hide(graph, shapes, readers):
    """Keeps tables from what runtimes compute before they get inputs.

    A table is reshaped to the shape that it has, plus 0: a reshape copies
    nothing. The 0 is computed from an input: no sign is above 2.
    """
    from onnx import helper, numpy_helper

    def constant(part, value):
        graph.initializer.append(numpy_helper.from_array(value, part))
        return part

    all_of_it = constant("zero/all", np.array([-1]))
    limits = [constant(f"zero/{n}", np.array([n])) for n in (0, 1)]
    two = constant("zero/two", np.float32(2))
    steps = [
        ("Reshape", [graph.input[0].name, all_of_it], "flat", {}),
        ("Slice", ["zero/flat", *limits], "first", {}),
        ("Cast", ["zero/first"], "float", {"to": 1}),
        ("Sign", ["zero/float"], "sign", {}),
        ("ReduceSum", ["zero/sign"], "sum", {"keepdims": 0}),
        ("Greater", ["zero/sum", two], "above", {}),
        ("Cast", ["zero/above"], "long", {"to": 7}),
        ("Cast", ["zero/above"], "int", {"to": 6}),
    ]
    nodes = [
        helper.make_node(kind, inputs, [f"zero/{output}"], **attributes)
        for kind, inputs, output, attributes in steps
    ]
    for name, shape in shapes.items():
        size = constant(f"zero/{name}/is", np.array(shape, "int64"))
        shape, kept = f"zero/{name}/shape", f"zero/{name}"
        nodes.append(helper.make_node("Add", [size, "zero/long"], [shape]))
        nodes.append(helper.make_node("Reshape", [name, shape], [kept]))
        _rename(readers[name], name, kept)
    _rename(readers[ZERO], ZERO, "zero/int")
    graph.node.extend(nodes)


def _rename(nodes, old, new):
    for node in nodes:
        node.input[:] = [new if name == old else name for name in node.input]


def sort(graph: Any) -> None:
    """Orders nodes and constants as the outputs need them, and drops others.

    The converter's order is another one in each export.
    """
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: dict[int, Any] = {}
    used: dict[str, Any] = {}
    waiting = [(entry.name, False) for entry in reversed(graph.output)]
    while waiting:
        name, is_ready = waiting.pop()
        if name in constants:
            used[name] = constants[name]
        node = makers.get(name)
        if node is None or id(node) in nodes:
            continue
        if is_ready:
            nodes[id(node)] = node
            continue
        waiting.append((name, True))
        waiting += [(needed, False) for needed in reversed(_needed(node))]
    copies = copy.deepcopy(list(nodes.values()))
    tensors = copy.deepcopy(list(used.values()))
    del graph.node[:], graph.initializer[:]
    graph.node.extend(copies)
    graph.initializer.extend(tensors)


def _needed(node):
    """Returns the names that a node reads, and the graphs in it."""
    names = list(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in graphs_of(attribute.g):
                names += [name for x in inner.node for name in x.input]
                names += [entry.name for entry in inner.output]
    return names


def shorten_names(proto: Any, values: Mapping[str, Array]) -> None:
    """Numbers what is between inputs and outputs, and drops other names.

    The converter gives each number the path of the code that made it.

    Args:
        proto: ONNX model.
        values: Arrays by name; their names stay.
    """
    graph = proto.graph
    kept = {entry.name for entry in (*graph.input, *graph.output)}
    kept |= {"", *values}  # "" is an input that is left out
    names: dict[str, str] = {}

    def short(name):
        return name if name in kept else names.setdefault(name, f"{len(names)}")

    sizes: dict[str, str] = {}
    for inner in graphs_of(graph):
        del inner.value_info[:]
        for entry in (*inner.input, *inner.output):
            for size in entry.type.tensor_type.shape.dim:
                if size.HasField("dim_param"):
                    free = f"size_{len(sizes)}"
                    size.dim_param = sizes.setdefault(size.dim_param, free)
        for entry in (*inner.initializer, *inner.input, *inner.output):
            entry.name = short(entry.name)
        for node in inner.node:
            node.name = node.doc_string = ""
            node.input[:] = map(short, node.input)
            node.output[:] = map(short, node.output)


def operations_of(proto: Any) -> tuple[str, ...]:
    """Returns the names of a file's operators, in order."""
    return tuple(sorted({node.op_type for node in nodes_of(proto.graph)}))


def _lost(what):
    return RuntimeError(
        f"The converter was given a table and {what}. This is a fault of the "
        "export: please report the model's layers."
    )
