"""What data buy: plans of a language model, by what they know of it.

The two-layer LSTM of `groupreduce_ptb.py` is compressed by the numbers of its
tables alone, by counts of words, by a pass over 112,000 words of its training
text (counts, hidden states, and how much each logit counts), and by one that
also sees the next words: the gradients in the rows of its input. Nothing is
trained afterwards, but in the last rows: 100 steps, of 112,000 words, with the
labels alone or with the logits of the dense model too.

Each row is saved when it is done. A second run continues where the first
stopped.

    python benchmarks/papers/data_ptb.py --data-dir ../shared/data
"""

import time

import keras
import numpy as np
from groupreduce_ptb import DROPOUT, UNITS, dense_model, groups
from ptb import BATCH_SIZE, language_model, load, perplexity, windows
from results import add, parse_options, read

from keras_embcomp import (
    EmbeddingDistiller,
    GroupReduceEmbedding,
    GroupReduceSoftmax,
    compress,
    replace_layers,
    table_statistics,
)
from keras_embcomp.text_tables import markdown

RATIOS = 5, 8, 10, 20, 30
STEPS, RATE = 100, 1e-4
METHODS = {
    "low rank": "low_rank",
    "GroupReduce": "group_reduce",
    "product codes": "product_codes",
    "auto": "auto",
}
KNOWN = "numbers", "counts", "data", "data and targets"
RECOVERED = "100 steps, labels", "100 steps, labels and logits"
PAPER = "GroupReduce, the paper's"
ROWS = [
    *(f"auto, {known}, {ratio}" for ratio in (10, 30) for known in KNOWN),
    *(f"{PAPER}, counts, {ratio}" for ratio in RATIOS),
    *(f"auto, {known}, {ratio}" for ratio in (20, 5, 8) for known in KNOWN),
    *(f"auto, {known}, {ratio}" for ratio in (10, 30) for known in RECOVERED),
    *(
        f"{method}, {known}, {ratio}"
        for method in ("low rank", "GroupReduce", "product codes")
        for ratio in (10, 30)
        for known in KNOWN
    ),
]


def plain_model(dense, words):
    """Returns the trained model with layers of Keras alone."""
    model = language_model(
        keras.layers.Embedding(len(words), UNITS, name="words"),
        keras.layers.Dense(len(words), name="next"),
        UNITS,
        DROPOUT,
    )
    model.set_weights(dense.get_weights())
    model.compile(loss=dense.loss)
    return model


def by_the_paper(model, ratio, counts):
    """Returns a model with the paper's groups, in float32."""
    made = {}
    for name, cls in (
        ("words", GroupReduceEmbedding),
        ("next", GroupReduceSoftmax),
    ):
        layer = model.get_layer(name)
        table = np.asarray(layer.get_weights()[0])
        table = table if name == "words" else table.T
        arguments = groups("frequency", 10)(
            table, int(table.size / ratio), counts
        )
        made[name] = cls.from_layer(layer, **arguments)
    return replace_layers(model, made)


def recover(small, model, inputs, targets, known):
    """Trains a compressed model for a pass over some data."""
    trained = small
    if "logits" in known:
        trained = EmbeddingDistiller(
            small,
            model,
            alpha=0.0,
            output_loss=keras.distillation.LogitsDistillation(),
        )
    trained.compile(
        keras.optimizers.Adam(RATE, beta_1=0.0, global_clipnorm=1.0),
        model.loss,
    )
    trained.fit(inputs, targets, BATCH_SIZE, shuffle=False, verbose=2)
    model.trainable = True  # which a distiller sets to False


def measured(name, model, data, counts, found):
    inputs, targets, test = data
    method, known, ratio = split(name)
    start = time.time()
    if method == PAPER:
        small = by_the_paper(model, int(ratio), counts)
    else:
        how = {
            "numbers": {},
            "counts": {"frequencies": counts},
            "data": {"data": found["data"]},
            "data and targets": {"data": found["data and targets"]},
            **dict.fromkeys(RECOVERED, {"data": found["data and targets"]}),
        }
        small = compress(
            model, ratio=int(ratio), method=METHODS[method], **how[known]
        )
    seconds = time.time() - start
    if known in RECOVERED:
        recover(small, model, inputs, targets, known)
    small.compile(loss=model.loss)
    sizes = [
        4
        * small.get_layer(name).dense_shape[0]
        * UNITS
        / small.get_layer(name).compression_ratio
        for name in ("words", "next")
    ]
    return {
        "name": name,
        "bytes": sum(sizes),
        "test": perplexity(small, test),
        "seconds": seconds,
    }


def run(data_dir, names, results):
    """Measures the rows that the results do not have yet."""
    words, (train, validation, test) = load(data_dir)
    weights = results.with_name("groupreduce_ptb.weights.h5")
    dense = dense_model(weights, words, train, validation)
    model = plain_model(dense, words)
    counts = np.bincount(train, minlength=len(words))
    done = {row["name"] for row in read(results)}
    if "dense" not in done:
        size = 4 * 2 * len(words) * UNITS
        score = perplexity(model, test)
        add(results, {"name": "dense", "bytes": size, "test": score})
    inputs, targets, _ = (x[: STEPS * BATCH_SIZE] for x in windows(train))
    found = {
        "data": table_statistics(model, inputs, BATCH_SIZE),
        "data and targets": table_statistics(
            model, (inputs, targets), BATCH_SIZE
        ),
    }
    print({name: round(one.seconds, 1) for name, one in found.items()})
    for name in names:
        if name not in done:
            data = inputs, targets, test
            add(results, measured(name, model, data, counts, found))


def split(name):
    """Returns the method, what is known and the ratio of a row's name."""
    method, rest = name.split(", ", 1)
    if name.startswith(PAPER):
        method, rest = PAPER, name.removeprefix(f"{PAPER}, ")
    return method, *rest.rsplit(", ", 1)


def table(rows):
    """Returns the Markdown table: perplexities over dense."""
    rows = {row["name"]: row for row in rows}
    dense = rows["dense"]["test"]
    lines = [["tables", "known", *(f"{ratio}x" for ratio in RATIOS)]]
    for method in (*METHODS, PAPER):
        for known in (*KNOWN, *RECOVERED):
            cells = []
            for ratio in RATIOS:
                row = rows.get(f"{method}, {known}, {ratio}")
                cells.append(f"{row['test'] / dense - 1:+.1%}" if row else "")
            if any(cells):
                lines.append([method, known, *cells])
    return f"dense: {dense:.1f}\n\n{markdown(lines, left=2)}"


def main():
    options = parse_options(__doc__.split("\n")[0], "data_ptb", [0], ROWS)
    run(options.data_dir, options.rows, options.results)
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
