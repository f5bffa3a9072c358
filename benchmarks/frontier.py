"""What each method loses of real tables for a number of bytes.

The tables are MiniLM's, and GloVe's with the counts of `wordfreq`. A row is a
method at a ratio: the bytes of the saved `.keras` file, and the relative error,
plain and weighed by counts. The limit is that of a Gaussian with the same
covariance (reverse water-filling), which no code of so many bits a row beats
if rows are Gaussian.

A row is saved as it finishes, and a second run goes on where the first stopped.

    python benchmarks/frontier.py
"""

import json
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from tables import glove, minilm

from keras_embcomp import (
    DistilledEmbedding,
    GroupReduceEmbedding,
    HashedEmbedding,
    LowRankEmbedding,
    ProductQuantizedEmbedding,
    TTEmbedding,
)
from keras_embcomp.checks import frequency_weights
from keras_embcomp.numerics.budget import (
    distilled_rank,
    group_ranks_by_error,
    growing_groups,
    low_rank_from_fraction,
)
from keras_embcomp.numerics.code_budget import (
    code_sizes,
    principal_variances,
    water_filled,
)

RESULTS = Path("benchmarks/results/frontier.jsonl")
RATIOS = (4, 8, 14, 16, 24, 32, 48, 64)
FILE_BYTES = 24_000  # of a .keras file, beside its weights


def low_rank(table, numbers, counts):
    fraction = numbers / table.size
    rank = low_rank_from_fraction(*table.shape, fraction)
    return LowRankEmbedding.from_dense(table, rank, counts)


def group_reduce(table, numbers, counts):
    sizes = growing_groups(len(table), 8)
    ranks = group_ranks_by_error(table, sizes, int(numbers), counts, sort=False)
    return GroupReduceEmbedding.from_dense(
        table, sizes, ranks, counts, sort=False
    )


def distilled(table, numbers, counts):
    size, width = table.shape
    hidden = min(512, int(numbers / (8 * width)))
    rank = distilled_rank(size, width, numbers, hidden)
    return DistilledEmbedding.from_dense(
        table, rank, hidden_dim=hidden, frequencies=counts
    )


def tensor_train(table, numbers, counts):
    size, width = table.shape
    low, high = 1, 2_000
    while low < high:
        rank = (low + high + 1) // 2
        layer = TTEmbedding(size, width, rank, num_cores=2)
        layer.build()
        small = layer.count_params() <= numbers
        low, high = (rank, high) if small else (low, rank - 1)
    return TTEmbedding.from_dense(
        table, tt_ranks=low, num_cores=2, frequencies=counts
    )


def hashed(table, numbers, counts):
    parts = 10 if table.shape[1] % 10 == 0 else 8
    subvectors = int(numbers * parts / table.shape[1])
    return HashedEmbedding.from_dense(
        table, subvectors, parts, frequencies=counts
    )


def product_quantized(dtype):
    def of(table, numbers, counts):
        weights = frequency_weights(counts, len(table))
        sizes = code_sizes(
            table, 4 * numbers, weights, factor_bytes=np.dtype(dtype).itemsize
        )
        return ProductQuantizedEmbedding.from_dense(
            table, **sizes, frequencies=counts, factors_dtype=dtype
        )

    return of


def keras_rows(mode):
    def of(table, numbers, counts):
        layer = keras.layers.Embedding(*table.shape, weights=table)
        layer.quantize(mode)
        return layer

    return of


METHODS = {
    "low rank": low_rank,
    "GroupReduce": group_reduce,
    "distilled, hidden layer": distilled,
    "tensor train, 2 cores": tensor_train,
    "hashed": hashed,
    "product codes": product_quantized("float32"),
    "product codes, int8 factors": product_quantized("int8"),
}
# They have one size each.
KERAS = {"Keras int8": keras_rows("int8"), "Keras int4": keras_rows("int4")}


def limit(table, ratio, weights):
    """Returns the relative error of reverse water-filling."""
    variances = principal_variances(table, weights)
    bits = 32 * table.shape[1] / ratio
    square = np.sum(weights @ np.square(table)) / weights.sum()
    return np.sqrt(water_filled(variances, bits).sum() / square)


def rows_of(layer, size):
    """Returns all rows of a layer."""
    if hasattr(layer, "to_dense"):
        return layer.to_dense()
    return keras.ops.convert_to_numpy(layer(np.arange(size)))


def file_bytes(layer):
    """Returns the bytes of a saved model that is the layer."""
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.stat().st_size


def measure(name, ratio, make, table, counts):
    """Returns a row for a method at a ratio."""
    numbers = (4 * table.size / ratio - FILE_BYTES) / 4
    start = time.time()
    layer = make(table, numbers, None)
    seconds = time.time() - start
    weights = np.ones(len(table)) if counts is None else counts

    def error(layer, weights):
        errors = np.square(rows_of(layer, len(table)) - table).sum(axis=1)
        total = weights @ np.square(table).sum(axis=1)
        return float(np.sqrt(weights @ errors / total))

    row = {
        "bytes": file_bytes(layer),
        "error": error(layer, np.ones(len(table))),
        "seconds": seconds,
    }
    if counts is not None and name not in KERAS:
        layer = make(table, numbers, counts)
    if counts is not None:
        row["weighted"] = error(layer, weights)
    return row


def show(rows):
    """Prints a table of errors for each table of embeddings."""
    for key, title in (("error", "error"), ("weighted", "weighted error")):
        for name in dict.fromkeys(row["table"] for row in rows):
            chosen = [r for r in rows if r["table"] == name and key in r]
            if not chosen:
                continue
            print(f"\n{name}, {title}\n")
            print("| method | " + " | ".join(f"{r}x" for r in RATIOS) + " |")
            print("|---|" + "---:|" * len(RATIOS))
            for method in dict.fromkeys(row["method"] for row in chosen):
                own = {
                    row["ratio"]: f"{row[key]:.3f}"
                    for row in chosen
                    if row["method"] == method
                }
                if method in KERAS:
                    (only,) = (r for r in chosen if r["method"] == method)
                    ratio = only["dense_bytes"] / only["bytes"]
                    print(f"| {method} | {only[key]:.3f} at {ratio:.1f}x |")
                    continue
                cells = (own.get(ratio, "") for ratio in RATIOS)
                print(f"| {method} | " + " | ".join(cells) + " |")


def main():
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    if RESULTS.exists():
        rows = [json.loads(x) for x in RESULTS.read_text().splitlines()]
    done = {(row["table"], row["method"], row["ratio"]) for row in rows}
    tables = {"MiniLM": (minilm()[1], None), "GloVe": glove()[1:]}
    for name, (table, counts) in tables.items():
        table = table.astype("float32")
        dense = {"table": name, "dense_bytes": 4 * table.size}
        jobs = [(m, 1, make) for m, make in KERAS.items()]
        jobs += [(m, r, make) for r in RATIOS for m, make in METHODS.items()]
        jobs += [("limit", ratio, None) for ratio in RATIOS]
        for method, ratio, make in jobs:
            if (name, method, ratio) in done:
                continue
            if make is None:
                weights = np.ones(len(table))
                row = {"error": limit(table, ratio, weights)}
                if counts is not None:
                    row["weighted"] = limit(table, ratio, counts)
            else:
                row = measure(method, ratio, make, table, counts)
            row = {**dense, "method": method, "ratio": ratio, **row}
            rows.append(row)
            with open(RESULTS, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    show(rows)


if __name__ == "__main__":
    main()
