"""Predicts the next word with a low-rank input and a low-rank output.

A feed-forward language model (Bengio et al., 2003) is trained twice on BBC
News, with dense tables and with low-rank ones, from scratch. The table printed
at the end has the perplexity of each on articles that it has not seen.

    python examples/next_word.py --output next_word.keras
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from text_datasets import load
from text_pipeline import frequent_words, split_words

from keras_embcomp import LowRankEmbedding, LowRankSoftmax

CONTEXT, WIDTH, HIDDEN = 5, 64, 128
UNKNOWN = 0


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
    parser.add_argument("--output", type=Path, help="file for the small model")
    parser.add_argument("--words", type=int, default=10_000)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    splits = load("bbc_news")
    words = frequent_words(splits.train.texts, options.words - 1)
    train = windows(splits.train.texts, words)
    test = windows(splits.test.texts, words)
    size = len(words) + 1
    models = {
        "dense": language_model(
            keras.layers.Embedding(size, WIDTH),
            keras.layers.Dense(size, activation="softmax", name="next_word"),
        ),
        "low rank": language_model(
            LowRankEmbedding(size, WIDTH, options.rank),
            LowRankSoftmax(size, options.rank, name="next_word"),
        ),
    }
    lines = ["| model | parameters | perplexity |", "|---|---|---|"]
    for name, model in models.items():
        model.compile(
            keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy"
        )
        model.fit(*train, batch_size=512, epochs=options.epochs)
        perplexity = np.exp(model.evaluate(*test, batch_size=512, verbose=0))
        lines.append(
            f"| {name} | {model.count_params():,} | {perplexity:.1f} |"
        )
    print("\n".join(lines))
    if options.output:
        models["low rank"].save(options.output)


if __name__ == "__main__":
    main()
