"""Shared sub-vectors on Penn Treebank: the experiment of Li et al. 2018.

A two-layer LSTM of 300 units is trained from scratch, in one budget for all
rows: over a dense embedding, over pools of 20, 10 and 5 % of its size, and with
both sides at one eighth. One row stores the paper's shuffled assignment; the
others compute theirs.

Each row is saved when it is done. A second run continues where the first
stopped.

    python benchmarks/papers/slim_ptb.py --data-dir ../shared/data
"""

import time

import keras
import numpy as np
from dense import DenseGradientEmbedding
from keras import ops
from ptb import fit, language_model, load, perplexity
from results import add, missing, parse_options, read

from keras_embcomp import HashedEmbedding, HashedSoftmax
from keras_embcomp.numerics.lookup import take_rows
from keras_embcomp.text_tables import markdown

UNITS, NUM_PARTS, DROPOUT, RATE, EPOCHS = 300, 10, 0.2, 4e-3, 4
START = keras.initializers.RandomUniform(-0.1, 0.1)


class ShuffledEmbedding(HashedEmbedding):
    """The paper's assignment: a list of all pieces, shuffled (Fisher-Yates)."""

    def build(self, input_shape=None):
        super().build(input_shape)
        pieces = np.arange(self.input_dim * self.num_parts, dtype="int32")
        np.random.default_rng(self.seed).shuffle(pieces)
        table = pieces.reshape(self.input_dim, -1) % self.num_subvectors
        self.code_table = ops.convert_to_tensor(table)

    def rows(self, ids):
        codes = ops.take(self.code_table, ids, axis=0)
        pieces = take_rows(self.subvectors, codes)
        return ops.reshape(pieces, (*ids.shape, self.output_dim))


def dense(size):
    return DenseGradientEmbedding(size, UNITS, embeddings_initializer=START)


def hashed(share, layer=HashedEmbedding):
    """Returns a function that makes an embedding with a small pool."""
    return lambda size: layer(
        size,
        UNITS,
        num_subvectors=int(share * size * NUM_PARTS),
        num_parts=NUM_PARTS,
        subvectors_initializer=START,
    )


def dense_head(size):
    return keras.layers.Dense(size, kernel_initializer=START)


def hashed_head(size):
    return HashedSoftmax(
        size,
        num_subvectors=size * NUM_PARTS // 8,
        num_parts=NUM_PARTS,
        subvectors_initializer=START,
        activation=None,
    )


ROWS = {
    "dense": (dense, dense_head),
    "input 5 %": (hashed(0.05), dense_head),
    "input 5 %, shuffled": (hashed(0.05, ShuffledEmbedding), dense_head),
    "input 10 %": (hashed(0.1), dense_head),
    "input 20 %": (hashed(0.2), dense_head),
    "input and output 1/8": (hashed(1 / 8), hashed_head),
}


def run(data_dir, names, seeds, results):
    """Trains the rows that the results do not have yet."""
    words, (train, validation, test) = load(data_dir)
    for name, seed in missing(results, names, seeds):
        keras.utils.set_random_seed(seed)
        embedding, head = (make(len(words)) for make in ROWS[name])
        embedding.build()
        model = language_model(embedding, head, UNITS, DROPOUT)
        start = time.time()
        perplexities = fit(model, train, validation, RATE, EPOCHS)
        row = {
            "name": name,
            "seed": seed,
            "test": perplexity(model, test),
            "validation": perplexities,
            "embedding": embedding.count_params(),
            "head": head.count_params(),
            "seconds": time.time() - start,
        }
        add(results, row)
        keras.utils.clear_session()


def table(rows):
    """Returns the Markdown table, with one line per name."""
    lines = [
        [
            "tables",
            "input parameters",
            "output parameters",
            "validation",
            "test",
            "test / dense",
            "seconds",
        ]
    ]
    means = {}
    for name in ROWS:
        chosen = [row for row in rows if row["name"] == name]
        if not chosen:
            continue
        valid, means[name], seconds = (
            np.mean([np.ravel(row[key])[-1] for row in chosen])
            for key in ("validation", "test", "seconds")
        )
        relative = means[name] / means.get("dense", np.nan)
        lines.append(
            [
                name,
                f"{chosen[0]['embedding']:,}",
                f"{chosen[0]['head']:,}",
                f"{valid:.2f}",
                f"{means[name]:.2f}",
                f"{relative:.3f}",
                f"{seconds:.0f}",
            ]
        )
    return markdown(lines, left=1)


def main():
    options = parse_options(__doc__.split("\n")[0], "slim_ptb", [0], ROWS)
    run(options.data_dir, options.rows, options.seeds, options.results)
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
