"""Copies a model, with other layers in the place of some."""

import tempfile
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import keras

from keras_embcomp._compat import every_layer
from keras_embcomp.models.find import (
    check_functional,
    inside_wrapper,
    is_functional,
)

_LOAD = keras.Layer.load_own_variables


def _around(wrapper, layer):
    """Returns a layer in wrappers like those of another."""
    if inside_wrapper(wrapper) is wrapper:
        return layer
    config = {**wrapper.get_config(), "dtype": wrapper.dtype_policy}
    del config["layer"]
    inner = _around(wrapper.layer, layer)
    return type(wrapper)(inner, **config)


def replaced(
    model: keras.Model, layers: Mapping[int, keras.Layer]
) -> keras.Model:
    """Returns a copy of a model with other layers in the place of some.

    The copy has the names of the inputs, the weights of all other layers, and
    the optimizer's settings if the model is compiled. The model stays as it is.

    Args:
        model: Functional or Sequential model.
        layers: Dictionary from the `id` of a layer to the layer in its place.
    """
    check_functional(model)
    made, copies = dict(layers), []

    def copied(layer):
        inner = inside_wrapper(layer)
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


def check_copyable(model: keras.Model, besides: Collection[int] = ()) -> None:
    """Raises unless all layers, but those of some ids, can be copied."""
    check_functional(model)
    for layer in model.layers:
        if is_functional(layer):
            check_copyable(layer, besides)
        elif id(inside_wrapper(layer)) not in besides:
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
    pairs = zip(every_layer(old), every_layer(new), strict=True)
    for before, after in pairs:
        if type(before).load_own_variables is not _LOAD and before.built:
            store: dict[str, Any] = {}
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
        if is_functional(layer):
            found.extend(_models(layer))
    return found
