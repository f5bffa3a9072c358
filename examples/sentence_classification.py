"""Trains a text classifier, removes 90 % of its embedding, and ships it.

The articles of BBC News are tokenised with TensorFlow Text. A dense model is
trained, and a low-rank embedding replaces its embedding. The small model is
fine-tuned with a cyclically annealed learning rate, written as `.keras`,
`.tflite` and SavedModel, reloaded from each, and compared with the dense one.

    python examples/sentence_classification.py
    python examples/sentence_classification.py --dataset sst2 \\
        --data-dir ../shared/data

The example writes `table.md`, `results.json`, two plots, the vocabulary, the
labels, the dense model, and the fine-tuned one in the three formats.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

try:
    import keras
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from artefacts import (
        check_agreement,
        export,
        new_folder,
        predicted_labels,
        without_optimizer,
    )
    from comparison import lookup_ratios, markdown_table, plot_comparison
    from text_datasets import NAMES, load
    from text_pipeline import TextToIds, frequent_words, write_vocabulary

    from keras_embcomp import CyclicallyAnnealedLearningRate, LowRankEmbedding
    from keras_embcomp.budgets import (
        low_rank_from_fraction,
    )
except ModuleNotFoundError as error:
    raise SystemExit(
        f"This example needs the package {error.name}: "
        "pip install 'keras_embcomp[examples]'"
    ) from error

KEPT_FRACTION = 0.1
MOST_WORDS = 30_000
MOST_IDS = {"sst2": 64, "mr": 64}
PROJECT = Path(__file__).resolve().parents[1]


def classifier(embedding, length, num_labels):
    """Returns a model: the mean of the words' embeddings, then two layers."""
    ids = keras.Input((length,), dtype="int32", name="ids")
    hidden = keras.layers.GlobalAveragePooling1D()(embedding(ids))
    hidden = keras.layers.Dropout(0.3)(hidden)
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(hidden)
    hidden = keras.layers.Dropout(0.3)(hidden)
    output = keras.layers.Dense(
        num_labels, activation="softmax", name="probabilities"
    )
    return keras.Model(ids, output(hidden))


def compress_embedding(model):
    """Returns a copy of a classifier with a low-rank embedding."""
    dense = model.get_layer("embedding")
    rank = low_rank_from_fraction(
        dense.input_dim, dense.output_dim, KEPT_FRACTION
    )
    embedding = LowRankEmbedding.from_layer(dense, rank=rank)
    small = classifier(embedding, model.input_shape[1], model.output_shape[1])
    for name in ("hidden", "probabilities"):
        weights = model.get_layer(name).get_weights()
        small.get_layer(name).set_weights(weights)
    return small


