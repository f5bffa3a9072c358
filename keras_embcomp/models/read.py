"""Reads models and bare tables of embeddings, whatever file holds them."""

import os
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_embcomp._types import Array
from keras_embcomp.checks import finite_table

_TEXTS = (".txt", ".vec", ".w2v", ".glove")
KINDS = (".keras", ".npy", ".npz", *_TEXTS)


def read_model(path: str | os.PathLike) -> keras.Model:
    """Returns the model of a file.

    A table becomes a model of one `Embedding`, named `embeddings`, from ids to
    rows.

    Args:
        path: A `.keras` model; or a table as `.npy`, `.npz` of one array, or
            the text of word2vec and GloVe (`.txt`, `.vec`): a word and its
            numbers in each line, with or without a first line of sizes.

    Raises:
        ValueError: if the file is missing, foreign or corrupt.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in KINDS:
        raise ValueError(
            f"`path` must end in one of {', '.join(KINDS)}. "
            f"Received: path={path}"
        )
    if not path.is_file():
        raise ValueError(f"`path` must be a file. Received: path={path}")
    if path.suffix.lower() != ".keras":
        return _model_of(read_table(path))
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as e:
        raise ValueError(
            f"`path` must be a Keras model. Received: path={path} ({e})"
        ) from e


def _model_of(table):
    layer = keras.layers.Embedding(*table.shape, name="embeddings")
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layer])
    layer.set_weights([table])
    return model


def read_table(path: str | os.PathLike) -> Array:
    """Returns the float32 table of a file, and raises as `read_model`."""
    path = Path(path)
    try:
        if path.suffix.lower() in _TEXTS:
            table = _text_table(path)
        else:
            table = _loaded("path", path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            "`path` must be a table of numbers. "
            f"Received: path={path} ({error})"
        ) from error
    return finite_table("path", table).astype("float32")


def read_counts(path: str | os.PathLike) -> Array:
    """Returns the counts of a `.npy` file, or of a text with one a line."""
    path = Path(path)
    try:
        if path.suffix.lower() == ".npy":
            return _loaded("frequencies", path)
        return np.loadtxt(path, ndmin=1)
    except (OSError, ValueError) as error:
        raise ValueError(
            "`frequencies` must be a .npy file, or a text of numbers. "
            f"Received: frequencies={path} ({error})"
        ) from error


def _loaded(name, path):
    """Returns the one array of a `.npy` or `.npz` file."""
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            arrays = dict(found)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`{name}` must hold numbers, as NumPy writes them. "
            f"Received: {name}={path}"
        ) from error
    if len(arrays) != 1:
        raise ValueError(
            f"`{name}` must hold one array. "
            f"Received: {name}={path} with {', '.join(arrays) or 'none'}"
        )
    (array,) = arrays.values()
    return array


def _text_table(path):
    """Returns the numbers of a text whose lines are a word and its row."""
    rows, width, sizes = [], None, None
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            cells = line.rstrip().split(" ")
            if number == 1 and len(cells) == 2 and all(map(str.isdigit, cells)):
                sizes = tuple(map(int, cells))
                continue
            width = width or len(cells) - 1
            try:
                row = np.array(cells[-width:], "float32")
            except ValueError:
                row = np.empty(0)
            # A word may have spaces in it.
            if len(cells) <= width or len(row) != width or width == 0:
                raise ValueError(
                    f"`path` must have a word and {width} numbers in each "
                    f"line. Received: path={path}, line {number}: {line[:60]!r}"
                )
            rows.append(row)
    if not rows:
        raise ValueError(
            "`path` must have a word and its numbers in each line. "
            f"Received: path={path} without any"
        )
    if sizes not in (None, (len(rows), width)):
        raise ValueError(
            "`path` must have as many rows and numbers as its first line says. "
            f"Received: path={path}, which says {sizes[0]} x {sizes[1]} and "
            f"has {len(rows)} x {width}"
        )
    return np.stack(rows)
