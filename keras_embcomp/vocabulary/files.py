"""Reads and writes what the command counts and trims."""

import gzip
import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_embcomp._compat import every_layer
from keras_embcomp.models.read import read_model
from keras_embcomp.vocabulary.tokenizers import can_be_cut


class Source(NamedTuple):
    """A model and its tokenizer, as read.

    Attributes:
        model: The model: of a preset the task, or else the backbone.
        tokenizer: Its tokenizer, or `None`.
        is_preset: Whether it came from a folder of keras-hub.
    """

    model: keras.Model
    tokenizer: Any
    is_preset: bool


def read_source(path: str | PathLike) -> Source:
    """Returns a model from a file, or from a preset of keras-hub.

    Args:
        path: A `.keras` or `.h5` file, or a folder that `save_to_preset` wrote.

    Raises:
        ValueError: if it cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        model = read_model(path)
        return Source(model, _tokenizer_in(model), False)
    hub = _keras_hub(folder)
    try:
        if (folder / "task.json").exists():
            # `Task.from_preset` wants to be called on the class itself.
            task = json.loads((folder / "task.json").read_text("utf-8"))
            name = task["registered_name"]
            cls = keras.saving.get_registered_object(name)
            model = cls.from_preset(str(folder))
            return Source(model, _tokenizer_in(model), True)
        model = hub.models.Backbone.from_preset(str(folder))
        return Source(model, _tokenizer_of_preset(hub, folder), True)
    except (ValueError, OSError, LookupError, AttributeError) as error:
        raise ValueError(
            "The folder must be a preset of keras-hub. "
            f"Received: {folder} ({' '.join(str(error).split())[:200]})"
        ) from error


def write_source(source: Source, folder: Path) -> None:
    """Writes a model: a preset as a folder, another as a `.keras` file."""
    if not source.is_preset:
        source.model.save(folder)
        return
    source.model.save_to_preset(str(folder))
    if source.tokenizer is not None and not _tokenizer_in(source.model):
        source.tokenizer.save_to_preset(str(folder))


def read_tokenizer(path: str | PathLike) -> Any:
    """Returns the tokenizer of a preset or model, or a `tokenizer.json`.

    Raises:
        ValueError: if there is none.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        if not path.is_file():
            raise ValueError(f"The tokenizer must be a file. Received: {path}")
        return path
    if path.is_dir():
        found = _tokenizer_of_preset(_keras_hub(path), path)
    else:
        found = _tokenizer_in(read_model(path))
    if found is None:
        raise ValueError(
            f"The file must have a tokenizer or a lookup. Received: {path}"
        )
    return found


def read_data(path: str | PathLike) -> Iterator[Any]:
    """Yields ids from a `.npy` file, or lines of text.

    Raises:
        ValueError: if the file cannot be read.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".npy":
            yield np.load(path, mmap_mode="r", allow_pickle=False)
            return
        opened = gzip.open if path.suffix.lower() == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as file:
            yield from _blocks(file)
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise ValueError(
            "The data must be a .npy file of ids, or text in UTF-8. "
            f"Received: {path} ({error})"
        ) from error


def _blocks(file):
    """Yields lists of lines."""
    lines: list[str] = []
    for line in file:
        lines.append(line.rstrip("\n"))
        if len(lines) == 1_000:
            yield lines
            lines = []
    if lines:
        yield lines


def _tokenizer_in(model):
    return next(filter(can_be_cut, every_layer(model)), None)


def _tokenizer_of_preset(hub, folder):
    try:
        return hub.tokenizers.Tokenizer.from_preset(str(folder))
    except (ValueError, OSError, KeyError):
        return None


def _keras_hub(folder):
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f"To read a preset, install keras-hub. Received: {folder}"
        ) from error
    return keras_hub
