"""A language model with a vocabulary of 800,000, on both sides, for 200 steps.

Tokens are the most frequent words and pairs of words of IMDB's reviews. Like
the words of the One Billion Word Benchmark, they are 800,000 and follow Zipf's
law. Both tables are in groups of low rank, and the optimizer is Adafactor. In
training the loss draws units; on reviews that were held out it takes all of
them. For comparison, one row is the perplexity of the counts alone.

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
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from memory import status_bytes
from methods import zipf_groups

from keras_embcomp import (
    CrossentropyHead,
    GroupReduceEmbedding,
    GroupReduceSoftmax,
)

HELD_OUT = 200  # reviews
MEASURED_EVERY, EVALUATED_EVERY = 20, 100  # steps


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
    """Returns ids of words and pairs, by falling count; 0 is unknown."""
    counts = Counter(word for text in texts for word in text)
    for text in texts:
        counts.update(zip(text, text[1:], strict=False))
    return {
        token: i + 1 for i, (token, _) in enumerate(counts.most_common(units))
    }


def stream(texts, ids, units):
    """Returns the ids of texts, of pairs if possible, and the word count."""
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
    groups = zipf_groups(units, width, options.ratio)
    ids = keras.Input((None,), dtype="int32")
    states = GroupReduceEmbedding(units, width, **groups)(ids)
    states = keras.layers.LSTM(width, return_sequences=True)(states)
    head = GroupReduceSoftmax(units, **groups)
    end = CrossentropyHead(head, num_sampled=options.num_sampled, seed=0)
    model = keras.Model(ids, end(states))
    # The size of a step does not depend on the size of the weights.
    optimizer = keras.optimizers.Adafactor(options.rate, epsilon_2=1.0)
    model.compile(optimizer, end.loss)
    return model


def peak():
    """Returns the peak memory of the process, in GiB."""
    return status_bytes("VmHWM") / 2**30


class Data(NamedTuple):
    """Sequences of ids with their labels, and the counts of all ids.

    Attributes:
        train: Inputs and labels to train on.
        held: Held-out inputs and labels.
        counts: How often each id occurs in the texts to train on.
        summary: A sentence with the sizes.
    """

    train: tuple
    held: tuple
    counts: np.ndarray
    summary: str

    def unigram_perplexity(self):
        """Returns the held-out perplexity of the counts alone."""
        chances = (self.counts + 1) / (self.counts.sum() + len(self.counts))
        return np.exp(-np.mean(np.log(chances[self.held[1]])))


def read(options):
    """Returns the data of the reviews."""
    train = reviews(options.data_dir, "train")
    np.random.default_rng(0).shuffle(train)  # they are sorted by label
    test = reviews(options.data_dir, "test")
    np.random.default_rng(1).shuffle(test)
    ids = vocabulary_of(train, options.units - 1)
    tokens, _ = stream(train, ids, options.units)
    held, words = stream(test[:HELD_OUT], ids, options.units)
    counts = np.bincount(tokens, minlength=options.units)
    most = -(-options.held_out // options.length)
    return Data(
        sequences(tokens, options.length),
        tuple(part[:most] for part in sequences(held, options.length)),
        counts,
        f"{len(tokens):,} tokens to train on, of {np.sum(counts > 0):,} kinds;"
        f" held out {len(held):,} tokens, {words:,} words.",
    )


def sizes_of(model, options):
    """Returns a sentence with the sizes of a model and its optimizer."""
    dense = 2 * options.units * options.width + options.units
    model.optimizer.build(model.trainable_variables)
    kept = sum(np.prod(v.shape) for v in model.optimizer.variables)
    return (
        f"{model.count_params():,} parameters (tables: {dense:,} if dense), "
        f"{kept:,.0f} numbers of the optimizer."
    )


def trained(model, data, options):
    """Trains a model and yields rows of the table.

    A row has the steps, the loss of the last steps, the held-out perplexity
    (`None` where it is not measured), the seconds of a step, and the memory.
    """

    def evaluated():
        size = options.batch_size
        return np.exp(model.evaluate(*data.held, batch_size=size, verbose=0))

    yield 0, None, evaluated(), None, peak()
    inputs, labels = data.train
    order = np.random.default_rng(2).permutation(len(inputs))
    losses, times, size = [], [], options.batch_size
    for step in range(1, options.steps + 1):
        rows = order[(step - 1) * size : step * size]
        model.reset_metrics()
        begin = time.perf_counter()
        losses.append(model.train_on_batch(inputs[rows], labels[rows]))
        times.append(time.perf_counter() - begin)
        if step % MEASURED_EVERY == 0:
            last = step % EVALUATED_EVERY == 0 or step == options.steps
            yield (
                step,
                np.mean(losses[-MEASURED_EVERY:]),
                evaluated() if last else None,
                np.median(times[-MEASURED_EVERY:]),
                peak(),
            )


def line(steps, loss=None, perplexity=None, seconds=None, memory=None):
    """Returns a line of the table; a cell without a number is empty."""
    numbers = (loss, ".3f"), (perplexity, ",.0f"), (seconds, ".2f")
    cells = ["" if x is None else f"{x:{form}}" for x, form in numbers]
    memory = "" if memory is None else f"{memory:.1f}"
    return f"| {steps} | {' | '.join(cells)} | {memory} |"


def parse_options():
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
    return parser.parse_args()


def report(options):
    """Trains a model on the reviews, and yields the lines of the report."""
    data = read(options)
    yield data.summary
    start = peak()
    model = model_of(options)
    yield sizes_of(model, options)
    yield ""
    yield "| steps | loss, sampled | held-out perplexity | s/step | peak, GiB |"
    yield "|---|---|---|---|---|"
    yield line("counts alone", perplexity=data.unigram_perplexity())
    for row in trained(model, data, options):
        yield line(*row)
    yield f"\nReading the text took {start:.1f} GiB at its peak."


def main():
    options = parse_options()
    keras.utils.set_random_seed(0)
    lines = []
    for each in report(options):
        lines.append(each)
        print(each, flush=True)
        Path(options.output).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
