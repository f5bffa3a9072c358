"""Classes whose config says which of their layers were replaced.

A functional model's config holds its layers. That of most other classes holds
what the constructor takes: `GPT2Backbone(vocabulary_size=50257, ...)` makes a
dense table again. An object of such a class gets a class made on the fly. It
is a subclass of its own, of the same name; its config is that of the original
and the replaced layers, each with its place.
"""

from collections.abc import Collection, Iterable
from typing import Any

import keras

from keras_embcomp._compat import (
    Functional,
    as_if_float,
    children,
    every_layer,
    register_as,
)
from keras_embcomp.models.swap import swap_everywhere

_NAME = "keras_embcomp>CompressedModel"
_made: dict[type, type] = {}


@keras.saving.register_keras_serializable("keras_embcomp", "CompressedModel")
class CompressedModel(keras.Layer):
    """Reads the config of an object with replaced layers. It is no layer."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.Layer:
        """Returns an object of the original class with replaced layers."""
        return _from_config(config)


def is_plain(layer: Any) -> bool:
    """Returns whether a layer is a Functional or Sequential model as such."""
    return type(layer) in (Functional, keras.Sequential, keras.Model)


def original_class(layer: keras.Layer) -> type:
    """Returns the class of a layer, as it was before layers were replaced."""
    cls = type(layer)
    return cls.__bases__[0] if cls in _made.values() else cls


def original_config(layer: keras.Layer) -> dict[str, Any]:
    """Returns the config that the original class of a layer reads."""
    if is_ours(layer) or not isinstance(layer, keras.Layer):
        return layer.get_config()
    with as_if_float(filter(is_ours, every_layer(layer))):
        cls: Any = original_class(layer)
        return cls.get_config(layer)


def is_ours(layer: Any) -> bool:
    """Returns whether a layer is one of this package."""
    return type(layer).__module__.startswith("keras_embcomp.")


def record_replaced(
    root: keras.Layer, replaced: Collection[keras.Layer]
) -> None:
    """Makes the config of a layer, and of those in it, lead to some layers.

    Args:
        root: Layer whose owners hold `replaced` already.
        replaced: The layers that its constructor would not make.
    """
    layers = {id(layer): layer for layer in replaced}
    for owner in every_layer(root):
        if original_class(owner) is not type(owner):
            owner.__class__ = original_class(owner)  # and again, if needed
            layers.update((id(x), x) for _, x in owner._replaced_layers)
    _record(root, {one: x for one, x in layers.items() if is_ours(x)})


def _record(owner, replaced):
    """As `record_replaced`; returns the ids that the config leads to."""
    inside = {id(x) for x in every_layer(owner)} & set(replaced)
    if not inside:
        return
    config = None if is_plain(owner) else original_config(owner)
    missing = set(inside)
    for child in children(owner):
        if config is not None and not _mentions(config, child):
            continue
        if id(child) not in replaced:
            _record(child, replaced)
        missing -= {id(x) for x in every_layer(child)}
    if missing:
        places = list(_places(owner, missing))
        _hold(owner, places)


def _mentions(config: Any, layer: keras.Layer) -> bool:
    """Returns whether a config holds that of a layer."""
    if isinstance(config, dict):
        if (
            config.get("class_name") == type(layer).__name__
            and isinstance(config.get("config"), dict)
            and name_in(config["config"]) == layer.name
        ):
            return True
        return any(_mentions(value, layer) for value in config.values())
    if isinstance(config, list | tuple):
        return any(_mentions(value, layer) for value in config)
    return False


def name_in(config: dict[str, Any]) -> str | None:
    """Returns the name in a config, also that of a class of this module."""
    if "name" not in config and isinstance(config.get("model"), dict):
        return config["model"]["config"].get("name")
    return config.get("name")


def _places(owner, wanted, path=()):
    """Yields the paths of layers with some ids, by numbers of children."""
    for number, child in enumerate(children(owner)):
        here = (*path, number)
        if id(child) in wanted:
            yield here, child
        else:
            yield from _places(child, wanted, here)


def _hold(owner, places):
    """Gives an owner a config that has its replaced layers."""
    owner.__class__ = _class_for(original_class(owner))
    vars(owner)["_replaced_layers"] = places


def _class_for(cls: type) -> type:
    """Returns the subclass of a class whose config holds replaced layers."""
    if cls not in _made:
        made: Any = type(
            cls.__name__,
            (cls,),
            {
                "get_config": _get_config,
                "from_config": classmethod(lambda _, c: _from_config(c)),
                "__module__": cls.__module__,
                "__qualname__": cls.__qualname__,
                "__doc__": cls.__doc__,
            },
        )
        register_as(made, _NAME)
        _made[cls] = made
    return _made[cls]


def _get_config(self):
    cls = type(self).__bases__[0]
    return {
        "model": {
            "module": cls.__module__,
            "class_name": cls.__name__,
            "config": original_config(self),
            "registered_name": keras.saving.get_registered_name(cls),
        },
        "replaced": [
            {
                "place": list(path),
                "layer": keras.saving.serialize_keras_object(layer),
            }
            for path, layer in self._replaced_layers
        ],
    }


def _from_config(config):
    """Returns an object with replaced layers; builds no dense table it can."""
    config = dict(config)
    model, entries = config.pop("model"), config.pop("replaced")
    # What else there is was put in by who reads, as keras-hub's `dtype`.
    model = {**model, "config": {**model["config"], **config}}
    owner = keras.saving.deserialize_keras_object(model)
    layers = [
        keras.saving.deserialize_keras_object(entry["layer"])
        for entry in entries
    ]
    places = [tuple(entry["place"]) for entry in entries]
    put_in_places(owner, zip(places, layers, strict=True))
    return owner


def put_in_places(
    owner: keras.Layer,
    layers: Iterable[tuple[tuple[int, ...], keras.Layer]],
) -> None:
    """Puts layers in their places in an owner, and records them.

    Args:
        owner: Layer as its constructor made it.
        layers: Pairs of a path, by numbers of children, and a layer.
    """
    layers = list(layers)
    found = [(_at(owner, path, new), new) for path, new in layers]
    for old, new in found:
        if old is not new:
            swap_everywhere(owner, old, new)
    _hold(owner, layers)


def _at(owner, path, new):
    for number in path:
        held = children(owner)
        if number >= len(held):
            raise ValueError(
                "The layers of the model must be those that it was saved with. "
                f"Received: no place {path} for layer '{new.name}' in "
                f"'{owner.name}'"
            )
        owner = held[number]
    sizes = [
        {getattr(x, name, None) for name in ("input_dim", "units")} - {None}
        for x in (owner, new)
    ]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "The tables of the model must have the sizes that it was saved "
            f"with. Received: layer '{owner.name}' of class "
            f"{type(owner).__name__} in the place of '{new.name}'"
        )
    return owner
