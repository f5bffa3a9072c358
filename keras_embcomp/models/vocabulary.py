"""Copies a model with other words in its vocabulary."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_embcomp._compat import children, every_layer, own_variables
from keras_embcomp._types import Array
from keras_embcomp.layers.base import Compressed, Mixture
from keras_embcomp.layers.rows import mix_rows, with_rows
from keras_embcomp.models.copy import Copying, unlike
from keras_embcomp.models.find import Place, is_embedding, places
from keras_embcomp.models.owners import (
    is_ours,
    is_plain,
    name_in,
    original_class,
)

_SIZES = ("input_dim", "units")


class Vocabulary(NamedTuple):
    """The tables of a model that have a row for each word of one vocabulary.

    Attributes:
        size: Rows of each table.
        places: The layers with the tables, and their paths.
    """

    size: int
    places: list[Place]


def vocabulary_of(
    model: keras.Model, tables: Sequence[str] | None = None
) -> Vocabulary:
    """Returns the tables of a model's vocabulary.

    Args:
        model: Built model of any class.
        tables: Paths of the layers that share the vocabulary. `None` takes
            those with as many rows as the largest embedding.

    Raises:
        ValueError: if there is none, or `tables` must say which are meant.
    """
    found = [place for place in places(model) if rows_of(place.layer)]
    known = ", ".join(f"{p.path} ({rows_of(p.layer):,} rows)" for p in found)
    if tables is not None:
        return _named(found, tables, known)
    inputs = [place for place in found if is_embedding(place.layer)]
    if not inputs:
        raise ValueError(
            "`model` must have an embedding whose vocabulary is changed, or "
            f"`tables` must name tables. Received: {known or 'no tables'}"
        )
    size = max(rows_of(place.layer) for place in inputs)
    shared = [place for place in found if rows_of(place.layer) == size]
    narrow = [
        place.path
        for place in shared
        if isinstance(place.layer, keras.layers.Dense)
        and place.layer.input_spec.axes[-1] >= size
        and place.layer is not found[-1].layer
    ]
    sides = [is_embedding(place.layer) for place in shared]
    if narrow or max(sides.count(True), sides.count(False)) > 1:
        raise ValueError(
            "`tables` must name the tables of the vocabulary, as several have "
            f"{size:,} rows. Received: tables=None, and "
            f"{', '.join(place.path for place in shared)}"
        )
    return Vocabulary(size, shared)


def _named(found, tables, known):
    if isinstance(tables, str):
        tables = [tables]
    by_path = {place.path: place for place in found}
    wrong = [path for path in tables if path not in by_path]
    if wrong or not tables:
        raise ValueError(
            "`tables` must name tables of the model, which are "
            f"{known or 'none'}. Received: tables={tables}"
        )
    chosen = [by_path[path] for path in tables]
    sizes = {rows_of(place.layer) for place in chosen}
    if len(sizes) > 1:
        raise ValueError(
            "`tables` must have the same number of rows. Received: "
            + ", ".join(f"{p.path} with {rows_of(p.layer):,}" for p in chosen)
        )
    return Vocabulary(sizes.pop(), chosen)


def rows_of(layer: keras.Layer) -> int:
    """Returns the rows of a layer's vocabulary table, 0 if it has none."""
    if not layer.built:
        return 0
    if isinstance(layer, Compressed):
        return layer.dense_shape[0]
    if isinstance(layer, keras.layers.Embedding):
        return layer.input_dim
    if isinstance(layer, keras.layers.Dense):
        return layer.units
    return 0


def with_words(
    model: keras.Model,
    vocabulary: Vocabulary,
    rows: Array,
    layers: Mapping[int, keras.Layer] | None = None,
    mixtures: Sequence[Mixture] = (),
) -> keras.Model:
    """Returns a copy of a model with other words in its vocabulary.

    The copy has the class of the model. All weights with a row, or a number,
    for each word have those of the new words. The sizes in the configs are
    changed: without compressed tables the copy needs no keras_embcomp.

    Args:
        model: Built model of any class.
        vocabulary: The tables.
        rows: Integer array. The row that each new word has.
        layers: Layers to put in the place of others, by the `id` of these:
            lookups and tokenizers of the new words.
        mixtures: New words that are to have weighted sums of old rows.

    Raises:
        ValueError: if a size does not follow from the configs.
    """
    copying = _WithWords(model, vocabulary, rows, mixtures)
    return copying.finished(layers or {})


