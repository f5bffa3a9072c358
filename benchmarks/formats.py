"""Number formats on MiniLM's table: bytes, what rounding loses, lookup time.

"Lost" is the error relative to the method's own float32 table. Times are
medians of compiled lookups, which take turns. They are relative to
`keras.layers.Embedding` in float32, whose row gives milliseconds.

    python benchmarks/formats.py
"""

import argparse
import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from methods import variants
from tables import minilm
from timing import medians_ms

from keras_embcomp.text_tables import markdown

COUNTS = (1, 64, 4_096)
MODES = (None, "int8", "int4")


def makers(table):
    """Returns functions that make the layers to compare, by name."""

    def dense():
        return keras.layers.Embedding(*table.shape, weights=table)

    return {"keras.layers.Embedding": dense} | {
        variant.embedding_name: functools.partial(
            variant.method.embedding.from_dense, table, **variant.arguments
        )
        for variant in variants("formats", *table.shape)
    }


def rows_of(layer, vocabulary):
    return ops.convert_to_numpy(layer(np.arange(vocabulary, dtype="int32")))


def measured(table, xla):
    """Returns a row and a compiled lookup of every layer and format."""
    rows, lookups = [], []
    for name, make in makers(table).items():
        for mode in MODES:
            layer = make()
            if mode is None:
                floats = rows_of(layer, len(table))
            else:
                layer.quantize(mode)
            found = rows_of(layer, len(table))
            lost = np.linalg.norm(found - floats) / np.linalg.norm(floats)
            size = sum(weight.nbytes for weight in layer.get_weights())
            rows.append([name, mode or "float32", f"{size:,}", f"{lost:.4f}"])
            lookups.append(tf.function(layer, jit_compile=xla))
    return rows, lookups


def times_of(lookups, ids, repeats):
    """Returns cells: milliseconds of the first lookup, ratios of the others."""
    calls = {
        place: functools.partial(lookup, ids)
        for place, lookup in enumerate(lookups)
    }
    first, *others = medians_ms(calls, repeats).values()
    return [f"{first:.3f} ms", *(f"{time / first:.2f}" for time in others)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--xla", action="store_true")
    options = parser.parse_args()
    table = np.ascontiguousarray(minilm()[1].astype("float32"))
    rows, lookups = measured(table, options.xla)
    generator = np.random.default_rng(0)
    columns = []
    for count in COUNTS:
        ids = generator.integers(0, len(table), count).astype("int32")
        columns.append(times_of(lookups, tf.constant(ids), options.repeats))
    counts = [f"{count:,} ids" for count in COUNTS]
    lines = [["layer", "format", "bytes", "lost", *counts]]
    for row, *cells in zip(rows, *columns, strict=True):
        lines.append([*row, *cells])
    print(markdown(lines, left=2))


if __name__ == "__main__":
    main()
