"""What each method loses of real tables for a number of bytes.

The tables are MiniLM's, and GloVe's with the counts of `wordfreq`, by which
errors are weighed there. A row is a method at a ratio of the dense table's
bytes to those of the saved `.keras` file: the relative error, and what it
means, how many of the ten nearest neighbours of a row stay, and for GloVe the
accuracy of a linear classifier of IMDB reviews on mean rows (`--data-dir`). The
limit is that of a Gaussian with the same covariance (reverse water-filling),
which no code of so many bits a row beats if rows are Gaussian.

A row is saved as it finishes, and a second run goes on where the first stopped.

    python benchmarks/frontier.py --data-dir ../shared/data
"""

import argparse
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
from tables import glove, minilm

from keras_embcomp.checks import frequency_weights
from keras_embcomp.compression.candidates import fitted
from keras_embcomp.compression.choose import (
    UnreachableError,
    best_plan,
    tries_of,
)
from keras_embcomp.models.find import Table
from keras_embcomp.numerics.product_quantized.budgets import (
    principal_variances,
    water_filled,
)
from keras_embcomp.numerics.table_comparison import (
    compare_rows,
    neighbour_overlap,
)
from keras_embcomp.reporting.costs import file_bytes

RESULTS = Path("benchmarks/results/frontier.jsonl")
RATIOS = {"MiniLM": (4, 8, 14, 16, 24, 32, 64), "GloVe": (4, 8, 16, 32, 64)}
FILE_BYTES = 24_000  # of a .keras file, beside its weights
SLOW = "distilled, hidden layer"  # ten minutes for a row of GloVe
# Names of methods and number formats; "plan" is what `compress` takes.
TRIES = {
    "low rank": [("low_rank", None)],
    "low rank, int8": [("low_rank", "int8")],
    "low rank, int4": [("low_rank", "int4")],
    "GroupReduce": [("group_reduce", None)],
    "GroupReduce, int8": [("group_reduce", "int8")],
    SLOW: [("distilled", None)],
    "tensor train, 2 cores": [("tensor_train", None)],
    "hashed": [("hashed", None)],
    "product codes": [("product_codes", None)],
    "plan": tries_of("auto"),
}
KERAS = {"Keras int8": "int8", "Keras int4": "int4"}  # of one size each
VALUES = {
    "error": ("relative error", ".3f"),
    "overlap": ("share of the ten nearest neighbours kept", ".2f"),
    "accuracy": ("IMDB accuracy in percent of a linear classifier", ".1f"),
}


def limit(table, ratio, weights):
    """Returns the relative error of reverse water-filling."""
    variances = principal_variances(table, weights)
    bits = 32 * table.shape[1] / ratio
    square = np.sum(weights @ np.square(table)) / weights.sum()
    return np.sqrt(water_filled(variances, bits).sum() / square)


def keras_layer(table, mode):
    layer = keras.layers.Embedding(*table.shape, weights=table)
    layer.quantize(mode)
    return layer


def rows_of(layer, size):
    """Returns all rows of a layer."""
    if hasattr(layer, "to_dense"):
        return layer.to_dense()
    return keras.ops.convert_to_numpy(layer(np.arange(size)))


class Reviews:
    """IMDB reviews as words of a table, and a linear classifier of them."""

    def __init__(self, data_dir, words):
        sys.path.append(str(Path(__file__).parent / "papers"))
        from tt_imdb import read_reviews

        ids = {word: number for number, word in enumerate(words)}
        self.parts = []
        for name in ("train", "test"):
            reviews, labels = read_reviews(
                Path(data_dir) / "imdb" / f"imdb_{name}.tsv.gz"
            )
            known = [[ids[w] for w in r if w in ids] for r in reviews]
            starts = np.cumsum([0, *map(len, known[:-1])])
            self.parts.append((np.concatenate(known), starts, labels))

    def accuracy(self, table):
        """Returns the test accuracy on mean rows, of ridge regression."""
        features = []
        for ids, starts, _ in self.parts:
            sums = np.add.reduceat(table[ids], starts, axis=0)
            counts = np.diff([*starts, len(ids)])
            features.append(np.pad(sums / counts[:, None], ((0, 0), (0, 1))))
            features[-1][:, -1] = 1
        (train, test), labels = features, [part[2] for part in self.parts]
        gram = train.T @ train + 1e-3 * np.eye(train.shape[1])
        weights = np.linalg.solve(gram, train.T @ (2 * labels[0] - 1))
        return 100 * np.mean((test @ weights > 0) == labels[1])


