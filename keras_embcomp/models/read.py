"""Reads models and bare tables of embeddings, whatever file holds them."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_embcomp._types import Array
from keras_embcomp.checks import finite_table
from keras_embcomp.models.declared import check_held
from keras_embcomp.models.word_vectors import read_word_vectors

_MODELS = (".keras", ".h5", ".hdf5")
_TEXTS = (".txt", ".vec", ".w2v", ".glove")
KINDS = (
    *_MODELS,
    ".npy",
    ".npz",
    *_TEXTS,
    *(text + ".gz" for text in _TEXTS),
)


def read_model(path: str | os.PathLike) -> keras.Model:
    """Returns the model of a file.

    A table becomes a model of one `Embedding`, named `embeddings`, from ids to
    rows.

    Args:
        path: A model as `.keras` or `.h5`; or a table as `.npy`, `.npz` of one
            array, or the text of word2vec and GloVe (`.txt`, `.vec`, also with
            `.gz`): a word and its numbers in each line, with or without a
            first line of sizes.

    Raises:
        ValueError: if the file is missing, foreign or corrupt.
    """
    path = Path(path).expanduser()
    if _kind(path) not in KINDS:
        raise ValueError(
            f"`path` must end in one of {', '.join(KINDS)}. "
            f"Received: path={path}"
        )
    if not path.is_file():
        raise ValueError(f"`path` must be a file. Received: path={path}")
    if _kind(path) not in _MODELS:
        return _model_of(read_table(path))
    try:
        check_held(path)
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the file makes it raise
        raise ValueError(
            f"`path` must be a Keras model. Received: path={path} "
            f"({error or type(error).__name__})"
        ) from error


def _kind(path):
    """Returns what a path ends in, both suffixes of a text that is zipped."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return Path(path.stem).suffix.lower() + suffix
    return suffix


def _model_of(table):
    layer = keras.layers.Embedding(*table.shape, name="embeddings")
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layer])
    layer.set_weights([table])
    return model


def read_table(path: str | os.PathLike) -> Array:
    """Returns the float32 table of a file, and raises as `read_model`."""
    path = Path(path)
    try:
        if _kind(path).removesuffix(".gz") in _TEXTS:
            return read_word_vectors(path)
        table = _loaded("path", path)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            "`path` must be a table of numbers. "
            f"Received: path={path} ({error})"
        ) from error
    with np.errstate(over="ignore"):  # of float64, and refused
        table = finite_table("path", table).astype("float32", copy=False)
    return finite_table("path", table)


def read_counts(path: str | os.PathLike) -> Array:
    """Returns the counts of a `.npy` file, or of a text with one a line."""
    path = Path(path)
    try:
        if path.suffix.lower() == ".npy":
            return _loaded("frequencies", path)
        return np.loadtxt(path, ndmin=1, encoding="utf-8-sig")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(
            "`frequencies` must be a .npy file, or a text of numbers. "
            f"Received: frequencies={path} ({error})"
        ) from error


def read_arrays(path: str | os.PathLike) -> Any:
    """Returns the array of a `.npy` or `.npz` file, or a dictionary of several.

    Raises:
        ValueError: if the file holds something else.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            arrays = {name: found[name] for name in found.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            "`data` must be arrays, as NumPy writes them. "
            f"Received: data={path} ({error})"
        ) from error
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    return arrays


def _loaded(name, path):
    """Returns the one array of a `.npy` or `.npz` file."""
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return _array(file, path.stat().st_size)
            with zipfile.ZipFile(file) as members:
                names = members.namelist()
                if len(names) == 1:
                    with members.open(names[0]) as member:
                        size = members.getinfo(names[0]).file_size
                        return _array(member, size)
    except OSError:
        raise
    except Exception as error:  # NumPy and zips raise many kinds
        raise ValueError(
            f"`{name}` must hold numbers, as NumPy writes them. "
            f"Received: {name}={path} ({error or type(error).__name__})"
        ) from error
    found = ", ".join(member.removesuffix(".npy") for member in names)
    raise ValueError(
        f"`{name}` must hold one array. "
        f"Received: {name}={path} with {found or 'none'}"
    )


def _array(file, size):
    """Returns the array of an open `.npy` file of so many bytes.

    The header is checked before memory is taken for what it declares.
    """
    form = np.lib.format
    version = form.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = form.read_array_header_1_0(file)
    else:
        shape, _, dtype = form.read_array_header_2_0(file)
    if dtype.kind not in "biufc":
        raise ValueError(f"of dtype {dtype}")
    # Python's integers: NumPy's would overflow.
    numbers = int(np.prod(shape, dtype=object))
    if min(shape, default=0) < 0 or numbers * dtype.itemsize > size:
        raise ValueError(f"a shape of {shape} in a file of {size:,} bytes")
    file.seek(0)
    return form.read_array(file, allow_pickle=False)
