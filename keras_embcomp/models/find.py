"""The dense vocabulary tables of a model, and counts of their rows."""

from typing import NamedTuple

import keras
import numpy as np

from keras_embcomp.checks import finite_table, frequency_weights
from keras_embcomp.models.copy import is_embedding, places
from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.from_keras import dense_parts, embedding_parts

LEAST_UNITS = 1_000
_EMBEDDING_CALLS = (
    keras.layers.Embedding.call,
    keras.layers.ReversibleEmbedding.call,
)


class Table(NamedTuple):
    """A dense table, the layer it is of, and counts of its rows or `None`."""

    path: str
    layer: keras.Layer | None
    values: np.ndarray
    counts: np.ndarray | None

    @property
    def bytes(self):
        return 4 * self.values.size


def tables_of(model, frequencies=None):
    """Returns the dense vocabulary tables of a model."""
    chosen = dense_places(model)
    if not chosen:
        found = places(model)
        looked = ", ".join(
            f"{path} ({type(layer).__name__}"
            f"{', quantized' if layer.quantization_mode else ''})"
            for path, layer in found
        )
        if any(isinstance(layer, Compressed) for _, layer in found):
            looked += ", compressed already: `to_keras` makes it dense again"
        raise ValueError(
            "`model` must have an `Embedding`, or a `Dense` of "
            f"{LEAST_UNITS:,} units or more and more units than inputs. "
            f"Received: {looked or 'no layers'}"
        )
    tables = []
    for path, layer in chosen:
        parts = embedding_parts if is_embedding(layer) else dense_parts
        values = np.asarray(parts(layer)[0], "float32")
        finite_table(f"the table of {path}", values)
        tables.append(Table(path, layer, values, None))
    counts = counts_of(frequencies, {t.path: len(t.values) for t in tables})
    return [t._replace(counts=counts.get(t.path)) for t in tables]


def dense_places(model):
    """Returns the layers of a model that have a dense vocabulary table."""
    return [place for place in places(model) if _is_table(place.layer)]


def _is_table(layer):
    # A subclass with a call of its own computes something else.
    call = type(layer).call
    if layer.quantization_mode is not None:
        return False
    if call in _EMBEDDING_CALLS:
        return True
    if call is not keras.layers.Dense.call:
        return False
    return layer.units >= max(LEAST_UNITS, layer.kernel.shape[0] + 1)


def counts_of(frequencies, sizes):
    """Returns the counts of tables by path.

    Args:
        frequencies: `None`, counts for every table of so many rows, or a
            dictionary of counts by path.
        sizes: Dictionary from the path of a table to its rows.
    """
    if frequencies is None:
        return {}
    known = ", ".join(f"{path}: {rows}" for path, rows in sizes.items())
    if not isinstance(frequencies, dict):
        shape = np.shape(frequencies)
        fit = [path for path, rows in sizes.items() if shape == (rows,)]
        if not fit:
            raise ValueError(
                "`frequencies` must have as many counts as a table has rows "
                f"({known}). Received: frequencies of shape {shape}"
            )
        frequencies = dict.fromkeys(fit, frequencies)
    wrong = sorted(set(frequencies) - set(sizes))
    if wrong:
        raise ValueError(
            "`frequencies` must name tables of the model, which have so many "
            f"rows: {known}. Received: {', '.join(wrong)}"
        )
    for path, counts in frequencies.items():
        frequency_weights(counts, sizes[path])
    return frequencies
