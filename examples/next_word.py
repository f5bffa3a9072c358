"""Predicts the next word, with compressed inputs and outputs.

A feed-forward language model (Bengio et al., 2003) is trained on BBC News from
scratch, with dense tables and with those of each method. The table printed at
the end has the perplexity of each on articles that it has not seen.

    python examples/next_word.py --output next_word
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from text_datasets import load
from text_pipeline import frequent_words, split_words

from keras_embcomp import (
    DistilledEmbedding,
    DistilledSoftmax,
    GroupReduceEmbedding,
    GroupReduceSoftmax,
    HashedEmbedding,
    HashedSoftmax,
    LowRankEmbedding,
    LowRankSoftmax,
    ProductQuantizedEmbedding,
    ProductQuantizedSoftmax,
    TTEmbedding,
    TTSoftmax,
)
from keras_embcomp.budgets import (
    group_ranks_by_frequency,
    growing_groups,
)

CONTEXT, WIDTH, HIDDEN = 5, 64, 128
UNKNOWN = 0


def groups(size, width):
    """Returns four groups at an eighth of the size, for Zipf's frequencies."""
    sizes = growing_groups(size, 4)
    ranks = group_ranks_by_frequency(
        sizes, width, size * width // 8, 1 / np.arange(1, size + 1)
    )
    return {"group_sizes": sizes, "group_ranks": ranks}


# From the vocabulary to the input and the output layer.
METHODS = {
    "dense": lambda size: (
        keras.layers.Embedding(size, WIDTH),
        keras.layers.Dense(size, activation="softmax"),
    ),
    "low_rank": lambda size: (
        LowRankEmbedding(size, WIDTH, rank=16),
        LowRankSoftmax(size, rank=16),
    ),
    "tensor_train": lambda size: (
        TTEmbedding(size, WIDTH, tt_ranks=32),
        TTSoftmax(size, tt_ranks=32),
    ),
    "hashed": lambda size: (
        HashedEmbedding(size, WIDTH, num_subvectors=size, num_parts=8),
        HashedSoftmax(size, num_subvectors=size, num_parts=8),
    ),
    "product_codes": lambda size: (
        ProductQuantizedEmbedding(size, WIDTH, num_parts=16, part_width=4),
        ProductQuantizedSoftmax(size, num_parts=16, part_width=8),
    ),
    "distilled": lambda size: (
        DistilledEmbedding(size, WIDTH, rank=16, hidden_dim=64),
        DistilledSoftmax(size, rank=16),
    ),
    "group_reduce": lambda size: (
        GroupReduceEmbedding(size, WIDTH, **groups(size, WIDTH)),
        GroupReduceSoftmax(size, **groups(size, HIDDEN)),
    ),
}


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
        model = language_model(*METHODS[method](len(words) + 1))
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
