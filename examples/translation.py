"""Translates with one small table for source, target and output.

A Transformer with one dense table of subwords on all three sides is trained on
English and German (Multi30k) with `--data-dir`, or else on the TED talks of
TensorFlow Datasets, Portuguese to English. Each method then compresses the
table to the same size, and the model is trained further; for the distilled
tables with `EmbeddingDistiller`, the paper's third stage. The example prints
BLEU, greedy and with a beam, and plots BLEU against the bytes of the file.

    python examples/translation.py --data-dir DATA --output translation
"""

import argparse
import bisect
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from matplotlib.figure import Figure
from small_tables import FITTED
from translation_data import DATASET, Subwords, arrays, load, token_counts
from translation_model import (
    HEADS,
    bleu,
    dense_tokens,
    smoothed_loss,
    train,
    transformer,
    with_tokens,
)

from keras_embcomp import EmbeddingDistiller

RATE = 3e-3
DISTILLED = ("distilled", "hidden layer")


def fine_tuned(method, teacher, data, options):
    """Returns the teacher with a small table, trained further."""
    keras.utils.set_random_seed(options.seed)
    counts = token_counts(data, teacher.tokens.input_dim)
    tokens = FITTED[method](teacher.tokens, options.ratio, counts)
    student = with_tokens(teacher, tokens, options.width)
    trained = student
    if method in DISTILLED:
        trained = EmbeddingDistiller(student, teacher)
    train(trained, data, options.more_epochs, RATE)
    return student


def smaller_width(size, width, target):
    """Returns the largest width of a dense model with at most `target`."""
    widths = range(HEADS, width + 1, HEADS)

    def numbers(narrow):
        return transformer(dense_tokens(size, narrow), narrow).count_params()

    fitting = bisect.bisect_right(widths, target, key=numbers)
    return widths[max(fitting - 1, 0)]


def plot(path, rows):
    """Plots the BLEU of the beam against the bytes of each file."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, _, size, _, score in rows:
        axes.plot(size / 1e6, score, "o", label=name)
    axes.legend(frameon=False)
    axes.set(xlabel="MB of the .keras file", ylabel="BLEU")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


class Evaluation:
    """Saves models and measures them on the test sentences."""

    def __init__(self, output, test, subwords, length):
        self.output, self.subwords = output, subwords
        self.sources = subwords.ids(test.sources, length)
        self.references = test.targets
        self.rows = []
        output.mkdir(parents=True, exist_ok=True)

    def add(self, name, model):
        path = self.output / f"{name.replace(' ', '_')}.keras"
        model.compile(loss=smoothed_loss)  # drops the optimizer's state
        model.save(path)
        scores = [
            bleu(model, self.sources, self.references, self.subwords, beams)
            for beams in (1, 4)
        ]
        table = model.tokens.count_params()
        self.rows.append((name, table, path.stat().st_size, *scores))

    def show(self):
        plot(self.output / "bleu.png", self.rows)
        print(
            "| model | numbers in the table | .keras bytes | BLEU greedy "
            "| BLEU beam 4 |\n|---|---:|---:|---:|---:|"
        )
        for row in self.rows:
            print("| {} | {:,} | {:,} | {:.2f} | {:.2f} |".format(*row))


def dense_model(size, width, data, epochs, seed):
    """Returns a model with a dense table, trained from scratch."""
    keras.utils.set_random_seed(seed)
    model = transformer(dense_tokens(size, width), width)
    train(model, data, epochs, RATE)
    return model


def parse_options():
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="folder with multi30k")
    parser.add_argument("--dataset", default=DATASET)
    parser.add_argument(
        "--output", type=Path, default=Path("build/translation")
    )
    parser.add_argument(
        "--methods", nargs="+", choices=FITTED, default=list(FITTED)
    )
    parser.add_argument("--subwords", type=int, default=8_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--more-epochs", type=int, default=2)
    parser.add_argument("--ratio", type=float, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a tiny model; without --data-dir, of Django's German messages",
    )
    options = parser.parse_args()
    if options.quick:
        options.subwords, options.width, options.length = 1_000, 32, 24
        options.epochs = options.more_epochs = 1
        options.methods = options.methods[:1]
        if options.data_dir is None:
            options.dataset = "django"
    return options


def main():
    options = parse_options()
    training, _, test = load(options.data_dir, options.dataset)
    print(f"{len(training):,} pairs to train on, {len(test):,} to test on")
    subwords = Subwords.learned(
        training.sources + training.targets, options.subwords
    )
    size = len(subwords.pieces)
    data = arrays(training, subwords, options.length)
    evaluation = Evaluation(options.output, test, subwords, options.length)
    teacher = dense_model(
        size, options.width, data, options.epochs, options.seed
    )
    evaluation.add("dense", teacher)
    for method in options.methods:
        model = fine_tuned(method, teacher, data, options)
        evaluation.add(method, model)
    width = smaller_width(size, options.width, model.count_params())
    epochs = options.epochs + options.more_epochs
    narrow = dense_model(size, width, data, epochs, options.seed)
    evaluation.add("smaller dense", narrow)
    evaluation.show()


if __name__ == "__main__":
    main()
