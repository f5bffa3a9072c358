"""Finds the vocabulary tables of a model, and the counts of their rows."""

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_embcomp._compat import (
    call_arguments,
    children,
    is_reversible,
    reversible_embedding,
)
from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import finite_table, frequency_weights
from keras_embcomp.layers.base import Compressed, CompressedEmbedding
from keras_embcomp.layers.from_keras import dense_tables, is_bag
from keras_embcomp.layers.two_sided import TwoSidedEmbedding
from keras_embcomp.numerics.covariance import Turning

LEAST_UNITS = 1_000
_WRAPPERS = (keras.layers.Wrapper, TwoSidedEmbedding)


class Place(NamedTuple):
    """A layer and where it is: the names of the layers around it, and its."""

    path: str
    layer: keras.Layer


def places(model: keras.Layer) -> list[Place]:
    """Returns the layers of a model that hold no other, each once.

    They are found in models, in layers, in lists and dictionaries of layers,
    and in wrappers. Layers of the same owner and name are numbered.

    Raises:
        ValueError: if `model` is no model of Keras 3, or not built.
    """
    return [x for x in every_place(model) if not children(x.layer)]


def every_place(model: keras.Layer) -> list[Place]:
    """Returns all layers of a model, each once, owners before what they hold.

    A wrapper is not one of them, but the layer in it, by the wrapper's path.
    """
    check_model(model)
    found: dict[int, Place] = {}
    _collect(model, "", found)
    return list(found.values())


def _collect(owner, prefix, found):
    names: dict[str, int] = {}
    for wrapper in children(owner):
        layer = inside_wrapper(wrapper)
        if id(layer) in found:
            continue
        names[wrapper.name] = names.get(wrapper.name, 0) + 1
        number = names[wrapper.name]
        path = prefix + wrapper.name + (f"#{number}" if number > 1 else "")
        found[id(layer)] = Place(path, layer)
        _collect(layer, f"{path}/", found)


def inside_wrapper(layer: keras.Layer) -> keras.Layer:
    """Returns the layer that a wrapper applies, or the layer."""
    held = children(layer)
    if not isinstance(layer, _WRAPPERS) or len(held) != 1:
        return layer
    if isinstance(held[0], keras.Model):
        return layer
    return inside_wrapper(held[0])


def check_model(model: Any) -> None:
    """Raises unless a model is one of Keras 3, and built."""
    if type(model).__module__.startswith(("tf_keras.", "tensorflow.python.")):
        raise ValueError(
            "`model` must be a model of Keras 3. Build it again with `keras`, "
            "and load its weights. Received: a model of "
            f"{type(model).__module__.partition('.')[0]}, model={model!r}"
        )
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a Keras model: Functional, Sequential or a "
            f"subclass. Received: model={model!r}"
        )
    if not model.built:
        raise ValueError(
            "`model` must be built, so that it has weights: call it on data "
            f"or give it a `keras.Input`. Received: model '{model.name}', not "
            "built"
        )


def compressed_places(model: keras.Model) -> list[Place]:
    """Returns the compressed layers of a model."""
    return [p for p in places(model) if isinstance(p.layer, Compressed)]


def is_embedding(layer: keras.Layer) -> bool:
    """Returns whether a layer is an `Embedding`, of Keras or compressed."""
    return isinstance(layer, (keras.layers.Embedding, CompressedEmbedding))


def is_tied(layer: keras.Layer) -> bool:
    """Returns whether an embedding is called with `reverse=True` somewhere."""
    return any(
        kwargs.get("reverse", False) or True in args[1:]
        for args, kwargs in call_arguments(layer)
    )


