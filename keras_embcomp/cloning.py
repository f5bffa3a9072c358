"""Finds the vocabulary tables of a model, and copies it with others."""

import tempfile
import warnings
from typing import NamedTuple

import keras

from keras_embcomp.layers.base import Compressed, CompressedEmbedding

_LOAD = keras.Layer.load_own_variables
_WRAPPERS_OWN = ("mask", "training")


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
        place = Place(prefix + layer.name, _unwrapped(layer))
        layer = place.layer
        if id(layer) in found:
            continue
        if _is_model(layer):
            _collect(layer, f"{place.path}/", found)
        else:
            found[id(layer)] = place


def _unwrapped(layer):
    """Returns the layer in a `TimeDistributed` that can do without it.

    A `Dense` or an `Embedding` does the same to each step of time by itself.
    """
    if not isinstance(layer, keras.layers.TimeDistributed):
        return layer
    inner = layer.layer
    able = (keras.layers.Dense, keras.layers.Embedding, Compressed)
    # The wrapper takes no notice of these.
    more = getattr(inner, "mask_zero", False) or inner.activity_regularizer
    return inner if isinstance(inner, able) and not more else layer


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
    copies, unwrapped = [], []

    def copied(layer):
        inner = _unwrapped(layer)
        if id(inner) in layers:
            other = layers[id(inner)]
            if inner is not layer:
                other.name = layer.name  # by which outputs and losses are known
                unwrapped.append(other)
            return other
        copies.append((layer, _like(layer)))
        return copies[-1][1]

    def called(layer, *args, **kwargs):
        if layer in unwrapped:  # what only the wrapper has
            kwargs = {k: v for k, v in kwargs.items() if k not in _WRAPPERS_OWN}
        return layer(*args, **kwargs)

    compiled, model.compiled = model.compiled, False
    try:
        copy = keras.models.clone_model(
            model,
            clone_function=copied,
            call_function=None
            if isinstance(model, keras.Sequential)
            else called,
            recursive=True,
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
        elif id(_unwrapped(layer)) not in besides:
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
