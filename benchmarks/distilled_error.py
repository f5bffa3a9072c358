"""What decoders lose of real tables, beside the SVD with as many numbers.

The paper's form, and a hidden layer, beyond the paper. Errors are relative.

    python benchmarks/distilled_error.py
"""

import time

import numpy as np
from tables import glove, minilm

from keras_embcomp import DistilledEmbedding
from keras_embcomp.budgets import (
    distilled_rank,
    low_rank_from_fraction,
)
from keras_embcomp.numerics.low_rank import truncated_svd

# The width of the hidden layer for each ratio.
TABLES = {
    "MiniLM": (minilm, {4: 512, 8: 512, 16: 256}),
    "GloVe": (glove, {4: 256, 8: 256, 16: 256}),
}


def main():
    print(
        "| table | ratio | SVD | paper's form | hidden_dim | error | over SVD "
        "| seconds |\n|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for name, (load, widths) in TABLES.items():
        table = load()[1].astype("float32")
        size, width = table.shape

        def error(approximation, table=table):
            return np.linalg.norm(approximation - table) / np.linalg.norm(table)

        for ratio, hidden in widths.items():
            numbers = size * width // ratio
            rank = low_rank_from_fraction(size, width, 1 / ratio)
            left, right = truncated_svd(table, rank)
            paper = DistilledEmbedding.from_dense(
                table, distilled_rank(size, width, numbers)
            )
            start = time.time()
            layer = DistilledEmbedding.from_dense(
                table,
                distilled_rank(size, width, numbers, hidden),
                hidden_dim=hidden,
                epochs=30,
            )
            seconds = time.time() - start
            assert layer.count_params() <= numbers
            svd, ours = error(left @ right), error(layer.to_dense())
            print(
                f"| {name} | {ratio} | {svd:.3f} | "
                f"{error(paper.to_dense()):.3f} | {hidden} | {ours:.3f} | "
                f"{ours / svd:.3f} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
