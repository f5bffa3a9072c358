"""A language model with a vocabulary of 800,000, on both sides, for 200 steps.

Tokens are the words of IMDB's reviews and pairs of words, the most frequent
first, so that as many of them as of the One Billion Word Benchmark follow
Zipf's law. Tables are in groups of low rank, the loss draws units in training
and is that of all units on reviews that were held out, the optimizer is
Adafactor. The perplexity of counts alone stands beside that of the model.

    python benchmarks/large_vocabulary.py --data-dir ../shared/data \\
        --output large_vocabulary.md

The folder has `imdb/imdb_train.tsv.gz` and `imdb/imdb_test.tsv.gz`, lines of
label, id, rating and text; `imdb_reviews` of TensorFlow Datasets is the same.
"""

import argparse
import gzip
import os
import re
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from keras_embcomp import (
    CrossentropyHead,
    GroupReduceEmbedding,
    GroupReduceSoftmax,
)
from keras_embcomp.budgets import (
    group_ranks_by_frequency,
    growing_groups,
)

HELD_OUT = 200  # reviews


def reviews(data_dir, part):
    """Returns the words of each review."""
    path = Path(data_dir) / "imdb" / f"imdb_{part}.tsv.gz"
    if not path.is_file():
        raise SystemExit(
            f"--data-dir {data_dir} has no file imdb/{path.name}: write one "
            "from imdb_reviews of TensorFlow Datasets"
        )
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = [line.rstrip("\n").split("\t")[-1].lower() for line in lines]
    return [re.findall(r"[a-z0-9']+", t.replace("<br />", " ")) for t in texts]


def vocabulary_of(texts, units):
    """Returns the ids of words and pairs by falling count; 0 is unknown."""
    counts = Counter(word for text in texts for word in text)
    for text in texts:
        counts.update(zip(text, text[1:], strict=False))
    return {
        token: i + 1 for i, (token, _) in enumerate(counts.most_common(units))
    }


def stream(texts, ids, units):
    """Returns the ids of texts, pairs first, and how many words they are."""
    found, words = [], 0
    for text in texts:
        place = 0
        while place < len(text):
            pair = ids.get(tuple(text[place : place + 2]), units)
            if pair < units:
                found.append(pair)
                place += 2
            else:
                word = ids.get(text[place], 0)
                found.append(word if word < units else 0)
                place += 1
        words += len(text)
    return np.array(found, "int32"), words


def sequences(ids, length):
    """Returns inputs and labels of shape `(rows, length)`."""
    rows = (len(ids) - 1) // length
    inputs, labels = ids[: rows * length], ids[1 : rows * length + 1]
    return inputs.reshape(rows, length), labels.reshape(rows, length)


def model_of(options):
    units, width = options.units, options.width
    sizes = growing_groups(units, 5)
    most = int(units * width / options.ratio)
    ranks = group_ranks_by_frequency(
        sizes, width, most, 1 / np.arange(1, units + 1)
    )
    groups = {"group_sizes": sizes, "group_ranks": ranks}
    ids = keras.Input((None,), dtype="int32")
    states = GroupReduceEmbedding(units, width, **groups)(ids)
    states = keras.layers.LSTM(width, return_sequences=True)(states)
    head = GroupReduceSoftmax(units, **groups)
    end = CrossentropyHead(head, num_sampled=options.num_sampled, seed=0)
    model = keras.Model(ids, end(states))
    # Steps of one size, whatever the size of the weights.
    optimizer = keras.optimizers.Adafactor(options.rate, epsilon_2=1.0)
    model.compile(optimizer, end.loss)
    return model


def peak():
    """Returns the most memory that the process has had, in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--output", default="large_vocabulary.md")
    parser.add_argument("--units", type=int, default=800_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--ratio", type=float, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--num-sampled", type=int, default=8_192)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--held-out", type=int, default=2_048)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    lines = []

    def say(line):
        lines.append(line)
        print(line, flush=True)
        Path(options.output).write_text("\n".join(lines) + "\n")

    train = reviews(options.data_dir, "train")
    np.random.default_rng(0).shuffle(train)  # they are sorted by label
    test = reviews(options.data_dir, "test")
    np.random.default_rng(1).shuffle(test)
    ids = vocabulary_of(train, options.units - 1)
    tokens, _ = stream(train, ids, options.units)
    held, words = stream(test[:HELD_OUT], ids, options.units)
    counts = np.bincount(tokens, minlength=options.units)
    del train, test, ids
    say(
        f"{len(tokens):,} tokens to train on, of {np.sum(counts > 0):,} kinds;"
        f" held out {len(held):,} tokens, {words:,} words."
    )
    start = peak()
    x, y = sequences(tokens, options.length)
    held_x, held_y = sequences(held, options.length)
    most = -(-options.held_out // options.length)
    held_x, held_y = held_x[:most], held_y[:most]
    chances = (counts + 1) / (counts.sum() + options.units)
    unigram = np.exp(-np.mean(np.log(chances[held_y])))
    model = model_of(options)
    dense = 2 * options.units * options.width + options.units
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    kept = sum(np.prod(v.shape) for v in optimizer.variables)
    say(
        f"{model.count_params():,} parameters (tables: {dense:,} if dense), "
        f"{kept:,.0f} numbers of the optimizer."
    )

    def evaluated():
        loss = model.evaluate(
            held_x, held_y, batch_size=options.batch_size, verbose=0
        )
        return np.exp(loss)

    say("")
    say("| steps | loss, sampled | held-out perplexity | s/step | peak, GiB |")
    say("|---|---|---|---|---|")
    say(f"| counts alone | | {unigram:,.0f} | | |")
    say(f"| 0 | | {evaluated():,.0f} | | {peak():.1f} |")
    order = np.random.default_rng(2).permutation(len(x))
    losses, times, size = [], [], options.batch_size
    for step in range(1, options.steps + 1):
        rows = order[(step - 1) * size : step * size]
        model.reset_metrics()
        begin = time.perf_counter()
        losses.append(model.train_on_batch(x[rows], y[rows]))
        times.append(time.perf_counter() - begin)
        if step % 20 == 0:
            perplexity = ""
            if step % 100 == 0 or step == options.steps:
                perplexity = f"{evaluated():,.0f}"
            say(
                f"| {step} | {np.mean(losses[-20:]):.3f} | {perplexity} "
                f"| {np.median(times[-20:]):.2f} | {peak():.1f} |"
            )
    say("")
    say(f"Reading the text took {start:.1f} GiB at its peak.")


if __name__ == "__main__":
    main()
