"""Served models: bytes, time to load, latency and memory, without Python.

Each row is a classifier of 64 ids with a table of 50,000 x 256, exported with
`export_serving` and run by `examples/serving/predict.c` in its own process.
Latencies are the least of many requests, over those of the dense table in
floats, which is run just before each; its row has them in milliseconds.
Weights are random: nothing here depends on their values. Rows are added to a
file as they finish.

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

import keras_embcomp
from keras_embcomp import export_serving

VOCABULARY, WIDTH, LENGTH = 50_000, 256, 64
BATCHES = (1, 8, 32)
FORMATS = ("float32", "int8", "int4")
METHODS = {
    "Embedding": {},
    "LowRankEmbedding": {"rank": 32},
    "TTEmbedding": {"tt_ranks": 16},
    "HashedEmbedding": {"num_subvectors": 50_000},
    "GroupReduceEmbedding": {
        "group_sizes": (2_000, 8_000, 40_000),
        "group_ranks": (256, 64, 16),
    },
    "DistilledEmbedding": {"rank": 32, "hidden_dim": 64},
    "ProductQuantizedEmbedding": {"num_parts": 32, "part_width": 8},
}


def classifier(method, form):
    keras.utils.clear_session()
    cls = getattr(keras_embcomp, method, None) or keras.layers.Embedding
    words = cls(VOCABULARY, WIDTH, name="words", **METHODS[method])
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
    """Returns what the program tells of one batch, in a fresh process."""
    generator = np.random.default_rng(0)
    ids = generator.integers(0, VOCABULARY, (batch, LENGTH)).astype("int32")
    return run_client(program, folder, ids, seconds=0.5)[1]


def row_of(program, method, form, folder, dense, turns):
    """Returns the measurements of a served model, beside the dense one's."""
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


def line(row):
    """Returns a row of the printed table."""
    first = (row["method"], row["format"]) == ("Embedding", "float32")
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
    """Draws bytes, memory and latency of every row."""
    from matplotlib import pyplot as plt

    panels = {
        "SavedModel (MB)": lambda row: row["bytes"] / 1e6,
        "memory of the process (MB)": lambda row: row["anonymous_bytes"] / 1e6,
        f"latency, batch 1 x {LENGTH} (ms)": lambda row: row["ms_1"],
        f"latency, batch 32 x {LENGTH} (ms)": lambda row: row["ms_32"],
    }
    figure, axes = plt.subplots(
        1, len(panels), figsize=(14, 4), sharey=True, layout="constrained"
    )
    for axis, (title, value) in zip(axes, panels.items(), strict=True):
        for place, form in enumerate(FORMATS):
            chosen = {
                r["method"]: value(r) for r in rows if r["format"] == form
            }
            positions = [list(METHODS).index(name) for name in chosen]
            axis.plot(
                list(chosen.values()),
                [position + 0.2 * (place - 1) for position in positions],
                "o",
                label=form,
            )
        axis.set(title=title, xscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[1].set(xscale="linear", xlim=(0, None))
    axes[0].set_yticks(range(len(METHODS)), list(METHODS))
    axes[0].invert_yaxis()
    axes[-1].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
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
        folder = Path(folder)
        program = compile_client(folder)
        dense = export_serving(
            classifier("Embedding", "float32"), folder / "dense"
        )
        for method in options.methods:
            for form in FORMATS:
                served = export_serving(
                    classifier(method, form), folder / f"{method}-{form}"
                )
                row = row_of(
                    program, method, form, served, dense, options.turns
                )
                rows.append(row)
                print(line(row), flush=True)
                with options.output.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