def measured(rows, table, weights, reviews):
    """Returns what the rows of a compressed table are worth."""
    found = {
        "error": compare_rows(rows, table).error(weights),
        "overlap": neighbour_overlap(rows, table),
    }
    if reviews is not None:
        found["accuracy"] = reviews.accuracy(rows)
    return found


def row_of(table, counts, ratio, name, reviews):
    """Returns a row of results, or `None` if a method is never so small."""
    weights, size = frequency_weights(counts, len(table)), 4 * table.size
    if name == "limit":
        return {"error": limit(table, ratio, weights)}
    start, plan = time.time(), None
    if name in KERAS:
        layer = keras_layer(table, KERAS[name])
    else:
        held = Table(name, None, table, counts)
        try:
            plan = best_plan(held, size / ratio - FILE_BYTES, TRIES[name])
        except UnreachableError:
            return None
        layer = fitted(
            plan.method, plan.number_format, plan.arguments, table, counts
        )
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer])
    found = {"bytes": file_bytes(model), "seconds": time.time() - start}
    if plan is not None:
        found |= {"plan": f"{plan.method} {plan.number_format or ''}".strip()}
        found |= {"arguments": plan.arguments, "expected": plan.error}
    rows = rows_of(layer, len(table))
    return {**found, **measured(rows, table, weights, reviews)}


def show(rows):
    """Prints a table of each value for each table of embeddings."""
    for name in dict.fromkeys(row["table"] for row in rows):
        for key, (title, form) in VALUES.items():
            chosen = [r for r in rows if r["table"] == name and key in r]
            if not chosen:
                continue
            ratios = RATIOS[name]
            print(f"\n{name}, {title}\n")
            print("| method | " + " | ".join(f"{r}x" for r in ratios) + " |")
            print("|---|" + "---:|" * len(ratios))
            for method in dict.fromkeys(row["method"] for row in chosen):
                own = [row for row in chosen if row["method"] == method]
                if method in (*KERAS, "dense"):
                    ratio = own[0]["dense_bytes"] / own[0]["bytes"]
                    text = f"{own[0][key]:{form}} at {ratio:.1f}x"
                    print(f"| {method} | {text} |" + " |" * (len(ratios) - 1))
                    continue
                cells = {row["ratio"]: f"{row[key]:{form}}" for row in own}
                line = " | ".join(cells.get(ratio, "") for ratio in ratios)
                print(f"| {method} | {line} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="for the accuracy on IMDB")
    options = parser.parse_args()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    if RESULTS.exists():
        rows = [json.loads(x) for x in RESULTS.read_text().splitlines()]
    done = {(row["table"], row["method"], row["ratio"]) for row in rows}
    words, table, counts = glove()
    reviews = options.data_dir and Reviews(options.data_dir, words)
    tables = {
        "MiniLM": (minilm()[1], None, None),
        "GloVe": (table, counts, reviews),
    }
    for name, (table, counts, reviews) in tables.items():
        table = table.astype("float32")
        jobs = [(method, 1) for method in ("dense", *KERAS)]
        jobs += [(m, r) for m in (*TRIES, "limit") for r in RATIOS[name]]
        for method, ratio in jobs:
            if (name, method, ratio) in done or (
                name == "GloVe" and method == SLOW
            ):
                continue
            if method == "dense":
                weights = np.ones(len(table))
                row = measured(table, table, weights, reviews)
                row["bytes"] = 4 * table.size
            else:
                row = row_of(table, counts, ratio, method, reviews)
            if row is None:
                continue
            sizes = {"table": name, "dense_bytes": 4 * table.size}
            row = {**sizes, "method": method, "ratio": ratio, **row}
            rows.append(row)
            with open(RESULTS, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, file=sys.stderr, flush=True)
    show(rows)


if __name__ == "__main__":
    main()
