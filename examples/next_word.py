"""Predicts the next word, with compressed inputs and outputs.

A feed-forward language model (Bengio et al., 2003) is trained on BBC News from
scratch, with dense tables and with the tables of each method. The example
prints the perplexity of each model on articles that it has not seen.

    python examples/next_word.py --output next_word
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from small_tables import UNTRAINED
from text_datasets import load
from text_pipeline import frequent_words, split_words

CONTEXT, WIDTH, HIDDEN = 5, 64, 128
UNKNOWN = 0


DENSE = "dense"
METHODS = (DENSE, *UNTRAINED)


def layers_of(method, size):
    """Returns the input and the output layer for a vocabulary of a size."""
    if method == DENSE:
        return (
            keras.layers.Embedding(size, WIDTH),
            keras.layers.Dense(size, activation="softmax"),
        )
    tables = UNTRAINED[method]
    return tables.embedding(size, WIDTH), tables.softmax(size, HIDDEN)


def windows(texts, words):
    """Returns the ids of every `CONTEXT` words and of the word after them."""
    ids_of_words = {word: i + 1 for i, word in enumerate(words)}
    contexts, nexts = [], []
    for row in split_words(texts):
        ids = [
            ids_of_words.get(word.decode("utf-8"), UNKNOWN)
            for word in row.numpy()
        ]
        if len(ids) > CONTEXT:
            slices = np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1)
            contexts.append(slices[:, :-1])
            nexts.append(slices[:, -1])
    nexts = np.concatenate(nexts).astype("int32")
    return np.concatenate(contexts).astype("int32"), nexts


def language_model(embedding, softmax):
    """Returns a model from `CONTEXT` ids to the probabilities of the next."""
    ids = keras.Input((CONTEXT,), dtype="int32", name="ids")
    x = keras.layers.Flatten()(embedding(ids))
    x = keras.layers.Dense(HIDDEN, activation="relu")(x)
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(ids, softmax(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, help="folder for the models")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS)
    )
    parser.add_argument("--words", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="fewer words, less text"
    )
    options = parser.parse_args()
    if options.quick:
        options.words //= 10
    splits = load("bbc_news")
    words = frequent_words(splits.train.texts, options.words - 1)
    train = windows(splits.train.texts, words)
    if options.quick:
        train = [array[:20_000] for array in train]
    test = windows(splits.test.texts, words)
    lines = ["| tables | parameters | perplexity |", "|---|---|---|"]
    for method in options.methods:
        keras.utils.set_random_seed(options.seed)
        model = language_model(*layers_of(method, len(words) + 1))
        model.compile(
            keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy"
        )
        model.fit(*train, batch_size=512, epochs=options.epochs, verbose=2)
        perplexity = np.exp(model.evaluate(*test, batch_size=512, verbose=0))
        lines.append(
            f"| {method} | {model.count_params():,} | {perplexity:.1f} |"
        )
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
            model.save(options.output / f"{method}.keras")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
