"""Blocks of rows: what is computed of a table is in memory block by block."""

from collections.abc import Iterator

BLOCK_ROWS = 16_384


def row_blocks(count: int, size: int = BLOCK_ROWS) -> Iterator[slice]:
    """Yields slices that cover the rows `0 ... count - 1` in order.

    Args:
        count: Integer. Number of rows.
        size: Integer. Rows of a block; the last block may be shorter.
    """
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
