"""Any text is a table or a `ValueError` that says what was received."""

import gzip
import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_embcomp.models.read import read_table

few = settings(
    derandomize=True,
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 150)),
    suppress_health_check=[HealthCheck.too_slow],
)


def read(content, name="table.txt"):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return read_table(path)


def is_number(text):
    try:
        float(text.encode())
    except ValueError:
        return False
    return True


# What separates cells and lines cannot be in a word.
parts = st.text(
    st.characters(codec="utf-8", exclude_characters=" \t\n\r\v\f\ufeff"),
    min_size=1,
    max_size=5,
).filter(lambda part: not is_number(part))
words = st.lists(parts, min_size=1, max_size=3).map(" ".join)
numbers = st.one_of(st.integers(-99, 2030).map(str), st.just("nan"))
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw, some_words):
    rows, width = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    table = draw(
        st.lists(
            st.lists(floats, min_size=width, max_size=width),
            min_size=rows,
            max_size=rows,
        )
    )
    drawn = draw(st.lists(some_words, min_size=rows, max_size=rows))
    return drawn, np.array(table, "float32")


def written(words, table, draw_from, header, end="\n", space=" "):
    """Returns a table as word2vec and GloVe write it."""
    lines = [f"{table.shape[0]} {table.shape[1]}"] if header else []
    for word, row in zip(words, table, strict=True):
        cells = [word] if word is not None else []
        lines.append(space.join([*cells, *(draw_from(x) for x in row)]))
    return end.join(lines)


notations = st.sampled_from([repr, lambda x: f"{x:.9e}", lambda x: f"{x:.9g}"])
layouts = {
    "end": st.sampled_from(["\n", "\r\n"]),
    "space": st.sampled_from([" ", "\t", "  ", " \t"]),
}
tails = st.sampled_from(["", "\n", "\n\n", " \n\n"])
marks = st.sampled_from([b"", b"\xef\xbb\xbf"])
zips = st.booleans()


def check_reads(words, table, notation, header, tail, mark, zipped, **layout):
    def number(x):
        return notation(float(x))

    text = written(words, table, number, header, **layout) + tail
    content, name = mark + text.encode(), "table.vec"
    if zipped:
        content, name = gzip.compress(content), "table.vec.gz"
    np.testing.assert_array_equal(read(content, name), table)


@few
@given(
    tables(st.one_of(words, numbers)),
    notations,
    tails,
    marks,
    zips,
    st.fixed_dictionaries(layouts),
)
def test_what_is_written_with_sizes_is_read(
    drawn, notation, tail, mark, zipped, layout
):
    check_reads(*drawn, notation, True, tail, mark, zipped, **layout)


@few
@given(
    tables(st.one_of(words, numbers)),
    words,
    notations,
    tails,
    marks,
    zips,
    st.fixed_dictionaries(layouts),
)
def test_what_is_written_without_sizes_is_read(
    drawn, word, notation, tail, mark, zipped, layout
):
    some, table = drawn
    some = [word, *some[1:]]  # else all words could be numbers
    check_reads(some, table, notation, False, tail, mark, zipped, **layout)


@few
@given(
    tables(st.just(None)),
    marks,
    tails,
    zips,
    st.booleans(),
    st.fixed_dictionaries(layouts),
)
def test_rows_without_words_are_read(drawn, mark, tail, zipped, header, layout):
    def notation(x):
        return f"{x:.9e}"

    check_reads(*drawn, notation, header, tail, mark, zipped, **layout)


@few
@given(tables(words), st.data())
def test_a_row_of_another_length_is_refused_with_its_line(drawn, data):
    some, table = drawn
    if len(table) < 3:
        some, table = [*some] * 3, np.tile(table, (3, 1))
    place = data.draw(st.integers(0, len(table) - 1))
    lines = written(some, table, lambda x: repr(float(x)), False).split("\n")
    change = data.draw(st.sampled_from(["cut", "more"]))
    if change == "more":
        lines[place] += " 1.5"
    else:
        lines[place] = lines[place].rpartition(" ")[0]
    try:
        found = read("\n".join(lines).encode())
    except ValueError as error:
        assert f"line {place + 1}: " in str(error)
        assert "Received: " in str(error)
    else:
        raise AssertionError(found)


pieces = st.sampled_from(
    [b"1", b"2 3", b"-0.5", b"1e400", b"nan", b"a", b" ", b"\t", b"\n", b"\r"]
    + [b"\n\n", b"_", b"1_0", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\x1f\x8b"]
    + [b"\xc2\xa0", b"2 2\n", b"a 1 2\n", b"b 3 4\n", b"\x85", b"word 1"]
)


@few
@given(
    st.one_of(
        st.binary(max_size=60), st.lists(pieces, max_size=14).map(b"".join)
    ),
    st.sampled_from(["a.txt", "a.vec.gz", "a.glove", "a.npy", "a.npz"]),
)
def test_anything_is_a_table_or_refused_in_words(content, name):
    try:
        table = read(content, name)
    except ValueError as error:
        assert "Received: " in str(error)
    else:
        assert table.ndim == 2 and table.size and np.isfinite(table).all()


@few
@given(st.binary(max_size=30), st.integers(0, 200), st.integers(0, 255))
def test_a_broken_array_file_is_refused_in_words(tail, place, byte):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.npy")
        np.save(path, np.arange(6.0, dtype="float32").reshape(2, 3))
        content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    try:
        table = read(bytes(content) + tail, "a.npy")
    except ValueError as error:
        assert "Received: " in str(error)
    else:
        assert table.ndim == 2 and table.dtype == "float32"