class Table(NamedTuple):
    """A dense table of a model.

    Attributes:
        path: Path of its layer in the model; of two tables that a layer does
            not tie, with the name of each.
        layer: The layer, or `None` for a table without a model.
        values: float32 array of shape `(vocabulary, width)`.
        counts: Counts of its rows, or `None`.
        arguments: Arguments of `from_dense` that keep what the layer has.
        is_input: Whether it embeds ids, or makes logits.
        covariance: Second moments of the hidden states that it is multiplied
            by, or `None`; central ones if it has a bias.
        mean: Their mean, or `None`.
        turning: The turn that the covariance gives, or `None`.
        turned: `values` in it, or `None`.
        importance: How much its squared error counts beside others'.
    """

    path: str
    layer: keras.Layer | None
    values: Array
    counts: ArrayLike | None
    arguments: dict[str, Any] = {}
    is_input: bool = True
    covariance: Array | None = None
    mean: Array | None = None
    turning: Turning | None = None
    turned: Array | None = None
    importance: float = 1.0

    @property
    def bytes(self) -> int:
        return 4 * self.values.size


def tables_of(model: keras.Model, frequencies: Any = None) -> list[Table]:
    """Returns the dense vocabulary tables of a model."""
    tables = dense_tables_of(model)
    if not tables:
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
            f"{LEAST_UNITS:,} units or more, more than its inputs, that no "
            "other layer multiplies. "
            f"Received: {looked or 'no layers'}"
        )
    counts = counts_of(frequencies, {t.path: len(t.values) for t in tables})
    return [t._replace(counts=counts.get(t.path)) for t in tables]


def dense_tables_of(model: keras.Model) -> list[Table]:
    """Returns the dense vocabulary tables of a model, if there are any."""
    tables = []
    for path, layer in dense_places(model):
        held = dense_tables(layer)
        for name, values, arguments, is_input in held:
            own = path if len(held) == 1 else f"{path}/{name}"
            values = np.asarray(values, "float32")
            finite_table(f"the table of {own}", values)
            tables.append(Table(own, layer, values, None, arguments, is_input))
    return tables


def dense_places(model: keras.Model) -> list[Place]:
    """Returns the layers of a model that have a dense vocabulary table."""
    found = places(model)
    hidden = hidden_sizes(found)
    return [place for place in found if _is_table(place.layer, hidden)]


def hidden_sizes(found: list[Place]) -> set[int]:
    """Returns the numbers of units that other layers of a model multiply.

    A `Dense` with so many is a hidden layer, not a head: the first of a
    feed-forward block, whose second reads 1,536 numbers, say. A number that an
    embedding has rows is no such one: that of a vocabulary.
    """
    read = {
        size
        for _, layer in found
        if layer.built and not is_embedding(layer)
        for size in _inputs(layer)
    }
    rows = {
        layer.input_dim
        for _, layer in found
        if isinstance(layer, (keras.layers.Embedding, CompressedEmbedding))
    }
    return read - rows


def _inputs(layer):
    """Yields the numbers of inputs that a layer's matrices may multiply."""
    if isinstance(layer, (keras.layers.Dense, Compressed)):
        yield layer.input_spec.axes[-1]  # whatever the kernel's format
        return
    for variable in layer.variables:
        if len(variable.shape) > 1:
            yield int(variable.shape[0])


def is_head(layer: keras.layers.Dense, hidden: set[int]) -> bool:
    """Returns whether a `Dense` has a row for each word of a vocabulary.

    Args:
        layer: A built `Dense`.
        hidden: The result of `hidden_sizes`.
    """
    enough = max(LEAST_UNITS, layer.input_spec.axes[-1] + 1)
    return layer.units >= enough and layer.units not in hidden


def _is_table(layer, hidden):
    # A subclass with a call of its own computes something else.
    call = type(layer).call
    if layer.quantization_mode is not None or not layer.built:
        return False
    if call is keras.layers.Embedding.call or is_bag(layer):
        return True
    if is_reversible(layer) and call is reversible_embedding().call:
        return True
    if call is not keras.layers.Dense.call:
        return False
    return is_head(layer, hidden)


def counts_of(frequencies: Any, sizes: dict[str, int]) -> dict[str, Any]:
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
