"""Served models: bytes, time to load, latency and memory, without Python.

Each row is a classifier of 64 ids with a table of 50,000 x 256, exported with
`export_serving` and run by `examples/serving/predict.c` in its own process.
Latency is the minimum over many requests, relative to the dense float32 table,
which runs just before each model; its row gives milliseconds. Weights are
random, because nothing here depends on their values. Each row is written to a
file when it is done.

    python benchmarks/serving.py --plot docs/serving.png
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).parents[1] / "examples" / "serving"))

import keras
import numpy as np
from c_client import compile_client, run_client
from methods import chosen, variants

from keras_embcomp import export_serving

VOCABULARY, WIDTH, LENGTH = 50_000, 256, 64
BATCHES = (1, 8, 32)
FORMATS = ("float32", "int8", "int4")
DENSE = "Embedding"


def methods():
    """Returns the variants by class; `None` is the dense layer."""
    found = variants("serving", VOCABULARY, WIDTH)
    return {DENSE: None, **{v.embedding_name: v for v in found}}


def classifier(variant, form):
    keras.utils.clear_session()
    if variant is None:
        words = keras.layers.Embedding(VOCABULARY, WIDTH, name="words")
    else:
        words = variant.embedding(VOCABULARY, WIDTH, name="words")
    ids = keras.Input((LENGTH,), dtype="int32", name="ids")
    x = keras.layers.GlobalAveragePooling1D()(words(ids))
    x = keras.layers.Dense(2, activation="softmax", name="classes")(x)
    model = keras.Model(ids, x)
    if form != "float32":
        model.quantize(form, filters="words")
    return model


def bytes_of(folder):
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def measured(program, folder, batch):
    """Returns the program's measurements of one batch, in a new process."""
    generator = np.random.default_rng(0)
    ids = generator.integers(0, VOCABULARY, (batch, LENGTH)).astype("int32")
    return run_client(program, folder, ids, seconds=0.5)[1]


def row_of(program, method, form, folder, dense, turns):
    """Returns the measurements of a model, relative to the dense one."""
    weights = json.loads(
        (folder / "assets.extra" / "keras_embcomp.json").read_text()
    )["bytes_of_variables"]
    row = {
        "method": method,
        "format": form,
        "bytes": bytes_of(folder),
        "beside_weights": bytes_of(folder) - weights,
        "load_ms": [],
        "first_ms": [],
        "anonymous_bytes": [],
    }
    for batch in BATCHES:
        times, dense_times = [], []
        for _ in range(turns):
            base = measured(program, dense, batch)
            found = measured(program, folder, batch)
            times.append(found["least_ms"])
            dense_times.append(base["least_ms"])
            if batch == 1:
                for name in ("load_ms", "first_ms", "anonymous_bytes"):
                    row[name].append(found[name])
        row[f"ms_{batch}"] = min(times)
        row[f"ratio_{batch}"] = min(times) / min(dense_times)
    for name in ("load_ms", "first_ms", "anonymous_bytes"):
        row[name] = min(row[name])
    return row


def measured_rows(options, folder):
    """Yields the measurements of every method and format."""
    program = compile_client(folder)
    dense = export_serving(classifier(None, "float32"), folder / "dense")
    for name, variant in chosen(methods(), options.methods).items():
        for form in FORMATS:
            served = export_serving(
                classifier(variant, form), folder / f"{name}-{form}"
            )
            yield row_of(program, name, form, served, dense, options.turns)


def line(row):
    """Returns a row of the printed table."""
    first = (row["method"], row["format"]) == (DENSE, "float32")
    times = [
        f"{row[f'ms_{batch}']:.3f} ms"
        if first
        else f"{row[f'ratio_{batch}']:.1f}"
        for batch in BATCHES
    ]
    cells = [
        row["method"],
        row["format"],
        f"{row['bytes']:,}",
        f"{row['beside_weights']:,}",
        f"{row['load_ms']:.0f} ms",
        f"{row['first_ms']:.0f} ms",
        f"{row['anonymous_bytes'] / 1e6:.0f} MB",
        *times,
    ]
    return f"| {' | '.join(cells)} |"


def plot(rows, path):
    """Plots the bytes, the memory and the latency of every row."""
    from matplotlib import pyplot as plt

    panels = {
        "SavedModel (MB)": lambda row: row["bytes"] / 1e6,
        "memory of the process (MB)": lambda row: row["anonymous_bytes"] / 1e6,
        f"latency, batch 1 x {LENGTH} (ms)": lambda row: row["ms_1"],
        f"latency, batch 32 x {LENGTH} (ms)": lambda row: row["ms_32"],
    }
    names = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(14, 4), sharey=True, layout="constrained"
    )
    for axis, (title, value) in zip(axes, panels.items(), strict=True):
        for place, form in enumerate(FORMATS):
            shown = {r["method"]: value(r) for r in rows if r["format"] == form}
            positions = [names.index(name) for name in shown]
            axis.plot(
                list(shown.values()),
                [position + 0.2 * (place - 1) for position in positions],
                "o",
                label=form,
            )
        axis.set(title=title, xscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[1].set(xscale="linear", xlim=(0, None))
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[-1].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--methods", nargs="+", help="default: all of them")
    parser.add_argument("--plot", type=Path)
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results/serving.jsonl")
    )
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("")
    batches = " | ".join(f"batch {batch}" for batch in BATCHES)
    print(
        "| method | format | SavedModel | beside the weights | load | "
        "first request | memory | "
        f"{batches} |"
    )
    print("|---|---" + "|---:" * (5 + len(BATCHES)) + "|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in measured_rows(options, Path(folder)):
            rows.append(row)
            print(line(row), flush=True)
            with options.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
