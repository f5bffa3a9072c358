"""The dense and the compressed classifiers side by side."""

import time

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

_COLUMNS = {
    "model": ("model", "{}"),
    "test_accuracy": ("test accuracy", "{:.2%}"),
    "embedding_parameters": ("embedding parameters", "{:,}"),
    "model_parameters": ("model parameters", "{:,}"),
    "keras_bytes": (".keras bytes", "{:,}"),
    "litert_bytes": (".tflite bytes", "{:,}"),
    "saved_model_bytes": ("SavedModel bytes", "{:,}"),
    "lookup_ratio": ("lookup time", "{:.2f}x"),
}
_FORMATS = {
    "keras_bytes": ".keras",
    "litert_bytes": ".tflite",
    "saved_model_bytes": "SavedModel",
}
_COLOURS = ("#8a94a3", "#1b7f79")


def lookup_ratios(embeddings, ids, repeats=60):
    """Returns the time of each layer's lookup, relative to the first layer.

    Lookups are compiled functions of a batch of ids. They take turns, so that
    other work on the machine slows all of them. Times are medians.
    """
    ids = tf.constant(ids)
    lookups = [tf.function(layer) for layer in embeddings]
    times = np.empty((repeats, len(lookups)))
    for lookup in lookups:
        lookup(ids)
    for row in times:
        for column, lookup in enumerate(lookups):
            start = time.perf_counter()
            lookup(ids)
            row[column] = time.perf_counter() - start
    medians = np.median(times, axis=0)
    return [float(median / medians[0]) for median in medians]


def markdown_table(rows):
    """Returns rows, which are dicts, as a Markdown table."""
    lines = [
        [title for title, _ in _COLUMNS.values()],
        ["---"] + ["---:"] * (len(_COLUMNS) - 1),
        *(
            [form.format(row[key]) for key, (_, form) in _COLUMNS.items()]
            for row in rows
        ),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plot_comparison(path, dense, small, num_test_texts):
    """Plots the bytes and the test accuracy of two rows side by side."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    sizes, accuracies = figure.subplots(1, 2, width_ratios=(3, 2))
    rows = (dense, small)
    for offset, row, colour in zip((-0.2, 0.2), rows, _COLOURS, strict=True):
        megabytes = [row[key] / 1e6 for key in _FORMATS]
        places = np.arange(len(_FORMATS)) + offset
        bars = sizes.bar(
            places, megabytes, 0.36, color=colour, label=row["model"]
        )
        sizes.bar_label(bars, fmt="%.1f", padding=2)
    sizes.set_xticks(range(len(_FORMATS)), list(_FORMATS.values()))
    sizes.set(ylabel="MB", title="Size of the exported model")
    sizes.legend(frameon=False, loc="upper left", ncols=2)
    sizes.set_ylim(0, 1.3 * sizes.get_ylim()[1])

    values = [100 * row["test_accuracy"] for row in rows]
    errors = [
        (value * (100 - value) / num_test_texts) ** 0.5 for value in values
    ]
    bars = accuracies.bar(
        [row["model"] for row in rows],
        values,
        0.5,
        yerr=errors,
        capsize=4,
        color=_COLOURS,
    )
    labels = [f"{value:.1f} %" for value in values]
    accuracies.bar_label(bars, labels, label_type="center", color="white")
    accuracies.set(
        ylim=(0, 112),
        ylabel="%",
        title=f"Accuracy on {num_test_texts:,} test texts",
    )
    for axes in (sizes, accuracies):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
