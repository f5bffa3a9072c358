"""Time and peak memory of `from_dense` on a large table, in units of the table.

    python benchmarks/from_dense_memory.py --rows 1000000 --width 128

Each method runs in a process of its own. Memory is the peak beyond what the
process had with the table alone; the floor is the table itself, 1.00, which is
not counted. The entries of the table are random, with columns that fall.
"""

import argparse
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from memory import peak_bytes, status_bytes

METHODS = {
    "low_rank": {"rank": 32},
    "product_codes": {"num_parts": 16, "part_width": 8},
    "tensor_train": {"tt_ranks": 32},
    "distilled": {"rank": 32},
}


def measured(name, rows, width):
    """Prints the row of a method."""
    from keras_embcomp.layers.methods import method_named

    generator = np.random.default_rng(0)
    table = generator.standard_normal((rows, width), dtype="float32")
    table *= np.arange(1, width + 1, dtype="float32") ** -0.5
    # A small one first: what is loaded once is no memory of the fit.
    embedding = method_named(name).embedding
    embedding.from_dense(table[:2_000], **METHODS[name])
    before, start = status_bytes("VmRSS"), time.perf_counter()
    if peak_bytes() > 1.05 * before:
        raise RuntimeError("The process has had more memory than it has now")
    embedding.from_dense(table, **METHODS[name])
    seconds = time.perf_counter() - start
    share = (peak_bytes() - before) / table.nbytes
    print(f"| {name} | {seconds:.0f} | {share:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measured(options.one, options.rows, options.width)
        return
    table = 4 * options.rows * options.width / 2**20
    print(f"a table of {options.rows:,} x {options.width}: {table:.0f} MiB")
    print("| method | seconds | peak / table |\n|---|---|---|", flush=True)
    sizes = ["--rows", str(options.rows), "--width", str(options.width)]
    for name in options.methods:
        command = [sys.executable, __file__, *sizes, "--one", name]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
