"""The dense vocabulary tables of a model, and counts of their rows."""

from typing import NamedTuple

import keras
import numpy as np

from keras_embcomp.checks import finite_table, frequency_weights
from keras_embcomp.cloning import is_embedding, places
from keras_embcomp.layers.dense import dense_parts, embedding_parts

_LEAST_UNITS = 1_000
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
        raise ValueError(
            "`model` must have an `Embedding`, or a `Dense` of "
            f"{_LEAST_UNITS:,} units or more and more units than inputs. "
            f"Received: {looked or 'no layers'}"
        )
    tables = []
    for path, layer in chosen:
        parts = embedding_parts if is_embedding(layer) else dense_parts
        values = np.asarray(parts(layer)[0], "float32")
        finite_table(f"the table of {path}", values)
        tables.append(Table(path, layer, values, None))
    return _with_counts(tables, frequencies)


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
    return layer.units >= max(_LEAST_UNITS, layer.kernel.shape[0] + 1)


def _with_counts(tables, frequencies):
    if frequencies is None:
        return tables
    paths = [table.path for table in tables]
    if isinstance(frequencies, dict):
        wrong = sorted(set(frequencies) - set(paths))
        if wrong:
            raise ValueError(
                "`frequencies` must name tables of the model, which are "
                f"{', '.join(paths)}. Received: {', '.join(wrong)}"
            )
    else:
        counts = np.asarray(frequencies)
        fit = [t.path for t in tables if counts.shape == (len(t.values),)]
        if not fit:
            sizes = ", ".join(f"{t.path}: {len(t.values)}" for t in tables)
            raise ValueError(
                "`frequencies` must have as many counts as a table has rows "
                f"({sizes}). Received: frequencies of shape {counts.shape}"
            )
        frequencies = dict.fromkeys(fit, counts)
    for path, counts in frequencies.items():
        (table,) = (t for t in tables if t.path == path)
        frequency_weights(counts, len(table.values))
    return [t._replace(counts=frequencies.get(t.path)) for t in tables]
