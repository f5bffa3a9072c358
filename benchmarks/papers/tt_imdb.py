"""Tensor trains on IMDB reviews: the experiment of Khrulkov et al. 2019.

A two-layer bidirectional LSTM is trained from scratch, in one budget for all
rows: over a dense embedding, and over the paper's three tensor trains. Each row
keeps its best epoch on validation reviews; the test reviews are used once.

Each row is saved when it is done. A second run continues where the first
stopped.

    python benchmarks/papers/tt_imdb.py --data-dir ../shared/data
"""

import collections
import csv
import gzip
import re
import time
from pathlib import Path

import keras
import numpy as np
from dense import DenseGradientEmbedding
from results import add, missing, parse_options, read

from keras_embcomp import TTEmbedding
from keras_embcomp.text_tables import markdown

VOCABULARY, WIDTH, LSTM_UNITS, DROPOUT = 25_000, 256, 128, 0.5
LENGTH, BATCH_SIZE, EPOCHS, VALIDATION = 80, 256, 4, 5_000
STDDEV = 0.05 / 3**0.5  # as in a dense embedding of Keras

DENSE = (VOCABULARY, WIDTH)
TT1 = ((25, 30, 40), (4, 8, 8))
TT2 = ((10, 10, 15, 20), (4, 4, 4, 4))
TT3 = ((5, 5, 5, 5, 6, 8), (2, 2, 2, 2, 4, 4))

# A shape and Adam's rate. The paper's rate is 1e-3, for 100 epochs.
ROWS = {
    "dense": (DENSE, 3e-3),
    "TT2": (TT2, 3e-3),
    "TT3": (TT3, 3e-3),
    "TT1": (TT1, 3e-3),
    "dense, rate 1e-3": (DENSE, 1e-3),
    "TT2, rate 1e-3": (TT2, 1e-3),
}


def embedding(shape):
    """Returns the untrained embedding of a row of the table."""
    if shape == DENSE:
        return DenseGradientEmbedding(VOCABULARY, WIDTH)
    return TTEmbedding(
        VOCABULARY,
        WIDTH,
        tt_ranks=16,
        tt_shape=shape,
        embeddings_stddev=STDDEV,
    )


def classifier(layer):
    """Returns the paper's classifier over an embedding layer."""
    ids = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Dropout(DROPOUT)(layer(ids))
    for sequences in (True, False):
        lstm = keras.layers.LSTM(LSTM_UNITS, return_sequences=sequences)
        x = keras.layers.Bidirectional(lstm)(x)
    x = keras.layers.Dropout(DROPOUT)(x)
    return keras.Model(ids, keras.layers.Dense(1, activation="sigmoid")(x))


def read_reviews(path):
    """Returns the words of each review, and 1 for the positive ones."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    words = [
        re.findall(r"[a-z']+|[!?]", re.sub(r"<[^>]*>", " ", row[3].lower()))
        for row in rows
    ]
    return words, np.array([row[0] == "pos" for row in rows], "int32")


def load(data_dir, length=LENGTH):
    """Returns `(ids, labels)` to train on, to validate on and to test on.

    Ids are sorted by frequency; 0 is padding, and 1 is an unknown word. Long
    reviews keep their last words.
    """
    folder = Path(data_dir) / "imdb"
    train, labels = read_reviews(folder / "imdb_train.tsv.gz")
    other, other_labels = read_reviews(folder / "imdb_test.tsv.gz")
    counts = collections.Counter(word for review in train for word in review)
    common = counts.most_common(VOCABULARY - 2)
    ids = {word: i + 2 for i, (word, _) in enumerate(common)}

    def encode(reviews):
        sequences = [[ids.get(word, 1) for word in r] for r in reviews]
        return keras.utils.pad_sequences(sequences, length)

    order = np.random.default_rng(0).permutation(len(other))
    parts = order[:VALIDATION], order[VALIDATION:]
    encoded = encode(other)
    return (
        (encode(train), labels),
        *((encoded[part], other_labels[part]) for part in parts),
    )


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best validation accuracy."""

    def __init__(self):
        super().__init__()
        self.accuracies, self.weights = [], None

    def on_epoch_end(self, epoch, logs=None):
        accuracy = logs["val_accuracy"]
        if accuracy > max(self.accuracies, default=-1):
            self.weights = self.model.get_weights()
        self.accuracies.append(accuracy)


def run(data_dir, names, seeds, results):
    """Trains the rows that the results do not have yet."""
    train, validation, test = load(data_dir)
    for name, seed in missing(results, names, seeds):
        keras.utils.set_random_seed(seed)
        shape, rate = ROWS[name]
        model = classifier(embedding(shape))
        model.compile(
            keras.optimizers.Adam(rate),
            "binary_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,  # XLA makes the LSTM slower on CPU
        )
        best, start = BestWeights(), time.time()
        model.fit(
            *train,
            BATCH_SIZE,
            EPOCHS,
            validation_data=validation,
            validation_batch_size=1_000,
            callbacks=[best],
            verbose=2,
        )
        seconds = time.time() - start
        model.set_weights(best.weights)
        row = {
            "name": name,
            "seed": seed,
            "test": model.evaluate(*test, 1_000, verbose=0)[1],
            "validation": best.accuracies,
            "embedding": model.layers[1].count_params(),
            "parameters": model.count_params(),
            "seconds": seconds,
        }
        add(results, row)
        keras.utils.clear_session()


def _natural_order(name):
    return not name.startswith("dense"), name


def table(rows):
    """Returns the Markdown table, with one line per name."""
    lines = [
        [
            "model",
            "shape",
            "embedding parameters",
            "compression",
            "all parameters",
            "validation %",
            "test %",
            "seconds",
        ]
    ]
    for name in sorted(ROWS, key=_natural_order):
        chosen = [row for row in rows if row["name"] == name]
        if not chosen:
            continue
        own = chosen[0]["embedding"]
        shape = " x ".join(map(str, ROWS[name][0]))
        best = np.mean([max(row["validation"]) for row in chosen])
        test = np.mean([row["test"] for row in chosen])
        seconds = np.mean([row["seconds"] for row in chosen])
        lines.append(
            [
                name,
                shape,
                f"{own:,}",
                f"{VOCABULARY * WIDTH / own:.1f}",
                f"{chosen[0]['parameters']:,}",
                f"{100 * best:.2f}",
                f"{100 * test:.2f}",
                f"{seconds:.0f}",
            ]
        )
    return markdown(lines, left=2)


def main():
    options = parse_options(__doc__.split("\n")[0], "tt_imdb", [0], ROWS)
    run(options.data_dir, options.rows, options.seeds, options.results)
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
