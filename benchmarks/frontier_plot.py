"""Draws two tables of docs/frontier.md: error of a table, accuracy of a task.

    python benchmarks/frontier_plot.py

reads the page and writes docs/frontier.png. `benchmarks/frontier.py` measures.
"""

import argparse
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

DOCS = Path(__file__).parent.parent / "docs"
# The colours of Okabe and Ito, which colour-blind readers tell apart.
STYLES = {
    "trellis codes, low": ("trellis codes", "#d55e00", "o"),
    "product codes": ("product codes", "#0072b2", "s"),
    "low rank, int4": ("low rank, int4", "#009e73", "^"),
    "low rank": ("low rank", "#56b4e9", "v"),
    "GroupReduce, int8": ("GroupReduce, int8", "#cc79a7", "D"),
    "distilled, hidden layer": ("distilled, hidden layer", "#8c6d1f", "P"),
    "tensor train, 2 cores": ("tensor train", "#e69f00", "X"),
    "hashed": ("shared sub-vectors", "#7f7f7f", "*"),
}
KERAS = "Keras int8", "Keras int4"
LIMIT = "limit, rows of unlike scale"


def table_after(text, sentence):
    """Returns `{method: {ratio: value}}` of the table after a sentence."""
    lines = text[text.index(sentence) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    ratios = [float(cell.removesuffix("x")) for cell in rows[0][1:]]
    return {row[0]: dict(points(row[1:], ratios)) for row in rows[2:]}


def points(cells, ratios):
    """Yields the ratios and values of the cells that have any."""
    for cell, ratio in zip(cells, ratios, strict=True):
        own = re.fullmatch(r"([\d.]+) at ([\d.]+)x", cell)
        if own:
            yield float(own[2]), float(own[1])
        elif cell:
            yield ratio, float(cell)


def draw(axes, table, scale=1.0):
    for method, (label, colour, marker) in STYLES.items():
        if method in table:
            x, y = zip(*table[method].items(), strict=True)
            axes.plot(
                *(x, [scale * value for value in y]),
                color=colour,
                marker=marker,
                markersize=5,
                label=label,
            )
    x, y = zip(
        *[next(iter(table[name].items())) for name in KERAS], strict=True
    )
    axes.plot(
        *(x, [scale * value for value in y]),
        "k+",
        markersize=9,
        markeredgewidth=2,
        label="Keras int8, int4",
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([4, 8, 14, 24, 32, 64]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.set_xlim(3.6, 70)
    axes.grid(color="#dddddd")
    axes.set_xlabel("bytes of the dense table / bytes of the .keras file")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DOCS / "frontier.png")
    text = (DOCS / "frontier.md").read_text("utf-8")
    errors = table_after(text, "Relative error of the table:")
    accuracies = table_after(text, "Accuracy in percent of a linear classifier")
    plt.rcParams.update({"font.size": 9, "svg.fonttype": "none"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4))
    draw(left, errors, 100)
    x, y = zip(*errors[LIMIT].items(), strict=True)
    left.plot(
        x, [100 * value for value in y], "k--", linewidth=1, label="limit"
    )
    left.set_ylabel("relative error of the table")
    left.set_title("MiniLM, 30,522 x 384, not trained again")
    left.set_ylim(-2, 100)
    draw(right, accuracies)
    dense = accuracies["dense"][1.0]
    right.axhline(dense, color="black", linewidth=1)
    right.annotate("dense", (64, dense), (-12, 4), textcoords="offset points")
    right.set_ylim(50, 78)
    right.set_ylabel("accuracy on reviews of IMDB")
    right.set_title("GloVe, 400,000 x 50, weighted by counts")
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="lower center",
        ncols=5,
        frameon=False,
    )
    figure.tight_layout(rect=(0, 0.11, 1, 1))
    figure.savefig(parser.parse_args().output, dpi=150, facecolor="white")


if __name__ == "__main__":
    main()
