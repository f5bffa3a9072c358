"""Tables of cells as text: aligned for a terminal, or as Markdown."""

from collections.abc import Sequence

Cells = Sequence[str]


def aligned(rows: Sequence[Cells], left: int | None = None) -> str:
    """Returns rows whose columns are aligned.

    Args:
        rows: Rows of cells; the titles come first.
        left: How many columns, from the first on, are aligned to the left;
            `None` for all of them. The others are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = len(widths) if left is None else left
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(rows: Sequence[Cells], left: int | None = None) -> str:
    """Returns rows as a Markdown table; arguments as for `aligned`."""
    columns = len(rows[0])
    left = columns if left is None else left
    sides = ["---"] * left + ["---:"] * (columns - left)
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in (rows[0], sides, *rows[1:])
    )
