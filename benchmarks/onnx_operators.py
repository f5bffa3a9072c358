"""Operators of ONNX Runtime that look up, or multiply with, 8 and 4 bits.

A table of 50,000 x 256 with a scale for each 128 numbers, one thread. A lookup
is a `Gather` of bytes and standard operators, or `GatherBlockQuantized`; logits
are a `MatMul` of floats, or `MatMulNBits` of an accuracy level: 0 for floats,
4 for hidden states of 8 bits. Times are medians of 30 calls in milliseconds;
memory is what the process grew by when it loaded the file. Each file runs in a
process of its own.

    python benchmarks/onnx_operators.py
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from memory import status_bytes

ROWS, WIDTH, BLOCK, CALLS = 50_000, 256, 128, 30
LOOKUPS = ("floats", "bytes 8", "bytes 4", "block 8", "block 4")
PRODUCTS = ("floats", "nbits 8 0", "nbits 8 4", "nbits 4 0", "nbits 4 4")


class Graph:
    """A list of nodes and constants, in the order in which they are added."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value):
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind, *inputs, domain="", **attributes):
        from onnx import helper

        name = f"n{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, inputs, [name], domain=domain, **attributes)
        )
        return name

    def save(self, path, entry):
        import onnx
        from onnx import helper

        self.nodes[-1].output[:] = ["y"]
        result = helper.make_tensor_value_info("y", 1, None)
        graph = helper.make_graph(
            self.nodes, "graph", [entry], [result], self.constants
        )
        opsets = [
            helper.make_opsetid("", 18),
            helper.make_opsetid("com.microsoft", 1),
        ]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        onnx.save(model, path)


def blocks_of(generator, bits):
    shape = ROWS, WIDTH // BLOCK, BLOCK * bits // 8
    return generator.integers(0, 255, shape).astype("uint8")


def unpacked(graph, codes, bits):
    """Adds what makes floats of gathered bytes `(ids, blocks, bytes)`."""
    values = graph.node("Cast", codes, to=1)
    if bits == 8:
        return values
    sixteen = graph.constant(np.float32(16))
    high = graph.node("Floor", graph.node("Div", values, sixteen))
    low = graph.node("Sub", values, graph.node("Mul", high, sixteen))
    return graph.node("Concat", low, high, axis=-1)


def lookup(path, kind, bits=None):
    """Writes a lookup of ids."""
    from onnx import TensorProto, helper

    graph, generator = Graph(), np.random.default_rng(0)
    if kind == "floats":
        table = generator.random((ROWS, WIDTH), "float32")
        graph.node("Gather", graph.constant(table), "ids")
    else:
        table = graph.constant(blocks_of(generator, int(bits)))
        scales = generator.random((ROWS, WIDTH // BLOCK, 1), "float32")
        scales = graph.constant(scales)
        if kind == "block":
            graph.node(
                "GatherBlockQuantized",
                *(table, "ids", scales),
                domain="com.microsoft",
                bits=int(bits),
                block_size=BLOCK,
                quantize_axis=2,
            )
        else:
            codes = graph.node("Gather", table, "ids")
            rows = unpacked(graph, codes, int(bits))
            graph.node("Mul", rows, graph.node("Gather", scales, "ids"))
    graph.save(
        path, helper.make_tensor_value_info("ids", TensorProto.INT32, ["n"])
    )


def product(path, kind, bits=None, level=None):
    """Writes the logits of hidden states."""
    from onnx import TensorProto, helper

    graph, generator = Graph(), np.random.default_rng(0)
    if kind == "floats":
        matrix = generator.random((WIDTH, ROWS), "float32")
        graph.node("MatMul", "x", graph.constant(matrix))
    else:
        table = graph.constant(blocks_of(generator, int(bits)))
        scales = generator.random((ROWS, WIDTH // BLOCK), "float32")
        graph.node(
            "MatMulNBits",
            *("x", table, graph.constant(scales)),
            domain="com.microsoft",
            K=WIDTH,
            N=ROWS,
            bits=int(bits),
            block_size=BLOCK,
            accuracy_level=int(level),
        )
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])
    graph.save(path, entry)


def run(path, counts):
    """Prints milliseconds by the number of rows, and memory, as JSON."""
    import onnxruntime

    generator = np.random.default_rng(0)
    before = status_bytes("RssAnon")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    is_lookup = session.get_inputs()[0].name == "ids"
    found = []
    loaded = status_bytes("RssAnon") - before
    for count in counts:
        times = []
        for _ in range(CALLS):
            if is_lookup:
                given = {"ids": generator.integers(0, ROWS, count, "int32")}
            else:
                given = {"x": generator.random((count, WIDTH), "float32")}
            start = time.perf_counter()
            session.run(None, given)
            times.append(time.perf_counter() - start)
        found.append(1e3 * sorted(times)[CALLS // 2])
    print(json.dumps([found, loaded]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run[0], [int(count) for count in options.run[1:]])
        return
    from keras_embcomp.text_tables import markdown

    for write, kinds, counts in (
        (lookup, LOOKUPS, (1, 64, 4_096)),
        (product, PRODUCTS, (1, 16, 64)),
    ):
        lines = [["operator", "kB", *map(str, counts), "memory"]]
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                write(path, *kind.split())
                command = [sys.executable, __file__, "--run", str(path)]
                output = subprocess.run(
                    [*command, *map(str, counts)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
                size = path.stat().st_size
            times, loaded = json.loads(output)
            lines.append(
                [
                    kind,
                    f"{size / 1e3:,.0f}",
                    *(f"{milliseconds:.3f}" for milliseconds in times),
                    f"{loaded / 1e6:.0f} MB",
                ]
            )
        print(f"\n{write.__name__}\n\n{markdown(lines, left=1)}")


if __name__ == "__main__":
    main()
