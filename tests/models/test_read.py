"""Tables and models from files: all that a file says decides, or is refused."""

import gzip
import io
import zipfile

import keras
import numpy as np
import pytest

from keras_embcomp import HashedEmbedding, LowRankEmbedding
from keras_embcomp.models import word_vectors
from keras_embcomp.models.read import read_counts, read_model, read_table


def table_of(folder, content, name="table.txt"):
    path = folder / name
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(
        gzip.compress(content) if ".gz" in name.lower() else content
    )
    return read_table(path).tolist()


@pytest.mark.parametrize("name", ["a.txt", "a.vec", "a.w2v.gz", "a.GLOVE.GZ"])
@pytest.mark.parametrize(
    "content, table",
    [
        ("a 1 2\nb 3 4", [[1, 2], [3, 4]]),
        ("2 2\na 1 2\nb 3 4\n", [[1, 2], [3, 4]]),
        ("\ufeff2 2\na 1 2\nb 3 4\n", [[1, 2], [3, 4]]),
        ("\ufeffa 1 2\nb 3 4\n", [[1, 2], [3, 4]]),
        ("a 1 2\nb 3 4\n\n\n \t\n", [[1, 2], [3, 4]]),
        ("a\t1\t2\r\nb   3 \t 4 \r\n", [[1, 2], [3, 4]]),
        # GloVe 840B has words of several cells.
        (". . . 1 2\nat name@domain.com 3 4\nb 5 6", [[1, 2], [3, 4], [5, 6]]),
        # What is a space elsewhere is a word in UTF-8.
        ("\u00a0 1 2\n\u2028 3 4\nb 5 6", [[1, 2], [3, 4], [5, 6]]),
        # Words that are numbers.
        ("1999 1 2\nb 3 4\n-1e5 5 6", [[1, 2], [3, 4], [5, 6]]),
        ("nan 1 2\ninf 3 4\nb 5 6", [[1, 2], [3, 4], [5, 6]]),
        ("2 2\n0 1 2\n1 3 4", [[1, 2], [3, 4]]),
        # The empty word.
        ("2 2\nb 3 4\n 1 2", [[3, 4], [1, 2]]),
        # Rows without words.
        ("1.5 2\n3 4\n", [[1.5, 2], [3, 4]]),
        (" 1.5   2\n13.25 4\n", [[1.5, 2], [13.25, 4]]),
        ("2 2\n1.5 2\n3 4\n", [[1.5, 2], [3, 4]]),
        ("1 2 3\n4 5 6", [[1, 2, 3], [4, 5, 6]]),
        # Two integers, and no sizes.
        ("7 3\na 4\nb 5", [[3], [4], [5]]),
        ("9 8\n3 4\n5 6", [[9, 8], [3, 4], [5, 6]]),
    ],
)
def test_all_lines_decide_what_a_text_is(tmp_path, name, content, table):
    assert table_of(tmp_path, content, name) == table


