"""Finds the vocabulary tables of a model, and copies it with others."""

import tempfile
import warnings
from typing import NamedTuple

import keras

from keras_embcomp.layers.base import Compressed, CompressedEmbedding

_LOAD = keras.Layer.load_own_variables


class Place(NamedTuple):
    """A layer and where it is: the names of the models around it, and its."""

    path: str
    layer: keras.Layer


def places(model) -> list[Place]:
    """Returns the layers of a model and of the models in it, each once.

    Raises:
        ValueError: if `model` is neither Functional nor Sequential, or not
            built.
    """
    _check_model(model)
    found = {}
    _collect(model, "", found)
    return list(found.values())


def _collect(model, prefix, found):
    for layer in model.layers:
        place = Place(prefix + layer.name, _inside(layer))
        if id(place.layer) in found:
            continue
        if _is_model(layer):
            _collect(layer, f"{place.path}/", found)
        else:
            found[id(place.layer)] = place


def _inside(layer):
    """Returns the layer that a `TimeDistributed` applies, or the layer."""
    if type(layer) is not keras.layers.TimeDistributed or _is_model(
        layer.layer
    ):
        return layer
    return _inside(layer.layer)


def _around(wrapper, layer):
    """Returns a layer in wrappers like those of another."""
    if _inside(wrapper) is wrapper:
        return layer
    config = {**wrapper.get_config(), "dtype": wrapper.dtype_policy}
    del config["layer"]
    inner = _around(wrapper.layer, layer)
    return keras.layers.TimeDistributed(inner, **config)


def compressed_places(model) -> list[Place]:
    """Returns the compressed layers of a model."""
    return [p for p in places(model) if isinstance(p.layer, Compressed)]


def is_embedding(layer) -> bool:
    """Returns whether a layer is an `Embedding`, of Keras or compressed."""
    return isinstance(layer, (keras.layers.Embedding, CompressedEmbedding))


def is_tied(layer) -> bool:
    """Returns whether an embedding is called with `reverse=True` somewhere."""
    return any(
        node.arguments.kwargs.get("reverse", False)
        or True in node.arguments.args[1:]
        for node in layer._inbound_nodes
    )


def replaced(model, layers):
    """Returns a copy of a model with other layers in the place of some.

    The copy has the names of the inputs, the weights of all other layers, and
    the optimizer's settings if the model is compiled. The model stays as it is.

    Args:
        model: Functional or Sequential model.
        layers: Dictionary from the `id` of a layer to the layer in its place.
    """
    _check_model(model)
    made, copies = dict(layers), []

    def copied(layer):
        inner = _inside(layer)
        if id(inner) not in made:
            made[id(inner)] = _like(inner)
            copies.append((inner, made[id(inner)]))
        return _around(layer, made[id(inner)])

    compiled, model.compiled = model.compiled, False
    try:
        copy = keras.models.clone_model(
            model, clone_function=copied, recursive=True
        )
    finally:
        model.compiled = compiled
    for old, new in copies:
        if isinstance(old, keras.Layer):
            _copy_state(old, new)
    if compiled:
        _compile_like(model, copy)
    for before, after in zip(_models(model), _models(copy), strict=True):
        if not before.trainable:
            after.trainable = False
    return copy


def check_copyable(model, besides=()):
    """Raises unless all layers, but those of some ids, can be copied."""
    _check_model(model)
    for layer in model.layers:
        if _is_model(layer):
            check_copyable(layer, besides)
        elif id(_inside(layer)) not in besides:
            _like(layer)


def _like(layer):
    """Returns a new layer with the config of another."""
    try:
        return layer.__class__.from_config(layer.get_config())
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            "`model` must have layers that can be copied: register their "
            "classes and functions with `keras.saving.register_keras_"
            f"serializable`. Received: layer '{layer.name}' ({error})"
        ) from error


def _copy_state(old, new):
    """Copies weights, what follows from them, and vocabularies."""
    if old.weights:
        new.set_weights(old.get_weights())
    pairs = zip(old._flatten_layers(), new._flatten_layers(), strict=True)
    for before, after in pairs:
        if type(before).load_own_variables is not _LOAD and before.built:
            store = {}
            before.save_own_variables(store)
            after.load_own_variables(store)
        if hasattr(before, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                before.save_assets(folder)
                after.load_assets(folder)


def _compile_like(model, copy):
    try:
        copy.compile_from_config(model.get_compile_config())
    except (ValueError, TypeError) as error:
        warnings.warn(
            "The copy is not compiled, as the settings of the model cannot be "
            f"read again: compile it yourself. ({error})",
            stacklevel=4,
        )


def _models(model):
    """Returns a model and the models in it, in order."""
    found = [model]
    for layer in model.layers:
        if _is_model(layer):
            found.extend(_models(layer))
    return found


def _is_model(layer):
    return isinstance(layer, (keras.Sequential, keras.src.models.Functional))


def _check_model(model):
    if not _is_model(model):
        raise ValueError(
            "`model` must be Functional or Sequential. In a model of another "
            "class, put `from_layer(layer, ...)` in the place of a layer "
            f"yourself. Received: model={model!r}"
        )
    if not model.built:
        raise ValueError(
            "`model` must be built, so that it has weights: call it on data "
            f"or give it a `keras.Input`. Received: model '{model.name}', not "
            "built"
        )
