"""Small tables at equal bytes on real data: trained so, or dense first.

Words are in the order of their counts in the training data. A row is a data
set, a method, how many times smaller the table is, and a seed; it holds the
bytes of the table as they are stored and the score on the test data, of the
epoch that was best on the validation data. A method that needs more than the
bytes in its smallest form has no row. In the rows "dense, then ..." the dense
model of the same seed is compressed, and trained for some epochs more if that
helps; "untuned" is its score before them.

Each row is saved when it is done. A second run continues where the first
stopped.

    python benchmarks/from_scratch.py --data-dir ../shared/data --rows ml-100k
    python benchmarks/from_scratch.py --data-dir ../shared/data --rows sst2

`--rates` tries learning rates: the table then says which one was best on the
validation data.
"""

import functools
import itertools
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.append(str(Path(__file__).parent / "papers"))
sys.path.append(str(Path(__file__).parent.parent / "examples"))
import ratings
import sst2
import tt_imdb
from recommender import rating_model
from results import add, parse_options, read

from keras_embcomp import compress, plan_compression, suggest_layers
from keras_embcomp.text_tables import markdown

RATIOS = (10, 30, 100, 300)
MOST_EPOCHS, PATIENCE, RATE = 12, 2, 2e-3
TUNING_EPOCHS = 4  # at a quarter of the rate


class Data(NamedTuple):
    """What models are trained on.

    Attributes:
        counts: Of each id in the training data, falling but for padding.
        width: Width of the table.
        parts: Training, validation and test data, as ids and targets.
        model: Returns a model over an embedding layer.
        loss: What is minimised.
        score: From targets and predictions to a score: the larger the better.
        batch_size: Rows of a step.
    """

    counts: np.ndarray
    width: int
    parts: tuple
    model: object
    loss: object
    score: object
    batch_size: int


def by_counts(parts, size):
    """Returns the ids of parts in the order of their counts, and the counts.

    Id 0, padding, stays.
    """
    counts = np.bincount(parts[0].ravel(), minlength=size)
    order = np.argsort(-counts[1:], kind="stable") + 1
    places = np.zeros(size, "int32")
    places[order] = np.arange(1, size)
    sorted_counts = np.append(counts[:1], counts[order])
    return [places[part] for part in parts], sorted_counts


def ml_100k(data_dir, seed):
    """MovieLens: the score is the error of a rating (RMSE), negative."""
    known = ratings.load(Path(data_dir) / "ml-100k")
    parts = known.split((0.8, 0.1), seed)
    ids, counts = by_counts([part.ids for part in parts], known.num_ids)
    targets = [part.ratings for part in parts]
    return Data(
        counts,
        40,
        tuple(zip(ids, targets, strict=True)),
        lambda embedding: rating_model(embedding, ids[0].shape[1]),
        "mean_squared_error",
        lambda y, found: -float(np.sqrt(np.mean((found[:, 0] - y) ** 2))),
        256,
    )


def text_model(embedding):
    """Returns a classifier of the mean of word vectors."""
    ids = keras.Input((None,), dtype="int32")
    vectors = embedding(ids)
    known = keras.ops.not_equal(ids, 0)
    x = keras.layers.GlobalAveragePooling1D()(vectors, mask=known)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    return keras.Model(ids, keras.layers.Dense(2)(x))


def classification(ids, labels, size):
    """Returns the data of labelled texts, each a row of ids."""
    ids, counts = by_counts(ids, size)
    counts[0] = 0
    return Data(
        counts,
        100,
        tuple(zip(ids, labels, strict=True)),
        text_model,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        lambda y, found: float(100 * np.mean(found.argmax(axis=1) == y)),
        100,
    )


def sst_2(data_dir, seed):
    """SST-2 with its phrases: the score is the accuracy."""
    folder = Path(data_dir) / "sst-trees"
    parts = [
        sst2.read_phrases(folder / f"{name}.txt.gz", name != "train")
        for name in ("train", "dev", "test")
    ]
    known = sorted({word for words, _ in parts[0] for word in words})
    numbers = {word: place for place, word in enumerate(known, start=1)}
    ids = []
    for part in parts:
        rows = [
            [numbers[w] for w in words if w in numbers] for words, _ in part
        ]
        ids.append(
            keras.utils.pad_sequences(
                rows, 40, padding="post", truncating="post"
            )
        )
    labels = [np.array([label for _, label in part]) for part in parts]
    return classification(ids, labels, len(known) + 1)


def imdb(data_dir, seed):
    """IMDB: the score is the accuracy."""
    ids, labels = zip(*tt_imdb.load(data_dir, 256), strict=True)
    return classification(ids, labels, tt_imdb.VOCABULARY)


DATA = {"ml-100k": ml_100k, "sst2": sst_2, "imdb": imdb}

FROM_SCRATCH = (
    "hashed",
    "low_rank",
    "tensor_train",
    "group_reduce",
    "hashed, private rows",
    "narrow",
)
AFTER_DENSE = {
    f"dense, then {method}": method
    for method in ("product_codes", "trellis_codes")
}
WITH_DENSE = ("dense", "dense, trained further")
METHODS = (*WITH_DENSE, *AFTER_DENSE, *FROM_SCRATCH)


def narrow(counts, width, max_bytes):
    """Returns a dense layer of fewer columns."""
    columns = max_bytes // (4 * len(counts))
    return keras.layers.Embedding(len(counts), columns) if columns else None