@pytest.mark.parametrize(
    "content, message",
    [
        (
            "the 1 2\nof 1 2 3\nand 4 5 6",
            "line 1: 'the 1 2', which ends in 2 numbers, where most lines "
            "have a word and 3",
        ),
        ("the 1 2 3\nof 1 2\nand 4 5 6", "line 2: 'of 1 2', which ends in 2"),
        ("the 1 2 3\nof 1 2 3 4\nand 4 5 6", "line 2: 'of 1 2 3 4', which"),
        ("2 2\na 1 2\nb 3", "line 3: 'b 3', which ends in 1 numbers"),
        ("2 2\na 1 2\nb 3 x", "line 3: 'b 3 x', which ends in no number"),
        ("2 3\na 1 2\nb 3 4", "says 2 x 3 and has 2 x 2"),
        ("3 2\na 1 2\nb 3 4", "says 3 x 2 and has 2 x 2"),
        ("9 1\na 1\nb 3", "says 9 x 1 and has 2 x 1"),
        ("9 1", "says 9 x 1 and has 0 x 0"),
        ("0 0\n", "says 0 x 0 and has 0 x 0"),
        ("1.5 2 3\n4 5\n6 7 8", "line 2: '4 5', which ends in 2 numbers"),
        ("a 1 2\n\nb 3 4", "line 2: '', blank, before others"),
        ("a 1 2\nb 3 inf\n", "line 2: 'b 3 inf', with NaN, infinity or"),
        ("2 2\na 1 2\nb nan 3\n", "line 3: 'b nan 3', with NaN, infinity or"),
        ("a 1 1e39", "line 1: 'a 1 1e39', with NaN, infinity or beyond"),
        ("a 1_0\nb 2", "line 1: 'a 1_0', which ends in no number"),
        ("a 1 2\nb x 4\nc 5 6", "line 2: 'b x 4', which ends in 1 numbers"),
        ("a 1 2\rb 3 4\n", "does not have 2 numbers after its word"),
        ("a 1 2b 3 4\nc 5 6\n", "line 1: 'a 1 2b 3 4', which does not have"),
        ("area 51 1 2\nb 3 4\nc 5 6", "line 1: 'area 51 1 2', which ends in 3"),
        ("1 .5\n2 .25\n", "'2 1' if they are, '2 2' if they are numbers"),
        ("hello world\n", "which ends in no number"),
        (": 0\n: : 0 1.5\n: : : 0", "line 2: ': : 0 1.5', which ends in 2"),
        ("a 1 x 2\nb 1 2 3\nc 1 2 3", "line 1: 'a 1 x 2', which ends in 1"),
        ("", "without any"),
        ("\n\n", "without any"),
        (b"\xff\xfea\0 \x001\0", "in UTF-16 instead of UTF-8"),
    ],
)
def test_a_text_that_does_not_agree_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError) as refusal:
        table_of(tmp_path, content)
    assert message in str(refusal.value)
    assert f"Received: path={tmp_path / 'table.txt'}" in str(refusal.value)


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(word_vectors, "_LONGEST_LINE", 100)
    with pytest.raises(ValueError, match="line 2: .*, longer than 100 bytes"):
        table_of(tmp_path, "a 1\nb " + "2 " * 100)


@pytest.mark.parametrize(
    "content", [b"none", gzip.compress(b"a 1 2\nb 3 4\n" * 50, mtime=0)[:-12]]
)
def test_a_broken_zip_is_refused(tmp_path, content):
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(ValueError, match="be a table of numbers. Received: "):
        read_table(tmp_path / "a.txt.gz")


def test_only_texts_are_unzipped(tmp_path):
    (tmp_path / "a.npy.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="must end in one of .*.txt.gz"):
        read_model(tmp_path / "a.npy.gz")


def header(shape, kind):
    file = io.BytesIO()
    fields = {"shape": shape, "fortran_order": False, "descr": kind}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue() + bytes(16)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    "shape, kind, message",
    [
        ((10**15,), "<f4", "a shape of (1000000000000000,) in a file of 144"),
        ((10**8, 10**7), "<f4", "a shape of (100000000, 10000000) in a file"),
        ((2**62, 2**62), "<f4", "in a file of 144 bytes"),
        ((100, 2), "<f8", "a shape of (100, 2) in a file of 144 bytes"),
        ((-1, 5), "<f4", "a shape of (-1, 5)"),
        ((-5, -5), "<f4", "a shape of (-5, -5)"),
        ((2, 2), "|O", "of dtype object"),
        ((2, 2), "<U1", "of dtype <U1"),
        ((10**15, 1), "|V0", "of dtype |V0"),
        ((2, 2), "<M8[D]", "of dtype datetime64[D]"),
    ],
)
def test_what_an_array_declares_is_checked_first(
    tmp_path, suffix, shape, kind, message
):
    path, content = tmp_path / f"a{suffix}", header(shape, kind)
    path.write_bytes(content)
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as members:
            members.writestr("a.npy", content)
    with pytest.raises(ValueError) as refusal:
        read_table(path)
    assert message in str(refusal.value)
    assert "must hold numbers, as NumPy writes them" in str(refusal.value)
    if suffix == ".npy":
        with pytest.raises(ValueError, match="`frequencies` must hold numbers"):
            read_counts(path)