class _WithWords(Copying):
    """A copy of a model with other words."""

    def __init__(self, model, vocabulary, rows, mixtures):
        super().__init__(model)
        self._mixtures = mixtures
        self._size, self._rows = vocabulary.size, rows
        self._tables = {id(place.layer): place for place in vocabulary.places}
        self._touched = {
            id(layer): layer
            for layer in every_layer(model)
            if any(id(x) in self._tables for x in every_layer(layer))
            or self._says_size(layer)
        }
        self._small = {
            key: with_rows(place.layer, rows, mixtures)
            for key, place in self._tables.items()
            if isinstance(place.layer, Compressed)
        }
        self._configs = {
            key: self._changed(super(_WithWords, self)._config(layer), layer)
            for key, layer in self._touched.items()
            if key not in self._small and not is_plain(layer)
        }

    def finished(self, layers):
        return super().finished({**self._small, **layers})

    def _copy_states(self):
        for key, place in self._tables.items():
            rows = rows_of(self._made[key])
            if rows not in (0, len(self._rows)):  # 0: not built yet
                raise ValueError(
                    "A layer that makes its tables must be given the size of "
                    "the vocabulary, by an argument of its constructor that "
                    "`get_config` returns. Received: a model that makes "
                    f"'{place.path}' with {rows:,} rows again"
                )
        super()._copy_states()

    def _says_size(self, layer):
        """Returns whether a layer has weights of words and says so."""
        if is_ours(layer) or isinstance(layer, keras.Model):
            return False
        shapes = [tuple(variable.shape) for variable in own_variables(layer)]
        if not any(self._size in shape for shape in shapes):
            return False
        config = super()._config(layer)
        return any(
            "vocab" in key and value == self._size
            for key, value in config.items()
        )

    def _config(self, layer):
        return self._configs.get(id(layer)) or super()._config(layer)

    def _changed(self, config, layer):
        """Returns a config with the size of the new vocabulary."""
        config = dict(config)
        for key in self._keys(config, layer):
            config[key] = len(self._rows)
        return {key: self._inside(value) for key, value in config.items()}

    def _keys(self, config, layer):
        """Returns the keys of a config that are the vocabulary's size."""
        keys = [
            key
            for key, value in config.items()
            if type(value) is int and value == self._size
        ]
        if id(layer) in self._tables:
            return [key for key in keys if key in _SIZES]
        named = [key for key in keys if "vocab" in key.lower()]
        if named or not self._makes_tables(config, layer):
            return named
        if len(keys) == 1:
            return keys
        raise ValueError(
            "A layer that makes its tables must be given the size of the "
            "vocabulary, by an argument that says so: `vocabulary_size`. "
            f"Received: layer '{layer.name}' of class "
            f"{original_class(layer).__name__}, with {self._size} as "
            f"{' and '.join(keys) or 'none of its arguments'}"
        )

    def _makes_tables(self, config, layer):
        """Returns whether a constructor makes tables that no config holds."""
        names = set(_names(config))
        missing = set(self._tables) & {id(x) for x in every_layer(layer)}
        for child in children(layer):
            if child.name in names:
                missing -= {id(x) for x in every_layer(child)}
        return bool(missing)

    def _inside(self, value):
        """Returns a value of a config with the configs in it changed."""
        if isinstance(value, list | tuple):
            return type(value)(map(self._inside, value))
        if not isinstance(value, dict):
            return value
        if isinstance(value.get("config"), dict) and "class_name" in value:
            layer = self._named(value)
            if layer is not None and id(layer) in self._small:
                return keras.saving.serialize_keras_object(
                    self._small[id(layer)]
                )
            if layer is not None:
                config = self._changed(value["config"], layer)
                return {**value, "config": config}
        return {key: self._inside(one) for key, one in value.items()}

    def _named(self, serialized):
        """Returns the layer that a serialized config is of, if it changes."""
        for layer in self._touched.values():
            if (
                name_in(serialized["config"]) == layer.name
                and serialized["class_name"] == type(layer).__name__
            ):
                return layer
        return None

    def _copy_weights(self, old, new):
        if id(old) not in self._touched:
            super()._copy_weights(old, new)
            return
        pairs = own_variables(old), own_variables(new)
        shapes = [[tuple(v.shape) for v in variables] for variables in pairs]
        for before, after in zip(*pairs, strict=True):
            axes = _other_axes(tuple(before.shape), tuple(after.shape))
            if axes is None or len(axes) > 1:
                raise unlike(old, f"weights of {shapes[0]}, then {shapes[1]}")
            taken: Any = ops.copy(before)  # or JAX shares, and donates it
            for axis in axes:
                taken = self._taken(before, axis)
            after.assign(taken)

    def _taken(self, variable, axis):
        """Returns a variable with the words of the copy along an axis."""
        if not self._mixtures or "float" not in variable.dtype:
            return ops.take(variable, self._rows, axis=axis)
        values = ops.convert_to_numpy(variable)
        taken = values.take(self._rows, axis=axis)
        mix_rows(taken, values, self._mixtures, axis)
        return taken


def _names(config: Any) -> Iterable[str | None]:
    """Yields the names of the layers whose configs are in a config."""
    if isinstance(config, dict):
        if isinstance(config.get("config"), dict):
            yield name_in(config["config"])
        for value in config.values():
            yield from _names(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _names(value)


def _other_axes(shape, other):
    """Returns the axes on which two shapes differ."""
    if len(shape) != len(other):
        return None
    return [axis for axis, n in enumerate(shape) if n != other[axis]]
