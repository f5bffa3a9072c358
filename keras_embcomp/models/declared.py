"""Compares what a model's file declares with what it holds."""

import contextlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from keras_embcomp._compat import unallocated
from keras_embcomp.layers.base import weight_bytes

# What may be taken without a look: building a model twice takes time.
_HARMLESS = 2**28


def check_held(path: Path) -> None:
    """Raises if a model's file declares larger weights than it can hold.

    A config of a few bytes can ask for more memory than there is. Nothing is
    allocated here: the model is built without its weights, and only if two of
    its sizes could make a table that the file cannot hold.

    Raises:
        ValueError: if it does.
    """
    config, held = _config(path)
    largest = sorted(_integers(config), reverse=True)[:2]
    if len(largest) < 2 or largest[0] * largest[1] <= max(held, _HARMLESS):
        return
    asked = 0
    with contextlib.suppress(Exception), unallocated():
        model = _built(config)
        asked = weight_bytes(model.weights)
    if asked > 4 * held + _HARMLESS:
        raise ValueError(
            f"its layers ask for {asked:,} bytes of weights, and the file "
            f"holds {held:,}"
        )


def _config(path: Path) -> tuple[Any, int]:
    """Returns the config of a model, and the bytes that its file holds."""
    if path.suffix.lower() != ".keras":
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config", "null")
        return json.loads(text), path.stat().st_size
    with zipfile.ZipFile(path) as members:
        held = sum(member.file_size for member in members.infolist())
        return json.loads(members.read("config.json")), held


def _built(config):
    """Returns the model of a config."""
    if "module" in config:
        return keras.saving.deserialize_keras_object(config)
    return keras.models.model_from_json(json.dumps(config))


def _integers(config: Any, name: str = "") -> Iterator[int]:
    """Yields the sizes in a config: all integers that are no seeds."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _integers(value, key)
    elif isinstance(config, list):
        for value in config:
            yield from _integers(value, name)
    elif isinstance(config, int) and name != "seed":
        yield abs(config)