def test_arrays_of_every_kind_are_read(tmp_path, generator):
    table = generator.normal(size=(5, 3))
    np.save(tmp_path / "a.npy", np.asfortranarray(table).astype(">f8"))
    np.savez_compressed(tmp_path / "b.npz", table=table.astype("float32"))
    np.save(tmp_path / "c.npy", np.arange(6, dtype="int8").reshape(2, 3))
    for name in ("a.npy", "b.npz"):
        found = read_table(tmp_path / name)
        assert found.dtype == "float32"
        np.testing.assert_array_equal(found, table.astype("float32"))
    np.testing.assert_array_equal(
        read_table(tmp_path / "c.npy"), [[0, 1, 2], [3, 4, 5]]
    )


def test_numbers_beyond_float32_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, 2], [3, 1e300]]))
    with pytest.raises(ValueError, match="the first of them row 1"):
        read_table(tmp_path / "a.npy")


def test_two_arrays_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.ones((2, 2)), two=np.ones(3))
    with pytest.raises(ValueError, match="one array. .* with one, two"):
        read_table(tmp_path / "a.npz")


def model_of(layer, length=3):
    ids = keras.Input((length,), dtype="int32")
    return keras.Model(ids, layer(ids))


def doctored(path, model, old, new):
    """Writes a model whose config says something else."""
    model.save(path)
    with zipfile.ZipFile(path) as members:
        parts = {name: members.read(name) for name in members.namelist()}
    assert old.encode() in parts["config.json"]
    parts["config.json"] = parts["config.json"].replace(
        old.encode(), new.encode()
    )
    with zipfile.ZipFile(path, "w") as members:
        for name, content in parts.items():
            members.writestr(name, content)


@pytest.mark.parametrize("rows", [10**8, 10**12, 10**40])
@pytest.mark.parametrize("kind", ["dense", "low_rank", "int4"])
def test_a_config_that_asks_for_more_than_there_is(tmp_path, rows, kind):
    layer = keras.layers.Embedding(20, 4)
    if kind != "dense":
        layer = LowRankEmbedding(20, 4, 2)
    model = model_of(layer)
    if kind == "int4":
        layer.quantize("int4")
        rows *= 100
    path = tmp_path / "a.keras"
    doctored(path, model, '"input_dim": 20', f'"input_dim": {rows}')
    with pytest.raises(ValueError, match="layers ask for .* bytes of weights"):
        read_model(path)


@pytest.mark.parametrize(
    "new", ["null", "-5", '"x"', "1e400", "[" * 50_000, "{}"]
)
def test_a_config_that_is_foreign_is_refused(tmp_path, new):
    path = tmp_path / "a.keras"
    model = model_of(keras.layers.Embedding(20, 4))
    doctored(path, model, '"input_dim": 20', f'"input_dim": {new}')
    with pytest.raises(ValueError, match="must be a Keras model. Received: "):
        read_model(path)


def test_a_large_vocabulary_in_a_small_file_is_read(tmp_path):
    layer = HashedEmbedding(10**8, 64, num_subvectors=100, num_parts=4)
    model_of(layer).save(tmp_path / "a.keras")
    model = read_model(tmp_path / "a.keras")
    ids = np.array([[0, 7, 10**8 - 1]])
    np.testing.assert_array_equal(model.layers[1](ids), layer(ids))


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
@pytest.mark.filterwarnings("ignore")  # Keras says that the format is old
def test_older_files_of_keras_are_read(tmp_path, suffix):
    layer = keras.layers.Embedding(20, 4)
    model = model_of(layer)
    model.save(tmp_path / f"a{suffix}")
    found = read_model(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(
        found.get_weights()[0], model.get_weights()[0]
    )
    model.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="No model config found"):
        read_model(tmp_path / "a.weights.h5")
    (tmp_path / "b.h5").write_bytes(b"none")
    with pytest.raises(ValueError, match="must be a Keras model. Received: "):
        read_model(tmp_path / "b.h5")


def test_counts_are_read_with_a_mark_of_bytes_in_front(tmp_path):
    (tmp_path / "counts.txt").write_bytes(b"\xef\xbb\xbf3\n2\n1\n")
    np.testing.assert_array_equal(
        read_counts(tmp_path / "counts.txt"), [3, 2, 1]
    )
