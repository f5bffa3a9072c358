"""GroupReduce on Penn Treebank: the experiment of Chen et al. 2018.

A two-layer LSTM of 200 units is trained with dense tables, once. Each row then
compresses its input and its output, measures the perplexity, trains everything
but the compressed tables for one more epoch, and measures again. Like the
paper's Table 2, the first rows add one thing at a time at equal parameters. The
other rows look for the smallest tables within 3 % of the dense perplexity.

Each row is saved when it is done. A second run continues where the first
stopped.

    python benchmarks/papers/groupreduce_ptb.py --data-dir ../shared/data
"""

import time

import keras
import numpy as np
from dense import DenseGradientEmbedding
from ptb import fit, language_model, load, perplexity
from results import add, parse_options, read

from keras_embcomp import (
    GroupReduceEmbedding,
    GroupReduceSoftmax,
)
from keras_embcomp.budgets import (
    equal_groups,
    group_ranks_by_error,
    group_ranks_by_frequency,
)
from keras_embcomp.text_tables import markdown

UNITS, DROPOUT, EPOCHS, RATE = 200, 0.2, 6, 4e-3
RETRAIN_RATE, NUM_GROUPS, SWEEPS = 1e-3, 5, 10
ABLATION = 8  # times smaller


def one_group(weighted):
    """Returns a function that makes the arguments of an SVD."""

    def arguments(table, parameters, counts):
        return {
            "group_sizes": (len(table),),
            "group_ranks": (parameters // sum(table.shape),),
            "frequencies": counts if weighted else None,
        }

    return arguments


def groups(rule, sweeps=0):
    """Returns a function that makes the arguments of five groups."""

    def arguments(table, parameters, counts):
        sizes = equal_groups(len(table), NUM_GROUPS)
        width = table.shape[1]
        if rule == "error":
            ranks = group_ranks_by_error(table, sizes, parameters, counts)
        else:
            weights = counts if rule == "frequency" else np.ones(len(table))
            ranks = group_ranks_by_frequency(sizes, width, parameters, weights)
        return {
            "group_sizes": sizes,
            "group_ranks": ranks,
            "frequencies": counts,
            "max_sweeps": sweeps,
        }

    return arguments


BEST, SWEPT = groups("error"), groups("error", SWEEPS)

# By name: the method, the ratio of the numbers, and the bits of a number.
ROWS = {
    "SVD": (one_group(False), ABLATION, 32),
    "weighted SVD": (one_group(True), ABLATION, 32),
    "5 groups, equal ranks": (groups("equal"), ABLATION, 32),
    "ranks by frequency": (groups("frequency"), ABLATION, 32),
    "by frequency, sweeps": (groups("frequency", SWEEPS), ABLATION, 32),
    "ranks by error": (BEST, ABLATION, 32),
    "by error, sweeps": (SWEPT, ABLATION, 32),
    "5 times": (BEST, 5, 32),
    "10 times": (BEST, 10, 32),
    "15 times": (BEST, 15, 32),
    "5 times, 8 bits": (BEST, 5, 8),
    "8 times, 8 bits": (BEST, 8, 8),
    "5 times, 4 bits": (BEST, 5, 4),
    "8 times, 4 bits": (BEST, 8, 4),
    "4 times, sweeps": (SWEPT, 4, 32),
    "5 times, sweeps": (SWEPT, 5, 32),
    "5 times, sweeps, 8 bits": (SWEPT, 5, 8),
    "4 times, sweeps, 4 bits": (SWEPT, 4, 4),
}


def model_of(embedding, head):
    return language_model(embedding, head, UNITS, DROPOUT)


def dense_model(path, words, train, validation):
    """Returns the trained dense model, from its file if there is one."""
    keras.utils.set_random_seed(0)
    model = model_of(
        DenseGradientEmbedding(len(words), UNITS),
        keras.layers.Dense(len(words)),
    )
    if path.exists():
        model.load_weights(path)
    else:
        print(fit(model, train, validation, RATE, EPOCHS), flush=True)
        model.save_weights(path)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def compressed(dense, arguments, ratio, counts):
    """Returns a copy of a model with both tables compressed."""
    embedding, head = dense.layers[1], dense.layers[-1]
    tables = [
        keras.ops.convert_to_numpy(embedding.embeddings),
        keras.ops.convert_to_numpy(head.kernel).T,
    ]
    embeds, kernels = (
        arguments(table, int(table.size / ratio), counts) for table in tables
    )
    model = model_of(
        GroupReduceEmbedding.from_layer(embedding, **embeds),
        GroupReduceSoftmax.from_layer(head, **kernels),
    )
    for ours, theirs in zip(model.layers, dense.layers, strict=True):
        if isinstance(ours, keras.layers.LSTM):
            ours.set_weights(theirs.get_weights())
    return model


def tables_of(model):
    """Returns the weights of both tables, without bias and places."""
    embedding, head = model.layers[1], model.layers[-1]
    return [
        *embedding.embeddings,
        *embedding.projections,
        *head.kernels,
        *head.projections,
    ]


def quantize(weights, bits):
    """Rounds matrices to the middles of `2**bits` intervals; returns bytes.

    Unlike the paper, each unit of rank (the shorter side of a matrix) has a
    range of its own. Its two float32 numbers are counted.
    """
    size = 0
    for weight in weights:
        matrix = keras.ops.convert_to_numpy(weight)
        axis = int(np.argmax(matrix.shape))
        low = matrix.min(axis=axis, keepdims=True)
        step = (matrix.max(axis=axis, keepdims=True) - low) / 2**bits
        step = np.where(step > 0, step, 1)
        codes = np.minimum((matrix - low) // step, 2**bits - 1)
        weight.assign(low + (codes + 0.5) * step)
        size += matrix.size * bits / 8 + 8 * step.size
    return size


def bytes_of(model, bits):
    """Returns the bytes of both tables, after rounding them to some bits."""
    tables = tables_of(model)
    if bits < 32:
        stored = quantize(tables, bits)
    else:
        stored = sum(4 * np.prod(weight.shape) for weight in tables)
    for layer in (model.layers[1], model.layers[-1]):
        stored += 4 * layer.dense_shape[0] * layer.permuted
    return float(stored)


def measured(name, dense, data, counts):
    """Returns the row of a name: its model before and after an epoch."""
    train, validation, test = data
    arguments, ratio, bits = ROWS[name]
    keras.utils.set_random_seed(0)
    start = time.time()
    model = compressed(dense, arguments, ratio, counts)
    stored = bytes_of(model, bits)
    seconds = time.time() - start
    model.compile(loss=dense.loss)
    before = perplexity(model, test)
    for weight in tables_of(model):
        weight.trainable = False
    (after,) = fit(model, train, validation, RETRAIN_RATE, 1)
    return {
        "name": name,
        "ratio": ratio,
        "bits": bits,
        "ranks": [model.layers[i].group_ranks for i in (1, -1)],
        "bytes": stored,
        "test_before": before,
        "validation": after,
        "test": perplexity(model, test),
        "seconds": seconds,
    }


def run(data_dir, names, results):
    """Measures the rows that the results do not have yet."""
    words, data = load(data_dir)
    train, validation, test = data
    counts = np.bincount(train, minlength=len(words))
    path = results.with_suffix(".weights.h5")
    dense = dense_model(path, words, train, validation)
    done = {row["name"] for row in read(results)}
    if "dense" not in done:
        scores = {
            f"{name}_before": perplexity(dense, text)
            for name, text in (("validation", validation), ("test", test))
        }
        size = 4 * 2 * len(words) * UNITS
        add(results, {"name": "dense", "bytes": size, **scores})
    for name in names:
        if name not in done:
            add(results, measured(name, dense, data, counts))
            keras.utils.clear_session()


def table(rows):
    """Returns the Markdown table, with one line per name."""
    lines = [
        ["tables", "bytes", "times smaller", "test", "retrained", "to dense"]
    ]
    rows = {row["name"]: row for row in rows}
    dense = rows["dense"]
    for name in ("dense", *ROWS):
        if name not in rows:
            continue
        row = rows[name]
        after = row.get("test", dense["test_before"])
        lines.append(
            [
                name,
                f"{row['bytes']:,.0f}",
                f"{dense['bytes'] / row['bytes']:.1f}",
                f"{row['test_before']:.1f}",
                f"{after:.1f}",
                f"{after / dense['test_before'] - 1:+.1%}",
            ]
        )
    return markdown(lines, left=1)


def main():
    options = parse_options(
        __doc__.split("\n")[0], "groupreduce_ptb", [0], ROWS
    )
    run(options.data_dir, options.rows, options.results)
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
