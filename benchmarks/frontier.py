"""What each method loses of real tables for a number of bytes.

The tables are MiniLM's, and GloVe's. GloVe's errors are weighted by the counts
of `wordfreq`. A row is a method at a ratio: the bytes of the dense table over
the bytes of the saved `.keras` file. It has the relative error, how many of the
ten nearest neighbours of a table row stay, and for GloVe the accuracy of a
linear classifier of IMDB reviews on mean rows (`--data-dir`).

Three limits are beside them, of codes that take as many bits a row and nothing
else: that of Gaussian rows with the table's covariance (reverse water-filling);
that of Gaussian rows of unlike scales, which is lower, as real rows have unlike
norms; and an ideal entropy-coded scalar quantiser of the principal directions,
which cannot be decoded row by row.

Each row is saved when it is done. A second run continues where the first
stopped.

    python benchmarks/frontier.py --data-dir ../shared/data

`--methods` names rows, such as "trellis codes, high".
"""

import argparse
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
from methods import TITLES, in_order, title
from tables import glove, minilm

from keras_embcomp.checks import frequency_weights
from keras_embcomp.compression.candidates import fitted
from keras_embcomp.compression.choose import (
    UnreachableError,
    best_plan,
    tries_of,
)
from keras_embcomp.layers.methods import method_named
from keras_embcomp.models.find import Table
from keras_embcomp.numerics.limits import gaussian_limit, scaled_limit
from keras_embcomp.numerics.table_comparison import (
    compare_rows,
    neighbour_overlap,
)
from keras_embcomp.numerics.trellis.allocation import rotation_of
from keras_embcomp.reporting.costs import file_bytes
from keras_embcomp.text_tables import markdown

RESULTS = Path("benchmarks/results/frontier.jsonl")
RATIOS = {
    "MiniLM": (4, 8, 14, 16, 24, 32, 64),
    "GloVe": (4, 8, 16, 32, 64),
    "GloVe, words alike": (4, 8, 16, 32),
}
FILE_BYTES = 24_000  # in a .keras file, beside its weights
HIDDEN = "distilled, hidden layer"
LEFT_OUT = {
    (name, HIDDEN) for name in ("GloVe", "GloVe, words alike")
}  # ten minutes for each row
NAMES = TITLES | {"distilled": HIDDEN, "tensor_train": "tensor train, 2 cores"}
KERAS = {"Keras int8": "int8", "Keras int4": "int4"}  # one size each
VALUES = {
    "error": ("relative error", ".3f"),
    "overlap": ("share of the ten nearest neighbours kept", ".2f"),
    "accuracy": ("IMDB accuracy in percent of a linear classifier", ".1f"),
}


def tries():
    """Returns the methods and number formats of each row, by its name."""
    found = {}
    for method in in_order():
        name = NAMES.get(method.name, title(method))
        for effort in method.efforts or ("",):
            own = f"{name}, {effort}" if effort else name
            found[own] = [(method, None, effort)]
        for form in filter(None, method.formats_of_auto):
            found[f"{name}, {form}"] = [(method, form, "low")]
    return {**found, "plan": tries_of("auto")}  # what `compress` takes


TRIES = tries()


def entropy_coded(table, weights, bits):
    """Returns the relative error of an ideal entropy-coded scalar quantiser.

    Steps are alike in all directions, of which each has its own code.
    """
    rotation = rotation_of(table, weights)
    rows = ((table - rotation.mean) @ rotation.directions).T
    low, high = 1e-4, 20 * np.sqrt(rotation.variances[0])
    shares = weights / weights.sum()
    for _ in range(24):
        step = np.sqrt(low * high)
        used = error = 0.0
        for row in rows:
            _, codes = np.unique(np.round(row / step), return_inverse=True)
            odds = np.bincount(codes) / len(codes)
            used -= odds @ np.log2(odds)
            sizes = np.maximum(np.bincount(codes, shares), 1e-30)
            centres = np.bincount(codes, shares * row) / sizes
            error += shares @ np.square(row - centres[codes])
        low, high = (step, high) if used > bits else (low, step)
    return float(np.sqrt(error / (shares @ np.square(table).sum(axis=1))))


