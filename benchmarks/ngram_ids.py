"""What hashed n-grams bring to a language model, and what they cost.

An LSTM models Penn Treebank. Beside the rows of the words stand the sums of the
rows of their last two and three words together, out of one hashed table. The
row without n-grams that is wider has about as many bytes as the largest.

Each row is saved when it is done. A second run continues where the first
stopped.

    python benchmarks/ngram_ids.py --data-dir ../shared/data
"""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.append(str(Path(__file__).parent / "papers"))
from ptb import fit, language_model, load, perplexity
from results import add, missing, parse_options, read

from keras_embcomp import HashedEmbedding, NGramIds
from keras_embcomp.text_tables import markdown

WIDTH, DROPOUT, RATE, EPOCHS, NUM_PARTS = 128, 0.2, 4e-3, 2, 4
NUM_IDS = 1_000_000

# Sub-vectors of n-grams, and units of the LSTMs.
ROWS = {
    "words": (0, 128),
    "words, wider": (0, 200),
    "n-grams, .26 MB": (2_000, 128),
    "n-grams, 1.0 MB": (8_000, 128),
    "n-grams, 4.1 MB": (32_000, 128),
}


def embedding_of(size, num_subvectors):
    """Returns a function from ids to rows."""
    words = keras.layers.Embedding(size, WIDTH)
    if not num_subvectors:
        return words
    ngrams = NGramIds(NUM_IDS)
    table = HashedEmbedding(NUM_IDS, WIDTH, num_subvectors, NUM_PARTS)
    return lambda ids: words(ids) + keras.ops.sum(table(ngrams(ids)), axis=2)


def run(data_dir, names, seeds, results):
    """Trains the rows that the results do not have yet."""
    words, (train, validation, test) = load(data_dir)
    for name, seed in missing(results, names, seeds):
        keras.utils.set_random_seed(seed)
        pool, units = ROWS[name]
        model = language_model(
            embedding_of(len(words), pool),
            keras.layers.Dense(len(words)),
            units,
            DROPOUT,
        )
        start = time.perf_counter()
        perplexities = fit(model, train, validation, RATE, EPOCHS)
        row = {
            "name": name,
            "seed": seed,
            "bytes": 4 * model.count_params(),
            "validation": perplexities[-1],
            "test": perplexity(model, test),
            "seconds": round(time.perf_counter() - start),
        }
        add(results, row)
        keras.utils.clear_session()


def table(rows):
    """Returns the Markdown table, with one line per name."""
    lines = [["model", "bytes", "validation", "test"]]
    for name in ROWS:
        own = [row for row in rows if row["name"] == name]
        if own:
            scores = [
                f"{np.mean([row[part] for row in own]):.2f}"
                for part in ("validation", "test")
            ]
            lines.append([name, f"{own[0]['bytes']:,}", *scores])
    return markdown(lines, left=1)


def main():
    options = parse_options(__doc__.split("\n")[0], "ngram_ids", [0], ROWS)
    run(options.data_dir, options.rows, options.seeds, options.results)
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
