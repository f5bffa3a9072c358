"""Distilled embeddings on Multi30k: the experiment of Lioutas et al. 2020.

A Transformer with one table for source, target and output is trained. Each
method compresses the table at 4, 8 and 16 times and the model is fine-tuned, in
one budget for all. BLEU is measured on test_2016. At 8 times there are three
seeds, and rows that leave out a part of the method. "distilled" is the paper's
form; "hidden layer" is this library's.

The teacher and each row are saved when they are done. A second run continues
where the first stopped.

    python benchmarks/papers/distilled_multi30k.py --data-dir ../shared/data
"""

import sys
import time
from pathlib import Path

import keras
import numpy as np
from results import add, parse_options, read

# The model and the text come from the example.
sys.path.append(str(Path(__file__).parents[2] / "examples"))

from small_tables import FITTED, hidden  # noqa: E402
from translation_data import (  # noqa: E402
    Subwords,
    arrays,
    load,
    token_counts,
)
from translation_model import (  # noqa: E402
    bleu,
    dense_tokens,
    train,
    transformer,
    with_tokens,
)

from keras_embcomp import DistilledEmbedding, EmbeddingDistiller  # noqa: E402
from keras_embcomp.text_tables import markdown  # noqa: E402

SUBWORDS, WIDTH, LENGTH = 4_000, 128, 24
EPOCHS, MORE_EPOCHS, RATE = 8, 2, 3e-3


def random_start(layer, ratio, counts):
    """Returns a table without the paper's second stage."""
    config = hidden(layer, ratio, counts, epochs=1).get_config()
    tokens = DistilledEmbedding.from_config(config)
    tokens.build()
    return tokens


def frozen(layer, ratio, counts):
    """Returns a fitted table that is not trained further."""
    return hidden(layer, ratio, counts, trainable=False)


def linear(layer, ratio, counts):
    """Returns a fitted table without ReLU."""
    return hidden(layer, ratio, counts, activation="linear")


def _rows():
    """Yields name, function that makes the table, ratio, alpha and seeds."""
    yield "dense, trained further", None, 1, 0.0, (0,)
    yield "distilled, 8x", FITTED["distilled"], 8, 0.01, (0, 1, 2)
    for ratio, seeds in ((8, (0, 1, 2)), (4, (0,)), (16, (0,))):
        for name in ("hidden layer", "low rank", "GroupReduce"):
            alpha = 0.01 if name == "hidden layer" else 0.0
            yield f"{name}, {ratio}x", FITTED[name], ratio, alpha, seeds
    yield "hidden layer, 8x, no ReLU", linear, 8, 0.01, (0,)
    yield "hidden layer, 8x, no distillation", hidden, 8, 0.0, (0,)
    yield "hidden layer, 8x, random start", random_start, 8, 0.01, (0,)
    yield "hidden layer, 8x, frozen table", frozen, 8, 0.01, (0,)


ROWS = {name: row for name, *row in _rows()}


class Experiment:
    """The data, the subwords and the teacher, saved with the results."""

    def __init__(self, options):
        self.results = options.results
        training, _, test = load(options.data_dir)
        path = self.results.with_suffix(".subwords.txt")
        if not path.exists():
            texts = training.sources + training.targets
            pieces = Subwords.learned(texts, SUBWORDS).pieces
            path.write_text("\n".join(pieces))
        self.subwords = Subwords(path.read_text().split("\n"))
        self.size = len(self.subwords.pieces)
        self.data = arrays(training, self.subwords, LENGTH)
        self.sources = self.subwords.ids(test.sources, LENGTH)
        self.references = test.targets
        self.teacher = self._trained_teacher()

    def _trained_teacher(self):
        keras.utils.set_random_seed(0)
        teacher = transformer(dense_tokens(self.size, WIDTH), WIDTH)
        path = self.results.with_suffix(".weights.h5")
        if not path.exists():
            start = time.time()
            train(teacher, self.data, EPOCHS, RATE, verbose=2)
            teacher.save_weights(path)
            self._add("dense", 0, teacher, start)
        teacher.load_weights(path)
        return teacher

    def run(self, name, seed):
        """Trains one row, unless it is done."""
        if (name, seed) in {(r["name"], r["seed"]) for r in read(self.results)}:
            return
        make, ratio, alpha, _ = ROWS[name]
        keras.utils.set_random_seed(seed)
        start = time.time()
        if make is None:
            tokens = dense_tokens(self.size, WIDTH)
        else:
            counts = token_counts(self.data, self.size)
            tokens = make(self.teacher.tokens, ratio, counts)
        student = with_tokens(self.teacher, tokens, WIDTH)
        if make is None:
            tokens.set_weights(self.teacher.tokens.get_weights())
        before = self._bleu(student)
        trained = student
        if alpha:
            trained = EmbeddingDistiller(student, self.teacher, alpha)
        train(trained, self.data, MORE_EPOCHS, RATE, verbose=2)
        self._add(name, seed, student, start, before=before)

    def _bleu(self, model, num_beams=1):
        return bleu(
            model, self.sources, self.references, self.subwords, num_beams
        )

    def _add(self, name, seed, model, start, **more):
        row = {
            "name": name,
            "seed": seed,
            "numbers": model.tokens.count_params(),
            "greedy": self._bleu(model),
            "beam": self._bleu(model, 4),
            **more,
        }
        add(self.results, {**row, "seconds": time.time() - start})


def table(rows):
    """Returns the Markdown table, with one line per name."""
    lines = [
        [
            "table",
            "numbers",
            "ratio",
            "seeds",
            "BLEU before",
            "BLEU, greedy",
            "BLEU, beam 4",
            "seconds",
        ]
    ]
    dense = next(row["numbers"] for row in rows if row["name"] == "dense")
    for name in ("dense", *ROWS):
        chosen = [row for row in rows if row["name"] == name]
        if not chosen:
            continue
        before, greedy, beam, seconds = (
            np.mean([row.get(key, np.nan) for row in chosen])
            for key in ("before", "greedy", "beam", "seconds")
        )
        before = "" if name == "dense" else f"{before:.2f}"
        numbers = chosen[0]["numbers"]
        lines.append(
            [
                name,
                f"{numbers:,}",
                f"{dense / numbers:.1f}",
                f"{len(chosen)}",
                before,
                f"{greedy:.2f}",
                f"{beam:.2f}",
                f"{seconds:.0f}",
            ]
        )
    return markdown(lines, left=1)


def main():
    options = parse_options(
        __doc__.split("\n")[0], "distilled_multi30k", None, ROWS
    )
    experiment = Experiment(options)
    for name in options.rows:
        for seed in options.seeds or ROWS[name][-1]:
            experiment.run(name, seed)
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
