"""Seconds and memory of the truncated SVD, beside NumPy's full one.

python benchmarks/truncated_svd.py
"""

import time
import tracemalloc

import numpy as np

from keras_embcomp.numerics.low_rank import truncated_svd

SHAPES = ((400_000, 50), (100_000, 512))


def measure(function, table):
    """Returns seconds, peak memory relative to the table, and the error."""
    tracemalloc.start()
    start = time.perf_counter()
    left, right = function(table)
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1] / table.nbytes
    tracemalloc.stop()
    return seconds, peak, np.linalg.norm(left @ right - table)


def main():
    print("| table | method | seconds | peak memory / table | error |")
    print("|---|---|---|---|---|")
    for shape in SHAPES:
        table = np.random.default_rng(0).standard_normal(shape, "float32")
        rank = shape[1] // 4

        def numpy_svd(table, rank=rank):
            left, values, right = np.linalg.svd(table, full_matrices=False)
            return left[:, :rank] * values[:rank], right[:rank]

        def ours(table, rank=rank):
            return truncated_svd(table, rank)

        for name, function in (
            ("numpy.linalg.svd", numpy_svd),
            ("truncated_svd", ours),
        ):
            seconds, peak, error = measure(function, table)
            print(
                f"| {shape[0]:,} x {shape[1]} | {name} | {seconds:.1f} | "
                f"{peak:.1f} | {error / np.linalg.norm(table):.6f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
