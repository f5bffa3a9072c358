"""Latency and memory of LiteRT files: every method and format, on one thread.

A file looks up 64, 512 or 2,048 ids in a table of 50,000 x 128 with random
factors, or gives the logits of one hidden state. Each runs in a process of its
own that has LiteRT and NumPy only. Latency is the median of 200 calls, each
with other ids, as frequent as in a text (rank r as 1 / r); memory is what is
anonymous in the process after them, less what was before the file was loaded
(files are mapped, and count where they are unpacked).

A row is saved as it finishes, and a second run goes on where the first stopped.

    python benchmarks/litert.py --plot docs/litert.png
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

VOCABULARY, WIDTH, CALLS = 50_000, 128, 200
COUNTS = (64, 512, 2_048)
MERGED_BYTES = 2_000_000
FORMATS = ("float32", "float16", "int8", "int4")
METHODS = {
    "dense": {},
    "LowRank": {"rank": 32},
    "TT": {"tt_ranks": 16},
    "TT merged": {"tt_ranks": 16},
    "Hashed": {"num_subvectors": 25_000},
    "GroupReduce": {"group_sizes": (5_000, 45_000), "group_ranks": (64, 16)},
    "Distilled": {"rank": 32},
    "ProductQuantized": {"num_parts": 16, "part_width": 8},
}


def anonymous_bytes():
    """Returns the anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1_024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no RssAnon")


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
    before, times = anonymous_bytes(), []
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    for value in values:
        interpreter.set_tensor(entry["index"], value)
        start = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - start)
    memory = anonymous_bytes() - before
    print(json.dumps({"seconds": sorted(times)[CALLS // 2], "memory": memory}))


def model_of(method, count):
    """Returns a model of a lookup, or of logits if there is no count."""
    import keras

    import keras_embcomp

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    side = "Softmax" if count is None else "Embedding"
    if method == "dense":
        name = {"Softmax": "Dense", "Embedding": "Embedding"}[side]
        cls = getattr(keras.layers, name)
    else:
        cls = getattr(keras_embcomp, method.split()[0] + side)
    if count is None:
        entry = keras.Input((WIDTH,), name="hidden")
        activation = {"activation": None}
        layer = cls(VOCABULARY, **METHODS[method], **activation)
    else:
        entry = keras.Input((count,), dtype="int32", name="ids")
        layer = cls(VOCABULARY, WIDTH, **METHODS[method])
    if method == "TT merged":
        layer.build((None, WIDTH))
        layer = layer.merged(MERGED_BYTES)
    return keras.Model(entry, layer(entry))


def row_of(method, table_format, count):
    """Returns the measurements of a file, in a fresh process."""
    from keras_embcomp import export_litert

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        written = export_litert(
            model_of(method, count), path, table_format, batch=1
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


def show(rows):
    """Prints tables of lookups and of logits: latencies over dense ones."""
    found = {(r["method"], r["format"], r["count"]): r for r in rows}
    for cases in (COUNTS, (None,)):
        titles = [f"{count:,} ids" if count else "logits" for count in cases]
        print(
            f"\n| method | format | kB | lost | {' | '.join(titles)} | memory |"
            "\n|---|---|" + "---:|" * (len(titles) + 3)
        )
        base = [found["dense", "float32", case]["seconds"] for case in cases]
        for method in METHODS:
            for table_format in FORMATS:
                own = [found[method, table_format, case] for case in cases]
                ratios = [
                    f"{row['seconds'] / one:.1f}"
                    for row, one in zip(own, base, strict=True)
                ]
                if (method, table_format) == ("dense", "float32"):
                    ratios = [f"{1e3 * one:.3f} ms" for one in base]
                last = own[-1]
                print(
                    f"| {method} | {table_format} | {last['bytes'] / 1e3:,.0f} "
                    f"| {last['error']:.1%} | {' | '.join(ratios)} "
                    f"| {last['memory'] / 1e6:.1f} MB |"
                )


def plot(rows, path):
    """Draws latency against ids, and against bytes of the file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for method in METHODS:
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
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results/litert.jsonl")
    )
    options = parser.parse_args()
    if options.run:
        run(options.run)
        return
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    if options.output.exists():
        rows = list(map(json.loads, options.output.read_text().splitlines()))
    done = {(r["method"], r["format"], r["count"]) for r in rows}
    for method in options.methods:
        for table_format in FORMATS:
            for count in (*COUNTS, None):
                if (method, table_format, count) in done:
                    continue
                rows.append(row_of(method, table_format, count))
                print(rows[-1], file=sys.stderr, flush=True)
                with options.output.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    show(rows)
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
