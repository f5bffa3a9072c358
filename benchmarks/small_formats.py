"""What low rank in 8 bits and fewer costs a classifier of SST-2.

The classifier has the mean of word vectors, which begin as MiniLM's, and a
hidden layer; it is trained on sentences. Its table is then written as a low
rank of each number format, with the largest rank that keeps to the bytes.
"Rounded" is not trained again. The others are trained for some more epochs: in
floats and then rounded, or through the rounding (`fake_quantize`).

Each row is saved when it is done. A second run continues where the first
stopped.

    python benchmarks/small_formats.py --data-dir ../shared/data
"""

import itertools
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.append(str(Path(__file__).parent / "papers"))
import sst2
from lmf_sst2 import principal_components
from results import add, parse_options, read

from keras_embcomp import LowRankEmbedding
from keras_embcomp.compression.candidates import arguments_for
from keras_embcomp.layers.methods import method_named
from keras_embcomp.text_tables import markdown

WIDTH, HIDDEN, BATCH_SIZE = 300, 64, 50
EPOCHS, MORE_EPOCHS = 6, 3
RATIOS = (16, 48)
MODES = ("int8", "int4", "int2", "ternary")
WAYS = ("rounded", "trained, then rounded", "trained through the rounding")


def classifier(embedding):
    """Returns a classifier over an embedding layer."""
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.GlobalAveragePooling1D()(embedding(ids))
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(HIDDEN, activation="relu")(x)
    return keras.Model(ids, keras.layers.Dense(2)(x))


def load(data_dir):
    """Returns the words and the train, dev and test sentences."""
    folder = Path(data_dir) / "sentences"
    if not folder.is_dir():
        raise SystemExit(
            f"No sentences in {folder}: pass --data-dir. TensorFlow Datasets "
            "has them as glue/sst2."
        )
    parts = []
    for name in ("train", "dev", "test"):
        text = (folder / f"stsa.binary.{name}").read_text("utf-8")
        lines = [line.split() for line in text.splitlines()]
        parts.append([(words, int(label)) for label, *words in lines])
    known = sorted({word for words, _ in parts[0] for word in words})
    ids = {word: place for place, word in enumerate(known, start=1)}
    return known, [sst2.Phrases(part, ids) for part in parts]


def train(model, sentences, rate, epochs, seed):
    """Trains a model with a rate that falls to 0."""
    generator = np.random.default_rng(seed)
    steps = sum(len(rows) // BATCH_SIZE for rows, _ in sentences.groups)
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    for _ in range(epochs):
        for rows, labels in sentences.batches(BATCH_SIZE, generator):
            model.train_on_batch(rows, labels)


def compressed(dense, mode, ratio):
    """Returns a copy of a classifier with a low rank of so many bytes."""
    table = dense.layers[1].get_weights()[0]
    found = arguments_for(
        method_named("low_rank"),
        mode,
        table,
        table.nbytes / ratio,
        np.ones(len(table)),
    )
    arguments, held = found
    layer = LowRankEmbedding.from_layer(dense.layers[1], **arguments)
    copy = classifier(layer)
    for ours, theirs in zip(copy.layers[2:], dense.layers[2:], strict=True):
        ours.set_weights(theirs.get_weights())
    return copy, arguments["rank"], held


def measured(dense, mode, ratio, way, parts, seed):
    """Returns what a row of the table says."""
    sentences, dev, test = parts
    model, rank, held = compressed(dense, mode, ratio)
    layer = model.layers[1]
    if way == WAYS[2]:
        layer.fake_quantize(mode)
    if way != WAYS[0]:
        train(model, sentences, 5e-4, MORE_EPOCHS, seed)
    layer.quantize(mode)
    stored = sum(weight.nbytes for weight in layer.get_weights())
    assert stored == held, (stored, held)
    return {
        "rank": rank,
        "bytes": stored,
        "dev": float(dev.accuracy(model)),
        "test": float(test.accuracy(model)),
    }


def run(data_dir, seeds, results):
    """Measures the rows that the results do not have yet."""
    words, parts = load(data_dir)
    vectors = principal_components(sst2.minilm_vectors(words), WIDTH)
    for seed in seeds:
        done = {
            (row["seed"], row.get("ratio"), row["mode"], row["way"])
            for row in read(results)
        }
        keras.utils.set_random_seed(seed)
        dense = classifier(
            keras.layers.Embedding(
                *vectors.shape, weights=vectors, mask_zero=True
            )
        )
        train(dense, parts[0], 1e-3, EPOCHS, seed)
        if (seed, 1, "float32", "dense") not in done:
            found = {
                "bytes": dense.layers[1].get_weights()[0].nbytes,
                "dev": float(parts[1].accuracy(dense)),
                "test": float(parts[2].accuracy(dense)),
            }
            key = {"seed": seed, "ratio": 1, "mode": "float32", "way": "dense"}
            add(results, {**key, **found})
        for ratio, mode, way in itertools.product(RATIOS, MODES, WAYS):
            if (seed, ratio, mode, way) in done:
                continue
            keras.utils.set_random_seed(seed)
            found = measured(dense, mode, ratio, way, parts, seed)
            key = {"seed": seed, "ratio": ratio, "mode": mode, "way": way}
            add(results, {**key, **found})


def table(rows):
    """Returns the Markdown table, with a line for each ratio and format."""
    lines = [["table", "rank", "bytes", *(f"{way}, %" for way in WAYS)]]
    dense = [row for row in rows if row["mode"] == "float32"]
    tests = [row["test"] for row in dense]
    held = f"{dense[0]['bytes']:,}"
    lines.append(["dense float32", "", held, _cell(tests), "", ""])
    for ratio, mode in itertools.product(RATIOS, MODES):
        own = [r for r in rows if (r["ratio"], r["mode"]) == (ratio, mode)]
        if own:
            cells = [
                _cell([row["test"] for row in own if row["way"] == way])
                for way in WAYS
            ]
            rank, held = own[0]["rank"], own[0]["bytes"]
            name = f"{ratio} times, {mode}"
            lines.append([name, f"{rank}", f"{held:,}", *cells])
    return markdown(lines, left=1)


def _cell(values):
    return f"{np.mean(values):.2f} ± {np.std(values):.2f}" if values else ""


def main():
    options = parse_options(__doc__.split("\n")[0], "small_formats", range(3))
    run(options.data_dir, options.seeds, options.results)
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
