"""ONNX and LiteRT files of one text model: bytes, milliseconds and memory.

The model predicts the next word of 64: a table of 50,000 x 256 that is tied to
the output, positions, and a block of attention; its weights are random. One row
is a table and its format, with the file of ONNX Runtime beside that of LiteRT.

Each file runs in a process of its own on one thread. Times are medians of 100
calls with other ids, and memory is what the process's anonymous memory grew by,
from before the file is loaded to after the calls. Files are called in turns,
three times, and the least of the three medians counts.

    python benchmarks/onnx_files.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import status_bytes

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

VOCABULARY, WIDTH, LENGTH, CALLS, TURNS = 50_000, 256, 64, 100, 3
DENSE, LOW_RANK, CODES = "dense", "low rank", "product codes"
ROWS = (
    (DENSE, None),
    (DENSE, "int8"),
    (DENSE, "int4"),
    (LOW_RANK, None),
    (LOW_RANK, "int8"),
    (LOW_RANK, "int4"),
    (CODES, None),
    (CODES, "int8"),
)


def table_of(kind):
    """Returns the embedding of a row, which is tied to the output."""
    import keras

    import keras_embcomp

    if kind == LOW_RANK:
        return keras_embcomp.LowRankEmbedding(VOCABULARY, WIDTH, rank=64)
    if kind == CODES:
        return keras_embcomp.ProductQuantizedEmbedding(
            VOCABULARY, WIDTH, num_parts=32, part_width=8
        )
    return keras.layers.ReversibleEmbedding(VOCABULARY, WIDTH)


def model_of(kind):
    """Returns a model from ids to the logits of the next word."""
    import keras
    from keras import layers

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    ids = keras.Input((LENGTH,), dtype="int32", name="ids")
    table = table_of(kind)
    x = table(ids)
    positions = layers.Embedding(LENGTH, WIDTH)
    x = x + positions(keras.ops.arange(LENGTH)[None] + 0 * ids)
    attention = layers.MultiHeadAttention(4, WIDTH // 4)
    x = layers.LayerNormalization()(x + attention(x, x, use_causal_mask=True))
    hidden = layers.Dense(2 * WIDTH, activation="gelu")(x)
    x = layers.LayerNormalization()(x + layers.Dense(WIDTH)(hidden))
    return keras.Model(ids, table(x[:, -1], reverse=True))


def runner_of(path):
    """Returns a function from ids to logits, on one thread."""
    if path.endswith(".onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options)
        return lambda ids: session.run(None, {"ids": ids})[0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    return lambda ids: runner(ids=ids)


def run(path):
    """Prints the time and the memory of a file, as JSON."""
    import numpy as np

    generator = np.random.default_rng(0)
    shape = CALLS, 1, LENGTH
    values = generator.integers(0, VOCABULARY, shape).astype("int32")
    if path.endswith(".onnx"):
        import onnxruntime  # noqa: F401
    else:
        import ai_edge_litert.interpreter  # noqa: F401
    before, times = status_bytes("RssAnon"), []
    runner = runner_of(path)
    for value in values:
        start = time.perf_counter()
        runner(value)
        times.append(time.perf_counter() - start)
    memory = status_bytes("RssAnon") - before
    print(json.dumps({"seconds": sorted(times)[CALLS // 2], "memory": memory}))


def measured(paths):
    """Returns the least time and the memory of each file, called in turns."""
    found = {path: [] for path in paths}
    for _ in range(TURNS):
        for path in paths:
            output = subprocess.run(
                [sys.executable, __file__, "--run", path],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            found[path].append(json.loads(output.splitlines()[-1]))
    return {
        path: (
            min(turn["seconds"] for turn in turns),
            min(turn["memory"] for turn in turns),
        )
        for path, turns in found.items()
    }


def written(folder):
    """Writes all files; returns their paths and errors by row."""
    from keras_embcomp import export_litert, export_onnx

    files, models = {}, {}
    for number, (kind, table_format) in enumerate(ROWS):
        if kind not in models:
            models = {kind: model_of(kind)}
        path = Path(folder) / str(number)
        lite = export_litert(
            models[kind],
            path.with_suffix(".tflite"),
            table_format or "float32",
            batch=1,
        )
        onnx = export_onnx(
            models[kind], path.with_suffix(".onnx"), table_format, batch=1
        )
        files[kind, table_format] = onnx, lite
        print(kind, table_format, onnx, file=sys.stderr, flush=True)
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run)
        return
    from keras_embcomp.text_tables import markdown

    with tempfile.TemporaryDirectory() as folder:
        files = written(folder)
        paths = [str(file.path) for both in files.values() for file in both]
        times = measured(paths)
    first = times[paths[0]][0]
    both = [
        f"{what}, {name}"
        for name in ("ONNX", "LiteRT")
        for what in ("kB", "time", "memory")
    ]
    lines = [["table", "format", "lost", *both]]
    for (kind, table_format), pair in files.items():
        cells = [kind, table_format or "float32", f"{pair[0].error:.1%}"]
        for file in pair:
            seconds, memory = times[str(file.path)]
            same = file is files[DENSE, None][0]
            cells += [
                f"{file.bytes / 1e3:,.0f}",
                f"{1e3 * seconds:.2f} ms" if same else f"{seconds / first:.2f}",
                f"{memory / 1e6:.0f} MB",
            ]
        lines.append(cells)
    print(markdown(lines, left=2))


if __name__ == "__main__":
    main()
