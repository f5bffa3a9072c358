"""What low rank and groups lose of GloVe's table, weighted by frequency.

Each method has the same budget of numbers. If words are grouped by count, the
place of each word takes one of these numbers. Errors are relative, both plain
and weighted by the counts of `wordfreq`.

    python benchmarks/group_reduce_error.py
    python benchmarks/group_reduce_error.py --large
"""

import argparse
import time

import numpy as np
from memory import peak_bytes
from tables import glove

from keras_embcomp.budgets import (
    equal_groups,
    group_ranks_by_error,
    group_ranks_by_frequency,
    group_reduce_parameters,
    growing_groups,
    low_rank_from_fraction,
)
from keras_embcomp.numerics.group_reduce.fitting import group_reduce, smoothed

NUM_GROUPS, SWEEPS = 10, 10


def methods(table, counts, budget):
    """Yields a name and the arguments of `group_reduce` for each method."""
    vocabulary, width = table.shape
    rank = low_rank_from_fraction(vocabulary, width, budget / table.size)
    one = {"group_sizes": (vocabulary,), "group_ranks": (rank,)}
    yield "low rank", one
    yield "low rank, weighted", {**one, "frequencies": counts, "sort": False}
    counted = {"frequencies": counts}
    alike, left = np.ones(vocabulary), budget - vocabulary
    for name, sizes in (
        ("equal groups", equal_groups(vocabulary, NUM_GROUPS)),
        ("growing groups", growing_groups(vocabulary, NUM_GROUPS)),
    ):
        for rule, ranks in (
            (
                "equal ranks",
                group_ranks_by_frequency(sizes, width, left, alike),
            ),
            (
                "ranks by frequency",
                group_ranks_by_frequency(sizes, width, left, counts),
            ),
            (
                "ranks by error",
                group_ranks_by_error(table, sizes, left, counts),
            ),
        ):
            groups = {"group_sizes": sizes, "group_ranks": ranks}
            yield f"{name}, {rule}", {**groups, **counted}
        swept = {**groups, **counted, "max_sweeps": SWEEPS}
        yield f"{name}, by error, sweeps", swept
        ranks = group_ranks_by_error(table, sizes, budget, counts, sort=False)
        kept = {"group_sizes": sizes, "group_ranks": ranks, "sort": False}
        yield f"{name}, by error, GloVe's order", {**kept, **counted}


def compare():
    _, table, counts = glove()
    weights = smoothed(counts, len(table))
    norms = np.sum(table**2, axis=1)
    print("| ratio | method | numbers | error | weighted error | seconds |")
    print("|---|---|---|---|---|---|")
    for ratio in (4, 8, 16):
        for name, arguments in methods(table, counts, table.size // ratio):
            start = time.perf_counter()
            groups = group_reduce(table, **arguments, verbose=0)
            seconds = time.perf_counter() - start
            numbers = group_reduce_parameters(
                groups.sizes, arguments["group_ranks"], table.shape[1]
            )
            numbers += groups.structure()["permuted"] * len(table)
            errors = np.sum((table - groups.table()) ** 2, axis=1)
            plain = (errors.sum() / norms.sum()) ** 0.5
            weighted = (weights @ errors / (weights @ norms)) ** 0.5
            print(
                f"| {ratio} | {name} | {numbers:,} | {plain:.3f} | "
                f"{weighted:.3f} | {seconds:.1f} |",
                flush=True,
            )


def large():
    """Measures the time and the memory of a table of 800,000 rows."""
    table = np.random.default_rng(0).standard_normal((800_000, 256), "float32")
    counts = 1 / np.arange(1, len(table) + 1)
    sizes = equal_groups(len(table), 20)
    ranks = group_ranks_by_frequency(sizes, 256, table.size // 10, counts)
    before = peak_bytes()
    print("| sweeps | seconds | peak memory / table |")
    print("|---|---|---|")
    for sweeps in (0, 5):
        start = time.perf_counter()
        group_reduce(table, sizes, ranks, counts, sweeps, verbose=0)
        seconds = time.perf_counter() - start
        peak = peak_bytes() - before
        print(f"| {sweeps} | {seconds:.0f} | {peak / table.nbytes:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--large", action="store_true", help=large.__doc__)
    large() if parser.parse_args().large else compare()


if __name__ == "__main__":
    main()
