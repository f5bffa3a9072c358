"""The picture of a report: errors by frequency, and bytes by layer."""

import os
from typing import Any

from keras_embcomp.files import checked_path, written_whole

_DENSE_COLOUR, _COLOUR = "#8a94a3", "#1b7f79"
_BAR = 0.36
_LONGEST_NAME = 28


def plot_report(report: Any, path: str | os.PathLike) -> None:
    """Writes the picture of a `Report` to a file, or raises."""
    path = checked_path(path)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`plot` needs matplotlib: pip install matplotlib"
        ) from error
    compared = report.baseline is not None
    height = max(4.4, 1.8 + 0.7 * len(report.tables))
    figure = Figure(
        figsize=(11 if compared else 6, height), layout="constrained"
    )
    panels = figure.subfigures(1, 2 if compared else 1, squeeze=False)[0]
    if compared:
        _plot_errors(panels[0], report.tables)
    _plot_bytes(panels[-1], report.tables)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _plot_errors(panel, tables):
    axes = panel.subplots()
    for table in tables:
        tenths = range(1, len(table.decile_errors) + 1)
        label = _short(table.path)
        axes.plot(tenths, table.decile_errors, "o-", ms=5, label=label)
    axes.set_xticks(range(1, max(len(t.decile_errors) for t in tables) + 1))
    axes.set_ylim(0, max(1.1 * axes.get_ylim()[1], 0.1))
    axes.set(
        title="Error by frequency",
        xlabel="tenth of the rows (1: the most frequent)",
        ylabel="relative error",
    )
    axes.grid(axis="y", alpha=0.3)
    _finish(panel, axes)


def _plot_bytes(panel, tables):
    axes = panel.subplots()
    dense = [table.dense_bytes / 1e6 for table in tables]
    stored = [table.bytes / 1e6 for table in tables]
    for side, sizes, label, colour in (
        (-0.5, dense, "dense", _DENSE_COLOUR),
        (0.5, stored, "as stored", _COLOUR),
    ):
        places = [place + 1.1 * side * _BAR for place in range(len(tables))]
        bars = axes.barh(places, sizes, _BAR, color=colour, label=label)
        labels = [f"{size:.3g}" for size in sizes]
        if sizes is stored:
            labels = [
                f"{label} ({table.ratio:.1f} times less)"
                if table.ratio > 1
                else label
                for label, table in zip(labels, tables, strict=True)
            ]
        axes.bar_label(bars, labels, padding=3)
    names = [_short(table.path) for table in tables]
    axes.set_yticks(range(len(tables)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.4 * max(dense + stored))
    axes.set(title="Bytes by layer", xlabel="MB")
    _finish(panel, axes)


def _finish(panel, axes):
    axes.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="outside lower center", ncols=2)


def _short(path):
    if len(path) <= _LONGEST_NAME:
        return path
    return f"...{path[3 - _LONGEST_NAME :]}"
