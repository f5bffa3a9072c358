"""What the vocabulary tables of a model cost, and what compression lost."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp.checks import frequency_weights
from keras_embcomp.layers.base import Compressed, weight_bytes
from keras_embcomp.models.find import (
    LEAST_UNITS,
    Place,
    counts_of,
    hidden_sizes,
    is_head,
    places,
)
from keras_embcomp.numerics.limits import scaled_limit
from keras_embcomp.numerics.table_comparison import (
    compare_rows,
    neighbour_overlap,
)
from keras_embcomp.reporting.costs import (
    file_bytes,
    lookup_times,
    operations,
)
from keras_embcomp.reporting.report import Report, Size, TableReport

_DENSE = (keras.layers.Embedding, keras.layers.Dense)


def report(
    model: keras.Layer,
    baseline: keras.Layer | None = None,
    frequencies: Any = None,
) -> Report:
    """Measures the vocabulary tables of a model, compressed and dense ones.

    They are its compressed layers, every `Embedding` and `ReversibleEmbedding`,
    and each `Dense` of 1,000 units or more that has more units than inputs and
    whose outputs no other layer multiplies, in nested models too. Lookups are
    timed, so let the machine be idle. The model stays as it is.

    Args:
        model: Built model of any class, or one built layer.
        baseline: The same before it was compressed. If given, each table is
            compared with that of the layer of the same path, or else of the
            same name.
        frequencies: Counts of the rows, of shape `(vocabulary,)`, for every
            table of so many rows, or a dictionary of them by path of the
            layer. They order the rows by frequency; without them rows are
            taken to be sorted, as those of vocabularies usually are.

    Returns:
        A `Report`. It prints as a table, and has `to_markdown()`,
        `to_pandas()` and `plot(path)`; its attribute `tables` holds the
        numbers.

    Raises:
        ValueError: if the model has no vocabulary table or is not built, the
            baseline has no table of the same shape for one of them, or counts
            fit no table.

    Example:

    >>> table = np.random.default_rng(0).normal(size=(500, 16))
    >>> dense = keras.layers.Embedding(500, 16, weights=[table], name="words")
    >>> dense.build()
    >>> small = LowRankEmbedding.from_layer(dense, rank=4)
    >>> words = report(small, baseline=dense).tables[0]
    >>> round(words.ratio, 2), round(words.operations)
    (3.88, 128)
    >>> 0 < words.error < 1
    True
    """
    tables = _tables(model)
    if frequencies is not None and baseline is None:
        raise ValueError(
            "`frequencies` must come with a `baseline`: they order the rows "
            "that are compared. Received: baseline=None"
        )
    shapes = {place.path: _dense_shape(place.layer) for place in tables}
    sizes = {path: rows for path, (rows, _) in shapes.items()}
    counts = {
        path: frequency_weights(counts, sizes[path])
        for path, counts in counts_of(frequencies, sizes).items()
    }
    matches = _matches(tables, shapes, baseline)
    rows = [
        TableReport(
            **_costs(place, shapes[place.path]),
            **_losses(place, matches.get(place.path), counts.get(place.path)),
        )
        for place in tables
    ]
    return Report(rows, _size(model), _size(baseline) if baseline else None)


def _tables(model):
    """Returns the places of the vocabulary tables of a model or layer."""
    known = _places(model, "model")
    hidden = hidden_sizes(known)
    found = [place for place in known if _is_table(place, hidden)]
    if not found:
        raise ValueError(
            "`model` must have a vocabulary table: a compressed layer, an "
            f"`Embedding`, or a `Dense` of {LEAST_UNITS:,} units or more, more "
            "than its inputs, that no other layer multiplies. "
            f"Received: model={model!r}"
        )
    return found


def _places(model, name):
    if isinstance(model, keras.Model) or not isinstance(
        model, keras.layers.Layer
    ):
        return places(model)
    if not model.built:
        raise ValueError(
            f"`{name}` must be built, so that it has weights. "
            f"Received: layer '{model.name}', not built"
        )
    return [Place(model.name, model)]


def _is_table(place, hidden):
    layer = place.layer
    if isinstance(layer, keras.layers.Dense):
        return is_head(layer, hidden)
    return isinstance(layer, (Compressed, keras.layers.Embedding))


def _dense_shape(layer):
    if isinstance(layer, Compressed):
        return layer.dense_shape
    if isinstance(layer, keras.layers.Embedding):
        return (layer.input_dim, layer.output_dim)
    return (layer.units, layer.input_spec.axes[-1])


def _matches(tables, shapes, baseline):
    """Returns the layers of the baseline by the paths of those of the model."""
    if baseline is None:
        return {}
    known = [
        place
        for place in _places(baseline, "baseline")
        if isinstance(place.layer, (Compressed, *_DENSE))
    ]
    matches = {}
    for path, layer in tables:
        fitting = (
            [place.layer for place in known if place.path == path]
            or [p.layer for p in known if p.layer.name == layer.name]
            or [p.layer for p in known if p.layer is baseline]
        )
        if len(fitting) != 1:
            raise ValueError(
                "`baseline` must have one layer for each table of the model. "
                f"Received: {len(fitting)} layers for '{path}' among "
                f"{[place.path for place in known]}"
            )
        shape = _dense_shape(fitting[0])
        if shape != shapes[path]:
            raise ValueError(
                "`baseline` must have tables of the same shapes as the model. "
                f"Received: shape {shape} in place of {shapes[path]} for "
                f"'{path}'"
            )
        matches[path] = fitting[0]
    return matches


def _costs(place, shape):
    layer = place.layer
    if isinstance(layer, Compressed):
        dense = layer._dense_parameters
    elif isinstance(layer, keras.layers.Dense):
        dense = shape[0] * (shape[1] + bool(layer.use_bias))
    else:
        tied = getattr(layer, "tie_weights", True)
        dense = shape[0] * shape[1] * (1 if tied else 2)
    seconds, latency_ratio = lookup_times(layer, shape)
    return {
        "path": place.path,
        "layer": type(layer).__name__,
        "shape": shape,
        "parameters": layer.count_params(),
        "bytes": weight_bytes(layer.weights),
        "dense_bytes": 4 * dense,
        "operations": operations(layer, shape),
        "microseconds": 1e6 * seconds,
        "latency_ratio": latency_ratio,
    }


def _losses(place, baseline, frequencies):
    if baseline is None:
        return {}
    table, dense = _table(place.layer), _table(baseline)
    rows = compare_rows(table, dense)
    deciles = rows.deciles(frequencies)
    error = rows.error()
    weights = np.ones(len(dense)) if frequencies is None else frequencies
    bits = 8 * weight_bytes(place.layer.weights) / len(dense)
    return {
        "error": error,
        "weighted_error": (
            None if frequencies is None else rows.error(frequencies)
        ),
        "limit": scaled_limit(dense, weights, bits),
        "cosine": float(np.mean(rows.cosines)),
        "neighbour_overlap": (
            neighbour_overlap(table, dense)
            if np.isfinite(error)
            else float("nan")
        ),
        "decile_errors": tuple(part.error() for part in deciles),
        "decile_cosines": tuple(
            float(np.mean(part.cosines)) for part in deciles
        ),
    }


def _table(layer):
    if isinstance(layer, Compressed):
        return layer.to_dense()
    if layer.quantization_mode is not None:
        raise ValueError(
            "Layers to compare must hold float weights, or be compressed ones. "
            f"Received: layer '{layer.name}' quantized to "
            f"{layer.quantization_mode}"
        )
    if isinstance(layer, keras.layers.Embedding):
        return ops.convert_to_numpy(layer.embeddings)
    return ops.convert_to_numpy(layer.kernel).T


def _size(model):
    return Size(
        parameters=model.count_params(),
        bytes=weight_bytes(model.weights),
        file_bytes=file_bytes(model),
    )
