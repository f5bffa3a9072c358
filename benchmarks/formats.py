"""Number formats on MiniLM's table: bytes, what rounding loses, lookup time.

"Lost" is the relative error to the method's own table of floats. Times are
medians of compiled lookups that take turns, over those of
`keras.layers.Embedding` in floats, which come first in milliseconds.

    python benchmarks/formats.py
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tables import minilm

from keras_embcomp import (
    GroupReduceEmbedding,
    HashedEmbedding,
    LowRankEmbedding,
    ProductQuantizedEmbedding,
    TTEmbedding,
)

COUNTS = (1, 64, 4_096)
MODES = (None, "int8", "int4")


def dense(table):
    return keras.layers.Embedding(*table.shape, weights=table)


METHODS = {
    "keras.layers.Embedding": dense,
    "LowRankEmbedding": lambda table: LowRankEmbedding.from_dense(table, 64),
    "TTEmbedding": lambda table: TTEmbedding.from_dense(table, 64),
    "HashedEmbedding": lambda table: HashedEmbedding.from_dense(
        table, len(table)
    ),
    "GroupReduceEmbedding": lambda table: GroupReduceEmbedding.from_dense(
        table, (3_000, len(table) - 3_000), (256, 48)
    ),
    "ProductQuantizedEmbedding": lambda table: (
        ProductQuantizedEmbedding.from_dense(table, 32, 12)
    ),
}


def rows_of(layer, vocabulary):
    return ops.convert_to_numpy(layer(np.arange(vocabulary, dtype="int32")))


def milliseconds(functions, ids, repeats):
    """Returns the median time of each function; they take turns."""
    times = np.empty((3 + repeats, len(functions)))
    for turn in times:
        for place, function in enumerate(functions):
            start = time.perf_counter()
            function(ids)
            turn[place] = 1e3 * (time.perf_counter() - start)
    return np.median(times[3:], axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--xla", action="store_true")
    options = parser.parse_args()
    table = np.ascontiguousarray(minilm()[1].astype("float32"))
    vocabulary = len(table)
    rows, lookups = [], []
    for name, make in METHODS.items():
        for mode in MODES:
            layer = make(table)
            if mode is None:
                floats = rows_of(layer, vocabulary)
            else:
                layer.quantize(mode)
            found = rows_of(layer, vocabulary)
            lost = np.linalg.norm(found - floats) / np.linalg.norm(floats)
            size = sum(weight.nbytes for weight in layer.get_weights())
            rows.append(
                f"| {name} | {mode or 'float32'} | {size:,} | {lost:.4f} |"
            )
            lookups.append(tf.function(layer, jit_compile=options.xla))
    generator = np.random.default_rng(0)
    columns = []
    for count in COUNTS:
        ids = generator.integers(0, vocabulary, count).astype("int32")
        times = milliseconds(lookups, tf.constant(ids), options.repeats)
        columns.append(
            [f"{times[0]:.3f} ms", *(f"{t / times[0]:.2f}" for t in times[1:])]
        )
    counts = " | ".join(f"{count:,} ids" for count in COUNTS)
    print(f"| layer | format | bytes | lost | {counts} |")
    print("|---" * (4 + len(COUNTS)) + "|")
    for row, *cells in zip(rows, *columns, strict=True):
        print(row, " | ".join(cells), "|")


if __name__ == "__main__":
    main()
