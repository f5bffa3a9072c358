"""Translates with one small table for source, target and output.

A Transformer is trained on English and German (Multi30k) with `--data-dir`, or
else on the TED talks of TensorFlow Datasets, Portuguese to English, with one
dense table of subwords on all three sides. The table is then compressed by each
method to the same size and the model trained further: with
`EmbeddingDistiller`, the paper's third stage, for the distilled tables. The
table printed at the end has BLEU, greedy and with a beam; a plot has it against
bytes.

    python examples/translation.py --data-dir DATA --output translation
"""

import argparse
import bisect
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from matplotlib.figure import Figure
from translation_data import DATASET, Subwords, arrays, load
from translation_methods import METHODS, dense_tokens, token_counts
from translation_model import (
    HEADS,
    bleu,
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
    tokens = METHODS[method](teacher.tokens, options.ratio, counts)
    student = with_tokens(teacher, tokens, options.width)
    trained = student
    if method in DISTILLED:
        trained = EmbeddingDistiller(student, teacher)
    train(trained, data, options.more_epochs, RATE)
    return student


def smaller_width(size, width, target):
    """Returns the width of a dense model that has at most so many numbers."""
    widths = range(HEADS, width + 1, HEADS)

    def numbers(narrow):
        return transformer(dense_tokens(size, narrow), narrow).count_params()

    fitting = bisect.bisect_right(widths, target, key=numbers)
    return widths[max(fitting - 1, 0)]


def plot(path, rows):
    """Draws BLEU, of the beam, against the bytes of each model's file."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, _, size, _, score in rows:
        axes.plot(size / 1e6, score, "o", label=name)
    axes.legend(frameon=False)
    axes.set(xlabel="MB of the .keras file", ylabel="BLEU")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="folder with multi30k")
    parser.add_argument("--dataset", default=DATASET)
    parser.add_argument(
        "--output", type=Path, default=Path("build/translation")
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS)
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
    training, _, test = load(options.data_dir, options.dataset)
    print(f"{len(training):,} pairs to train on, {len(test):,} to test on")
    subwords = Subwords.learned(
        training.sources + training.targets, options.subwords
    )
    size = len(subwords.pieces)
    data = arrays(training, subwords, options.length)
    sources = subwords.ids(test.sources, options.length)
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []

    def add_row(name, model):
        path = options.output / f"{name.replace(' ', '_')}.keras"
        model.compile(loss=smoothed_loss)  # without what Adam remembers
        model.save(path)
        scores = [
            bleu(model, sources, test.targets, subwords, beams)
            for beams in (1, 4)
        ]
        table = model.tokens.count_params()
        rows.append((name, table, path.stat().st_size, *scores))

    keras.utils.set_random_seed(options.seed)
    teacher = transformer(dense_tokens(size, options.width), options.width)
    train(teacher, data, options.epochs, RATE)
    add_row("dense", teacher)
    for method in options.methods:
        model = fine_tuned(method, teacher, data, options)
        add_row(method, model)
    width = smaller_width(size, options.width, model.count_params())
    keras.utils.set_random_seed(options.seed)
    narrow = transformer(dense_tokens(size, width), width)
    train(narrow, data, options.epochs + options.more_epochs, RATE)
    add_row("smaller dense", narrow)
    plot(options.output / "bleu.png", rows)
    print(
        "| model | numbers in the table | .keras bytes | BLEU greedy "
        "| BLEU beam 4 |\n|---|---:|---:|---:|---:|"
    )
    for row in rows:
        print("| {} | {:,} | {:,} | {:.2f} | {:.2f} |".format(*row))


if __name__ == "__main__":
    main()