def train(model, data, epochs, batch_size, callbacks=()):
    """Fits a model and leaves it at its best epoch on the validation split."""
    model.compile(
        keras.optimizers.Adam(2e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    best_epoch = keras.callbacks.EarlyStopping(
        "val_loss", patience=epochs, restore_best_weights=True
    )
    model.fit(
        *data["train"],
        validation_data=data["validation"],
        batch_size=batch_size,
        epochs=epochs,
        callbacks=[*callbacks, best_epoch],
        verbose=1 if sys.stdout.isatty() else 2,
    )


def measure(name, model, exports, test):
    """Returns a row of the table, except for the lookup time."""
    ids, labels = test
    predicted = predicted_labels(model, ids)
    row = {
        "model": name,
        "test_accuracy": float((predicted == labels).mean()),
        "embedding_parameters": model.get_layer("embedding").count_params(),
        "model_parameters": model.count_params(),
        **exports.sizes(),
    }
    print(f"The {name} model: test accuracy {row['test_accuracy']:.2%}")
    return row


def measure_only(name, model, text_to_ids, test, folder):
    """Returns the row of a model whose exports are not kept."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        exports = export(model, Path(temporary), text_to_ids)
        return measure(name, model, exports, test)


def run(options, folder):
    """Trains, compresses, fine-tunes, exports and compares."""
    keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    width = 64 if options.quick else 256
    epochs = options.epochs or (5 if options.quick else 10)

    splits = load(options.dataset, options.data_dir, options.seed)
    words = frequent_words(splits.train.texts, MOST_WORDS)
    write_vocabulary(folder / "vocabulary.txt", words)
    text_to_ids = TextToIds(words, MOST_IDS.get(options.dataset, 256))
    data = {
        name: (text_to_ids(tf.constant(split.texts)).numpy(), split.labels)
        for name, split in splits.parts()
    }
    print(
        f"{options.dataset}: {len(splits.train):,} texts to train on, "
        f"{len(splits.validation):,} to validate on, {len(splits.test):,} to "
        f"test on; {len(splits.label_names)} labels; "
        f"{text_to_ids.vocabulary_size:,} ids"
    )

    print("Training the dense model")
    embedding = keras.layers.Embedding(
        text_to_ids.vocabulary_size, width, mask_zero=True, name="embedding"
    )
    dense = classifier(embedding, text_to_ids.length, len(splits.label_names))
    batch_size = max(32, len(splits.train) // 100)
    train(dense, data, epochs, batch_size)
    test = data["test"]
    rows = [measure_only("dense", dense, text_to_ids, test, folder)]
    without_optimizer(dense).save(folder / "dense.keras")

    small = compress_embedding(dense)
    rank = small.get_layer("embedding").rank
    print(f"Replacing the embedding of width {width} with one of rank {rank}")
    rows.append(measure_only("compressed", small, text_to_ids, test, folder))

    print("Fine-tuning the compressed model")
    steps = math.ceil(len(splits.train) / batch_size)
    cycle = CyclicallyAnnealedLearningRate(
        1e-3, 1e-5, step_size=max(steps // 2, 1), decay_rate=0.5, decay_epochs=1
    )
    train(small, data, epochs, batch_size, [cycle])
    exports = export(small, folder, text_to_ids)
    rows.append(measure("fine-tuned", small, exports, test))
    check_agreement(small, exports, splits.test.texts, test[0])

    layers = [model.get_layer("embedding") for model in (dense, small)]
    ratios = lookup_ratios(layers, test[0][:64])
    for row, ratio in zip(rows, [*ratios, ratios[-1]], strict=True):
        row["lookup_ratio"] = ratio

    write_results(folder, rows, options, splits)
    plot_comparison(folder / "comparison.png", rows[0], rows[-1], len(test[0]))
    cycle.plot(folder / "learning_rate.png", epochs, steps)
    write_lines(folder / "labels.txt", splits.label_names)


def write_results(folder, rows, options, splits):
    """Prints the table, and writes it as Markdown and as JSON."""
    num_test_texts = len(splits.test)
    note = (
        f"{options.dataset}, seed {options.seed}. There are "
        f"{num_test_texts:,} test texts, so one text is "
        f"{1 / num_test_texts:.2%} of accuracy. The SavedModel also holds the "
        "tokenizer and its words. Lookup time is measured for a batch of ids, "
        "relative to the dense layer."
    )
    table = markdown_table(rows)
    print(f"\n{table}\n\n{note}\n")
    write_lines(folder / "table.md", [table, "", note])
    results = {
        "dataset": options.dataset,
        "seed": options.seed,
        "test_texts": num_test_texts,
        "rows": rows,
    }
    write_lines(folder / "results.json", [json.dumps(results, indent=2)])


def write_lines(path, lines):
    """Writes lines of text as UTF-8."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def parse_options(arguments=None):
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", choices=NAMES, default="bbc_news")
    parser.add_argument(
        "--data-dir", help="folder of the local data sets: sst2, mr and imdb"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=PROJECT / "saved_models" / time.strftime("run-%Y%m%d-%H%M%S"),
        help="new folder for the results",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="of each of the two fits")
    parser.add_argument(
        "--quick", action="store_true", help="narrower model, fewer epochs"
    )
    options = parser.parse_args(arguments)
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs must be 1 or more, not {options.epochs}")
    if options.seed < 0:
        parser.error(f"--seed must be 0 or more, not {options.seed}")
    return options


if __name__ == "__main__":
    started = time.perf_counter()
    chosen = parse_options()
    with new_folder(chosen.output) as new:
        run(chosen, new)
    seconds = time.perf_counter() - started
    print(f"Wrote {chosen.output} in {seconds:.0f} s")
