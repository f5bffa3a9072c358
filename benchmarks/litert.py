"""Latency and memory of LiteRT files: every method and format, on one thread.

A file looks up 64, 512 or 2,048 ids in a table of 50,000 x 128 with random
factors, or computes the logits of one hidden state. Each file runs in a process
of its own that imports LiteRT and NumPy only. Latency is the median of 200
calls. Each call has other ids, drawn by Zipf's law. Memory is the growth of the
process's anonymous memory from before the file is loaded to after the calls:
files are mapped, so they count only where they are unpacked.

Each row is saved when it is done. A second run continues where the first
stopped.

    python benchmarks/litert.py --plot docs/litert.png
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import status_bytes

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

VOCABULARY, WIDTH, CALLS = 50_000, 128, 200
COUNTS = (64, 512, 2_048)
MERGED_BYTES = 2_000_000
FORMATS = ("float32", "float16", "int8", "int4")
DENSE = "dense"


def methods():
    """Returns the variants by title; `None` is the dense layer."""
    from methods import variants

    found = variants("litert", VOCABULARY, WIDTH)
    return {DENSE: None, **{variant.title: variant for variant in found}}


def run(path):
    """Prints the latency and the memory of a file, as JSON."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    (entry,) = Interpreter(path).get_input_details()
    generator = np.random.default_rng(0)
    odds = 1 / np.arange(1, VOCABULARY + 1)
    values = generator.choice(
        VOCABULARY, (CALLS, *entry["shape"]), p=odds / odds.sum()
    ).astype(entry["dtype"])
    before, times = status_bytes("RssAnon"), []
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    for value in values:
        interpreter.set_tensor(entry["index"], value)
        start = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - start)
    memory = status_bytes("RssAnon") - before
    print(json.dumps({"seconds": sorted(times)[CALLS // 2], "memory": memory}))


def layer_of(variant, output):
    """Returns the layer of a variant, or the dense one for `None`."""
    import keras

    if variant is None:
        if output:
            return keras.layers.Dense(VOCABULARY)
        return keras.layers.Embedding(VOCABULARY, WIDTH)
    if output:
        layer = variant.softmax(VOCABULARY)
    else:
        layer = variant.embedding(VOCABULARY, WIDTH)
    if variant.note == "merged":
        layer.build((None, WIDTH))
        return layer.merged(MERGED_BYTES)
    return layer


def model_of(variant, count):
    """Returns a model of a lookup, or of logits if there is no count."""
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    if count is None:
        entry = keras.Input((WIDTH,), name="hidden")
    else:
        entry = keras.Input((count,), dtype="int32", name="ids")
    layer = layer_of(variant, output=count is None)
    return keras.Model(entry, layer(entry))


def row_of(method, variant, table_format, count):
    """Returns the measurements of a file, in a fresh process."""
    from keras_embcomp import export_litert

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        written = export_litert(
            model_of(variant, count), path, table_format, batch=1
        )
        output = subprocess.run(
            [sys.executable, __file__, "--run", str(path)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    return {
        "method": method,
        "format": table_format,
        "count": count,
        "bytes": written.bytes,
        "error": written.error,
        **json.loads(output.splitlines()[-1]),
    }


def cells_of(own, base):
    """Returns the cells of a method and format; latencies over the dense."""
    last = own[-1]
    if (last["method"], last["format"]) == (DENSE, "float32"):
        times = [f"{1e3 * seconds:.3f} ms" for seconds in base]
    else:
        times = [
            f"{row['seconds'] / seconds:.1f}"
            for row, seconds in zip(own, base, strict=True)
        ]
    return [
        last["method"],
        last["format"],
        f"{last['bytes'] / 1e3:,.0f}",
        f"{last['error']:.1%}",
        *times,
        f"{last['memory'] / 1e6:.1f} MB",
    ]


def show(rows):
    """Prints a table of lookups, and one of logits."""
    from keras_embcomp.text_tables import markdown

    found = {(r["method"], r["format"], r["count"]): r for r in rows}
    for cases in (COUNTS, (None,)):
        times = [f"{count:,} ids" if count else "logits" for count in cases]
        lines = [["method", "format", "kB", "lost", *times, "memory"]]
        base = [found[DENSE, "float32", case]["seconds"] for case in cases]
        for method in dict.fromkeys(row["method"] for row in rows):
            for table_format in FORMATS:
                own = [found[method, table_format, case] for case in cases]
                lines.append(cells_of(own, base))
        print(f"\n{markdown(lines, left=2)}")


def plot(rows, path):
    """Plots latency against ids, and against bytes of the file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [r for r in rows if r["method"] == method and r["count"]]
        floats = [r for r in own if r["format"] == "float32"]
        left.plot(
            [r["count"] for r in floats],
            [1e3 * r["seconds"] for r in floats],
            marker="o",
            label=method,
        )
        most = [r for r in own if r["count"] == COUNTS[-1]]
        right.plot(
            [r["bytes"] / 1e6 for r in most],
            [1e3 * r["seconds"] for r in most],
            "o",
        )
    left.set(xlabel="ids of a call, float32", ylabel="milliseconds")
    right.set(xlabel=f"MB of the file, each format, {COUNTS[-1]:,} ids")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log")
        axes.grid(alpha=0.3, which="both")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--methods", nargs="+", help="default: all of them")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results/litert.jsonl")
    )
    options = parser.parse_args()
    if options.run:
        run(options.run)
        return
    from methods import chosen

    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    if options.output.exists():
        rows = list(map(json.loads, options.output.read_text().splitlines()))
    done = {(r["method"], r["format"], r["count"]) for r in rows}
    for (method, variant), *case in itertools.product(
        chosen(methods(), options.methods).items(), FORMATS, (*COUNTS, None)
    ):
        if (method, *case) in done:
            continue
        rows.append(row_of(method, variant, *case))
        print(rows[-1], file=sys.stderr, flush=True)
        with options.output.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    show(rows)
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
