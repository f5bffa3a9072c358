"""Time and peak memory of fits to a large table, in units of the table.

    python benchmarks/from_dense_memory.py --rows 1000000 --width 128
    python benchmarks/from_dense_memory.py --rows 256000 --width 640 --model

Each method runs in a process of its own. Memory is the peak beyond what the
process had with the table alone; the floor is the table itself, 1.00, which is
not counted. The entries of the table are random, with columns that fall. With
`--model` the table is a tied one of a model, and `compress` plans and makes a
copy of the model, 14 times smaller.
"""

import argparse
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from memory import forget_peak, status_bytes

METHODS = {
    "trellis_codes": {"group_bytes": 16, "state_bits": 10},
    "product_codes": {"num_parts": 16, "part_width": 8},
    "low_rank": {"rank": 32},
    "tensor_train": {"tt_ranks": 32},
    "distilled": {"rank": 32},
}
RATIO = 14


def fit(method, table):
    """Returns a function that fits a layer to a table."""
    from keras_embcomp.layers.methods import method_named

    embedding = method_named(method).embedding
    return lambda: embedding.from_dense(table, **METHODS[method])


def compression(method, table):
    """Returns a function that compresses a model of a tied table."""
    import keras

    from keras_embcomp import compress

    words = keras.layers.ReversibleEmbedding(*table.shape)
    ids = keras.Input((None,), dtype="int32")
    model = keras.Model(ids, words(words(ids), reverse=True))
    words.embeddings.assign(table)
    return lambda: compress(model, ratio=RATIO, method=method)


def measured(name, rows, width, start):
    """Prints the row of a method."""
    generator = np.random.default_rng(0)
    table = generator.standard_normal((rows, width), dtype="float32")
    table *= np.arange(1, width + 1, dtype="float32") ** -0.5
    # A small one first: what is loaded once is no memory of the fit.
    start(name, table[:2_000])()
    size, run = table.nbytes, start(name, table)
    if start is compression:
        del table
    forget_peak()
    before, begin = status_bytes("VmRSS"), time.perf_counter()
    run()
    seconds = time.perf_counter() - begin
    share = (status_bytes("VmHWM") - before) / size
    print(f"| {name} | {seconds:.0f} | {share:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--model", action="store_true")
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        start = compression if options.model else fit
        measured(options.one, options.rows, options.width, start)
        return
    table = 4 * options.rows * options.width / 2**20
    print(f"a table of {options.rows:,} x {options.width}: {table:.0f} MiB")
    print("| method | seconds | peak / table |\n|---|---|---|", flush=True)
    sizes = ["--rows", str(options.rows), "--width", str(options.width)]
    sizes += ["--model"] * options.model
    for name in options.methods:
        command = [sys.executable, __file__, *sizes, "--one", name]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