def small_layer(method, counts, width, max_bytes):
    """Returns a layer to train from scratch; `None` if none is so small."""
    if method == "narrow":
        return narrow(counts, width, max_bytes)
    try:
        found = suggest_layers(
            len(counts), width, max_bytes=max_bytes, frequencies=counts
        )
    except ValueError:
        return None
    return next((x.layer() for x in found if x.name == method), None)


class Best(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, by the score."""

    def __init__(self, data):
        super().__init__()
        self.data, self.late = data, 0

    def on_train_begin(self, logs=None):
        self.score = measured(self.model, self.data, 1)
        self.weights = self.model.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        score = measured(self.model, self.data, 1)
        self.late += 1
        if score > self.score:
            self.score, self.late = score, 0
            self.weights = self.model.get_weights()
        if self.late >= PATIENCE:
            self.model.stop_training = True


def measured(model, data, part):
    inputs, targets = data.parts[part]
    found = model.predict(inputs, batch_size=1_000, verbose=0)
    return data.score(targets, found)


def train(model, data, rate, epochs=MOST_EPOCHS):
    """Trains a model to its best epoch, and returns the score of that."""
    model.compile(keras.optimizers.Adam(rate), data.loss, jit_compile=False)
    best = Best(data)
    model.fit(
        *data.parts[0],
        batch_size=data.batch_size,
        epochs=epochs,
        callbacks=[best],
        verbose=0,
    )
    model.set_weights(best.weights)
    return best.score


class Measuring:
    """Measures rows of a data set, and keeps the dense model of a seed."""

    def __init__(self, data, seed, rate):
        self.data, self.seed, self.rate = data, seed, rate

    @functools.cached_property
    def dense(self):
        size = len(self.data.counts), self.data.width
        return self.from_scratch(lambda: keras.layers.Embedding(*size))

    def trained(self, method, ratio):
        """Returns a model, and what a row says of its training.

        `None` if the bytes are too few.
        """
        if method == "dense":
            return self.dense
        if method == "dense, trained further":
            dense, row = self.dense
            copy = keras.models.clone_model(dense)
            copy.set_weights(dense.get_weights())
            return self.trained_further(copy, row["bytes"])
        held = len(self.data.counts) * self.data.width * 4 // ratio
        if method in AFTER_DENSE:
            return self.compressed(AFTER_DENSE[method], held)
        return self.from_scratch(
            lambda: small_layer(method, self.data.counts, self.data.width, held)
        )

    def from_scratch(self, make):
        keras.utils.set_random_seed(self.seed)
        embedding = make()
        if embedding is None:
            return None
        model = self.data.model(embedding)
        stored = sum(weight.nbytes for weight in embedding.get_weights())
        score = train(model, self.data, self.rate)
        return model, {"bytes": stored, "validation": score}

    def compressed(self, method, held):
        counts = np.maximum(self.data.counts, 1)
        dense, _ = self.dense
        try:
            plan = plan_compression(
                dense, max_bytes=held, frequencies=counts, method=method
            )
        except ValueError:  # the smallest is larger
            return None
        model = compress(dense, plan, frequencies=counts)
        return self.trained_further(model, plan.bytes_after)

    def trained_further(self, model, stored):
        untuned = measured(model, self.data, 2)
        score = train(model, self.data, self.rate / 4, TUNING_EPOCHS)
        return model, {
            "bytes": stored,
            "validation": score,
            "untuned": untuned,
        }

    def row(self, method, ratio):
        """Returns what a row says, which is nothing if the bytes are few."""
        started = time.perf_counter()
        found = self.trained(method, ratio)
        if found is None:
            return {}
        model, row = found
        return {
            **row,
            "test": measured(model, self.data, 2),
            "seconds": round(time.perf_counter() - started),
        }


def run(name, options):
    """Measures the rows that the results do not have yet."""

    @functools.cache
    def measuring(seed, rate):
        return Measuring(DATA[name](options.data_dir, seed), seed, rate)

    for rate, method, ratio, seed in itertools.product(
        options.rates, METHODS, (1, *options.ratios), options.seeds
    ):
        if (ratio == 1) != (method in WITH_DENSE):
            continue
        key = {
            "data": name,
            "method": method,
            "ratio": ratio,
            "seed": seed,
            "rate": rate,
        }
        if any(key.items() <= row.items() for row in read(options.results)):
            continue
        found = measuring(seed, rate).row(method, ratio)
        add(options.results, {**key, **found})


def cell_of(rows):
    """Returns the mean score of the rate that is best in validation."""
    if not rows:
        return ""
    by_rate = {}
    for row in rows:
        by_rate.setdefault(row["rate"], []).append(row)
    rate = max(
        by_rate,
        key=lambda rate: np.mean([r["validation"] for r in by_rate[rate]]),
    )
    scores = [row["test"] for row in by_rate[rate]]
    text = f"{abs(np.mean(scores)):.4g} ± {np.std(scores):.2g}"
    return text if len(by_rate) == 1 else f"{text}, {rate:g}"


def print_table(results, name):
    rows = [r for r in read(results) if r["data"] == name and "test" in r]
    lines = [[name, *(f"{ratio}x" for ratio in RATIOS)]]
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        lines.append(
            [
                method,
                *(
                    cell_of([row for row in own if row["ratio"] in (ratio, 1)])
                    for ratio in RATIOS
                ),
            ]
        )
    print(markdown(lines, left=1))


def main():
    options = parse_options(
        __doc__.split("\n")[0],
        "from_scratch",
        [0, 1, 2],
        DATA,
        ratios=list(RATIOS),
        rates=[RATE],
    )
    for name in options.rows:
        run(name, options)
        print_table(options.results, name)
        print()


if __name__ == "__main__":
    main()