LIMITS = {
    "limit, Gaussian rows": gaussian_limit,
    "limit, rows of unlike scale": scaled_limit,
    "entropy-coded scalar": entropy_coded,
}


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
    """IMDB reviews as rows of a table, and a linear classifier of them."""

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
    """Returns how good the rows of a compressed table are."""
    found = {
        "error": compare_rows(rows, table).error(weights),
        "overlap": neighbour_overlap(rows, table),
    }
    if reviews is not None:
        found["accuracy"] = reviews.accuracy(rows)
    return found


def row_of(table, counts, ratio, name, reviews):
    """Returns a row of results, or `None` if a method cannot be so small."""
    weights, size = frequency_weights(counts, len(table)), 4 * table.size
    if name in LIMITS:
        bits = 32 * table.shape[1] / ratio
        return {"error": LIMITS[name](table, weights, bits)}
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
            method_named(plan.method),
            plan.number_format,
            plan.arguments,
            table,
            counts,
        )
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer])
    found = {"bytes": file_bytes(model), "seconds": time.time() - start}
    if plan is not None:
        found |= {"plan": f"{plan.method} {plan.number_format or ''}".strip()}
        found |= {"arguments": plan.arguments, "expected": plan.error}
    rows = rows_of(layer, len(table))
    return {**found, **measured(rows, table, weights, reviews)}


def cells_of(own, key, form, ratios):
    """Returns a method's values at each ratio."""
    if own[0]["method"] in (*KERAS, "dense"):
        ratio = own[0]["dense_bytes"] / own[0]["bytes"]
        text = f"{own[0][key]:{form}} at {ratio:.1f}x"
        return [text, *[""] * (len(ratios) - 1)]
    found = {row["ratio"]: f"{row[key]:{form}}" for row in own}
    return [found.get(ratio, "") for ratio in ratios]


def show(rows):
    """Prints a table of each value for each table of embeddings."""
    for name in dict.fromkeys(row["table"] for row in rows):
        ratios = RATIOS[name]
        for key, (heading, form) in VALUES.items():
            chosen = [r for r in rows if r["table"] == name and key in r]
            if not chosen:
                continue
            lines = [["method", *(f"{ratio}x" for ratio in ratios)]]
            for method in dict.fromkeys(row["method"] for row in chosen):
                own = [row for row in chosen if row["method"] == method]
                lines.append([method, *cells_of(own, key, form, ratios)])
            print(f"\n{name}, {heading}\n\n{markdown(lines, left=1)}")


def new_row(table, counts, ratio, method, reviews):
    """Returns what is saved of a method at a ratio, or `None`."""
    sizes = {"dense_bytes": 4 * table.size, "method": method, "ratio": ratio}
    if method == "dense":
        weights = np.ones(len(table))
        found = measured(table, table, weights, reviews)
        return {**sizes, **found, "bytes": 4 * table.size}
    found = row_of(table, counts, ratio, method, reviews)
    return None if found is None else {**sizes, **found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="for the accuracy on IMDB")
    parser.add_argument("--methods", nargs="+", help="default: all of them")
    parser.add_argument("--tables", nargs="+", default=[*RATIOS])
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
        "GloVe, words alike": (table, None, reviews),
    }
    for name, (table, counts, reviews) in tables.items():
        jobs = [(method, 1) for method in ("dense", *KERAS)]
        names = (*TRIES, *LIMITS)
        jobs += [(method, r) for method in names for r in RATIOS[name]]
        for method, ratio in jobs:
            if (name, method, ratio) in done or (name, method) in LEFT_OUT:
                continue
            if method not in (options.methods or (*names, "dense", *KERAS)):
                continue
            if name not in options.tables:
                continue
            row = new_row(
                table.astype("float32"), counts, ratio, method, reviews
            )
            if row is None:
                continue
            rows.append({"table": name, **row})
            with open(RESULTS, "a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], file=sys.stderr, flush=True)
    show(rows)


if __name__ == "__main__":
    main()
