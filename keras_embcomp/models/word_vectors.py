"""Reads the text of word vectors: a word and its numbers in each line.

A file is read twice, line by line: all lines together tell the width, so that
none of them can give the others another meaning.
"""

import codecs
import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_embcomp._types import Array

_LONGEST_LINE = 2**26  # bytes: a row of millions of numbers
_BLOCK_ROWS = 65_536


class _Form(NamedTuple):
    """What a line looks like: cells, numbers at the end, a space in front."""

    cells: int
    numbers: int
    indented: bool

    def fits(self, width: int, words: bool) -> bool:
        """Returns whether a line may be a row of so many numbers."""
        if self.numbers < self.cells:
            return words and self.numbers == width
        if not words:
            return self.cells == width
        # The word is a number, or a space.
        return self.cells == width + 1 or (
            self.indented and self.cells == width
        )


class _Lines(NamedTuple):
    """How many lines have a form, and the number of the first."""

    total: int
    first: int


_Forms = dict[_Form, _Lines]


class _Layout(NamedTuple):
    """What all lines agree on."""

    rows: int
    width: int
    header: bool
    words: bool


def read_word_vectors(path: Path) -> Array:
    """Returns the float32 numbers of a text, which may end in `.gz`.

    The first line may hold two integers, rows and width. A word may be a
    number, or have spaces in it if no part of it is a number. Without words,
    all lines must be as many numbers.

    Raises:
        ValueError: if the lines do not agree; names one and says why.
    """
    forms, sizes, ids = _survey(path)
    layout = _agreed(path, forms, sizes)
    table = np.empty((layout.rows, layout.width), "float32")
    with np.errstate(over="ignore"):  # `_check_finite` refuses infinity
        _fill(path, table, layout.header)
    _check_finite(path, table, layout.header)
    if ids and not layout.words and not layout.header and layout.width > 1:
        _check_no_ids(path, table)
    return table


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of a file, numbered from 1, without blank ones."""
    blank = None
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rb") as file:
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            if number == 1:
                if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise _wrong(path, 1, line, "in UTF-16 instead of UTF-8")
                line = line.removeprefix(codecs.BOM_UTF8)
            if len(line) > _LONGEST_LINE:
                reason = f"longer than {_LONGEST_LINE:,} bytes"
                raise _wrong(path, number, line, reason)
            if not line.strip():
                blank = blank or number
                continue
            if blank is not None:
                raise _wrong(path, blank, b"", "blank, before others")
            yield number, line


def _survey(path):
    """Returns the forms of all lines.

    Returns:
        The forms of all lines that cannot be the sizes, the numbers in the
        first line if it can, and whether all lines begin with an integer.
    """
    forms: _Forms = {}
    sizes, ids = None, True
    form, looks = _Form(0, 0, False), None
    for number, line in _lines(path):
        cells = line.split()
        if number == 1 and len(cells) == 2 and all(map(bytes.isdigit, cells)):
            sizes = tuple(int(cell[:18]) for cell in cells)
            continue
        ids = ids and cells[0].isdigit()
        before, looks = looks, _looks(line, cells)
        # Like one that is a word and numbers: `_numbers` finds if it is not.
        if looks != before or form.numbers < form.cells - 1:
            form = _Form(len(cells), _count_numbers(cells), looks[1])
        count, first = forms.get(form, (0, number))
        forms[form] = _Lines(count + 1, first)
    return forms, sizes, ids


def _looks(line, cells):
    """Returns what tells lines of different forms apart, and costs little."""
    numbers = tuple(_is_number(cell) for cell in (*cells[:2], cells[-1]))
    return len(cells), line[:1].isspace(), numbers


def _agreed(path, forms, sizes):
    """Returns the layout that all lines have, or raises."""
    rows = sum(lines.total for lines in forms.values())
    if sizes is not None:
        return _agreed_with_sizes(path, forms, rows, *sizes)
    if not rows:
        raise ValueError(
            "`path` must have a word and its numbers in each line. "
            f"Received: path={path} without any"
        )
    width, words = _most_common(forms)
    _check_forms(path, forms, width, words)
    return _Layout(rows, width, False, words)


def _agreed_with_sizes(path, forms, rows, said_rows, said_width):
    """Returns the layout of lines after one that is two integers."""
    for words in (True, False):
        if forms and all(form.fits(said_width, words) for form in forms):
            if said_width and said_rows == rows:
                return _Layout(rows, said_width, True, words)
            raise _other_sizes(path, said_rows, said_width, rows, said_width)
    # It may be a row: a word and a number, or two numbers.
    first = _Form(2, 2, False)
    width, words = _most_common(forms or {first: _Lines(1, 1)})
    whole = {first: _Lines(1, 1), **forms}
    if forms and all(form.fits(width, words) for form in whole):
        return _Layout(rows + 1, width, False, words)
    if width != said_width and all(form.fits(width, words) for form in forms):
        raise _other_sizes(path, said_rows, said_width, rows, width)
    _check_forms(path, forms, width, words)
    raise _other_sizes(path, said_rows, said_width, rows, width)


def _other_sizes(path, said_rows, said_width, rows, width):
    return ValueError(
        "`path` must have as many rows and numbers as its first line says. "
        f"Received: path={path}, which says {said_rows} x {said_width} and "
        f"has {rows} x {width if rows else 0}"
    )


def _most_common(forms):
    """Returns the width that most lines have, and whether there are words."""
    widths: Counter[int] = Counter()
    for words in (True, False):
        for form, lines in forms.items():
            if (form.numbers < form.cells) == words:
                widths[form.numbers] += lines.total
        if widths:
            break
    return max(widths, key=lambda width: (widths[width], width)), words


def _check_forms(path, forms, width, words):
    """Raises for the first line that is no row of so many numbers."""
    wrong = [
        (lines.first, form)
        for form, lines in forms.items()
        if width == 0 or not form.fits(width, words)
    ]
    if not wrong:
        return
    first, form = min(wrong)
    line = next(line for number, line in _lines(path) if number == first)
    count = "no number" if form.numbers == 0 else f"{form.numbers} numbers"
    reason = f"which ends in {count}"
    if width:
        word = "a word and " if words else ""
        reason += f", where most lines have {word}{width}"
    raise _wrong(path, first, line, reason)


def _fill(path, table, header):
    """Writes the numbers of all lines into a table."""
    row = 0
    for number, line in _lines(path):
        if header and number == 1:
            continue
        if row < len(table):
            table[row] = _numbers(path, number, line, table.shape[1])
        row += 1
    if row != len(table):
        raise ValueError(
            "`path` must not change while it is read. "
            f"Received: path={path}, of {len(table)} rows and then {row}"
        )


def _numbers(path, number, line, width):
    """Returns the numbers of a line, or raises."""
    cells = line.split()
    row = cells[-width:]
    try:
        if b"_" in line and any(b"_" in cell for cell in row):
            raise ValueError  # Python reads 1_000
        values = list(map(float, row))
    except ValueError:
        reason = f"whose last {width} cells are not all numbers"
        raise _wrong(path, number, line, reason) from None
    # Numbers in a word of several cells are rather two lines in one.
    spaced = len(cells) > width + 1 and any(map(_is_number, cells[:-width]))
    if len(values) < width or spaced:
        reason = f"which does not have {width} numbers after its word"
        raise _wrong(path, number, line, reason)
    return values


def _check_finite(path, table, header):
    for start in range(0, len(table), _BLOCK_ROWS):
        finite = np.isfinite(table[start : start + _BLOCK_ROWS]).all(axis=1)
        if finite.all():
            continue
        number = start + int(np.argmin(finite)) + 1 + header
        line = next(line for place, line in _lines(path) if place == number)
        raise _wrong(path, number, line, "with NaN, infinity or beyond float32")


def _check_no_ids(path, table):
    """Raises if the first number of each row may be its word."""
    if (table[:, 1:] == np.floor(table[:, 1:])).all():
        return
    rows, width = table.shape
    raise ValueError(
        "`path` must begin with a line of sizes where words may be integers: "
        f"'{rows} {width - 1}' if they are, '{rows} {width}' if they are "
        f"numbers of the row. Received: path={path} without"
    )


def _wrong(path, number, line, reason):
    shown = line[:60].decode("utf-8", "replace").rstrip()
    return ValueError(
        "`path` must have a word and its numbers in each line. "
        f"Received: path={path}, line {number}: {shown!r}, {reason}"
    )


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return b"_" not in cell


def _count_numbers(cells):
    """Returns how many cells at the end are numbers."""
    count = 0
    while count < len(cells) and _is_number(cells[-1 - count]):
        count += 1
    return count
