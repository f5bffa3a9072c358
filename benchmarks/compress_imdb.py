"""What `compress` costs a trained classifier of IMDB reviews.

The classifier has mean embeddings of 25,000 words and a hidden layer. It is
trained until its validation accuracy falls. Its table is then compressed to a
twentieth of its bytes, and the model is trained for one more epoch. Counts are
taken from the training reviews.

    python benchmarks/compress_imdb.py --data-dir ../shared/data
"""

import argparse
import sys
from pathlib import Path

import keras
import numpy as np

sys.path.append(str(Path(__file__).parent / "papers"))
from tt_imdb import VOCABULARY, BestWeights, load

from keras_embcomp import compress, plan_compression
from keras_embcomp.text_tables import markdown

WIDTH, LENGTH, RATIO, EPOCHS = 128, 256, 20, 4
METHODS = ("auto", "low_rank")


def classifier():
    """Returns an untrained classifier of reviews."""
    ids = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True, name="words")(
        ids
    )
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    return keras.Model(ids, keras.layers.Dense(1, activation="sigmoid")(x))


def compiled(model, rate):
    model.compile(
        keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"]
    )
    return model


def accuracy(model, data):
    """Returns the accuracy in percent."""
    if not model.compiled:
        compiled(model, 1e-3)
    return 100 * model.evaluate(*data, 1_000, verbose=0)[1]


def measure(seed, train, validation, test):
    """Yields a row for the dense model and each compressed one."""
    keras.utils.set_random_seed(seed)
    dense, best = compiled(classifier(), 2e-3), BestWeights()
    dense.fit(
        *train,
        128,
        EPOCHS,
        validation_data=validation,
        callbacks=[best],
        verbose=0,
    )
    dense.set_weights(best.weights)
    yield "dense", "", accuracy(dense, test), None
    more = compress(dense, max_error=1e-9)  # an unchanged copy
    compiled(more, 3e-4).fit(*train, 128, 1, verbose=0)
    yield "dense, one more epoch", "", accuracy(more, test), None
    counts = np.bincount(train[0].ravel(), minlength=VOCABULARY)
    counts[0] = 0  # padding
    for method in METHODS:
        plan = plan_compression(
            dense, ratio=RATIO, frequencies=counts, method=method
        )
        small = compress(dense, plan, frequencies=counts)
        (entry,) = plan.tables
        name = f"{entry.method} {entry.number_format or ''}".strip()
        ratio = plan.bytes_before / plan.bytes_after
        after = accuracy(small, test)
        compiled(small, 3e-4).fit(*train, 128, 1, verbose=0)
        yield f"{method}: {name}", f"{ratio:.1f}", after, accuracy(small, test)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    data = load(options.data_dir, LENGTH)
    rows = {}
    for seed in options.seeds:
        for name, ratio, *found in measure(seed, *data):
            rows.setdefault((name, ratio), []).append(found)
            print(seed, name, ratio, *found, file=sys.stderr, flush=True)
    lines = [["table", "ratio", "accuracy", "after one epoch"]]
    for (name, ratio), found in rows.items():
        plain = np.mean([first for first, _ in found])
        tuned = [second for _, second in found if second is not None]
        last = f"{np.mean(tuned):.2f}" if tuned else ""
        lines.append([name, ratio, f"{plain:.2f}", last])
    print(markdown(lines, left=1))


if __name__ == "__main__":
    main()
