"""What low rank and groups lose of GloVe's table, weighed by frequency.

The ablation of Chen et al. 2018, Table 2, on reconstruction: each row adds one
thing to the row before it, at equal parameters.

    python benchmarks/group_reduce_error.py
"""

import time

import numpy as np
from tables import glove

from keras_embcomp.numerics.budget import (
    equal_groups,
    group_ranks_by_error,
    group_ranks_by_frequency,
    group_reduce_parameters,
    growing_groups,
    low_rank_from_fraction,
)
from keras_embcomp.numerics.group_reduce import group_reduce, smoothed

NUM_GROUPS, SWEEPS = 10, 10


def main():
    _, table, counts = glove()
    vocabulary, width = table.shape
    weights = smoothed(counts, vocabulary)
    equal = equal_groups(vocabulary, NUM_GROUPS)
    growing = growing_groups(vocabulary, NUM_GROUPS)
    norms = np.sum(table**2, axis=1)

    def row(ratio, name, sizes, ranks, counts, sweeps=0):
        start = time.perf_counter()
        groups = group_reduce(
            table, sizes, ranks, counts, max_sweeps=sweeps, verbose=0
        )
        seconds = time.perf_counter() - start
        blocks = [
            rows if projection is None else rows @ projection
            for rows, projection in zip(
                groups.embeddings, groups.projections, strict=True
            )
        ]
        approximation = np.concatenate(blocks)[groups.places()]
        errors = np.sum((table - approximation) ** 2, axis=1)
        numbers = group_reduce_parameters(groups.sizes, ranks, width)
        stored = groups.structure()["permuted"] * vocabulary
        plain = (errors.sum() / norms.sum()) ** 0.5
        weighted = (weights @ errors / (weights @ norms)) ** 0.5
        print(
            f"| {ratio} | {name} | {numbers:,} + {stored:,} | {plain:.3f} | "
            f"{weighted:.3f} | {seconds:.1f} |",
            flush=True,
        )

    print("| ratio | method | numbers + places | error | weighted | seconds |")
    print("|---|---|---|---|---|---|")
    for ratio in (4, 8, 16):
        budget = table.size // ratio
        rank = low_rank_from_fraction(vocabulary, width, 1 / ratio)
        one = (vocabulary,), (rank,)
        row(ratio, "low rank", *one, None)
        row(ratio, "low rank, weighted", *one, counts)
        for name, sizes in (("equal", equal), ("growing", growing)):
            alike = group_ranks_by_frequency(
                sizes, width, budget, np.ones(vocabulary)
            )
            row(ratio, f"{name} groups", sizes, alike, counts)
            by_frequency = group_ranks_by_frequency(
                sizes, width, budget, counts
            )
            row(ratio, "ranks by frequency", sizes, by_frequency, counts)
            row(ratio, "and sweeps", sizes, by_frequency, counts, SWEEPS)
            by_error = group_ranks_by_error(table, sizes, budget, counts)
            row(ratio, "ranks by error", sizes, by_error, counts)
            row(ratio, "and sweeps", sizes, by_error, counts, SWEEPS)


if __name__ == "__main__":
    main()
