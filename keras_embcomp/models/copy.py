"""Copies a model, with other layers in the place of some."""

import tempfile
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp._compat import children, every_layer, own_variables
from keras_embcomp.layers.from_keras import does_more
from keras_embcomp.models.find import check_model, dense_places
from keras_embcomp.models.owners import (
    is_ours,
    is_plain,
    original_class,
    original_config,
    record_replaced,
)
from keras_embcomp.models.swap import swap

_LOAD = keras.Layer.load_own_variables


def replaced(
    model: keras.Model, layers: Mapping[int, keras.Layer]
) -> keras.Model:
    """Returns a copy of a model with other layers in the place of some.

    The copy has the class and the names of the model, its ties, the weights of
    all other layers, and the optimizer's settings if the model is compiled.
    The model stays as it is.

    Args:
        model: Built model of any class.
        layers: Dictionary from the `id` of a layer to the built layer in its
            place.

    Raises:
        ValueError: if a layer cannot be made again from its config.
    """
    return Copying(model).finished(layers)


class Copying:
    """A copy of a model, whose layers may be replaced before it is finished.

    What cannot be copied is refused at once: before a table is fitted.

    Args:
        model: Built model of any class.
    """

    def __init__(self, model: keras.Model):
        check_model(model)
        self._model = model
        self._classes = _unregistered(model)
        self._layers: Mapping[int, keras.Layer] = {}
        self._prepared: dict[int, keras.Layer] = {}
        self._made: dict[int, keras.Layer] = {}
        self._dense: dict[int, tuple[keras.Layer, keras.Layer]] = {}
        self._put: list[keras.Layer] = []
        self._cloned: set[int] = set()
        self._matched: set[int] = set()

    def check(self, besides: Collection[int] = ()) -> None:
        """Raises unless all layers, but those of some ids, can be copied."""
        self._check(self._model, besides)

    def _check(self, layer, besides):
        if id(layer) in besides:
            return
        if is_plain(layer):
            for one in layer.layers:
                self._check(one, besides)
        else:
            self._prepared[id(layer)] = self._like(layer)

    def finished(self, layers: Mapping[int, keras.Layer]) -> keras.Model:
        """Returns the copy with layers in the place of those of some ids."""
        model = self._model
        self._layers, self._made = layers, dict(layers)
        copy = self._copied(model)
        self._match_all(model)
        self._copy_states()
        record_replaced(copy, self._put)
        _check_nothing_left(model, copy, layers)
        if getattr(model, "compiled", False):
            _compile_like(model, copy)
        return copy

    def _copied(self, layer):
        """Returns the copy of a layer, each layer once."""
        if id(layer) in self._made:
            return self._made[id(layer)]
        if is_plain(layer):
            new = self._plain(layer)
        elif not isinstance(layer, keras.Layer):  # an operation on tensors
            new = self._like(layer)
        else:
            new = self._prepared.pop(id(layer), None) or self._like(layer)
            self._match(layer, new)
            if isinstance(layer, keras.Model):
                _build_like(layer, new)
        self._made[id(layer)] = new
        return new

    def _plain(self, model):
        """Returns the copy of a functional model, whose calls are repeated."""
        self._cloned.add(id(model))
        compiled, model.compiled = model.compiled, False
        try:
            return keras.models.clone_model(model, clone_function=self._copied)
        finally:
            model.compiled = compiled

    def _like(self, layer):
        """Returns a new layer with the config of another."""
        cls: Any = original_class(layer)
        config = self._config(layer)
        try:
            with keras.saving.custom_object_scope(self._classes):
                new = cls.from_config(config)
        except Exception as error:  # constructors raise whatever they like
            raise _unreadable(layer, error) from error
        if type(new) is not cls:
            raise ValueError(
                "`from_config` must return an object of its own class. "
                f"Received: layer '{layer.name}' of class {cls.__name__}, and "
                f"a {type(new).__name__} from its config"
            )
        return new

    def _config(self, layer):
        """Returns the config that the copy of a layer is made from."""
        try:
            return original_config(layer)
        except Exception as error:  # as constructors
            raise _unreadable(layer, error) from error

    def _match_all(self, layer):
        """Matches all layers in a layer with those of its copy."""
        if id(layer) in self._matched or id(layer) in self._layers:
            return
        if id(layer) not in self._made:  # an input, of a model that was cloned
            return
        self._matched.add(id(layer))
        if id(layer) not in self._cloned:
            self._match(layer, self._made[id(layer)], strict=True)
        for one in (
            layer.layers if id(layer) in self._cloned else children(layer)
        ):
            self._match_all(one)

    def _match(self, old, new, strict=False):
        """Puts the copies of an owner's layers where its copy holds others.

        So a layer that is held twice is one layer in the copy too. Before a
        copy is built it may have fewer layers; only those of the same name are
        matched then.
        """
        olds, news = children(old), children(new)
        if strict and not new.built:
            # What it makes when it is built, without weights of its own, as
            # a preprocessor does once its tokenizer has words.
            names = {layer.name for layer in news}
            olds = [one for one in olds if one.variables or one.name in names]
        if strict and len(olds) != len(news):
            raise unlike(old, f"{len(olds)} layers, and then {len(news)}")
        for before, after in zip(olds, news, strict=False):
            if not strict and before.name != after.name:
                continue
            known = self._made.get(id(before))
            if known is None and is_ours(before) and not is_ours(after):
                # The constructor makes the dense table.
                known = self._like(before)
                _build_like(before, known)
                self._made[id(before)] = known
            if known is None:
                if original_class(before) is not original_class(after):
                    if strict:
                        kinds = (type(x).__name__ for x in (before, after))
                        raise unlike(old, " and ".join(kinds))
                    continue
                self._made[id(before)] = known = after
            elif known is not after:
                known = self._put_in(new, before, after, known)
            if not strict and id(before) not in self._layers:
                self._match(before, known)

    def _put_in(self, owner, before, after, known):
        """Puts a layer in the place of what the constructor made."""
        if id(before) in self._layers and _same_kind(known, after):
            # A dense table, which the constructor makes by itself.
            self._dense[id(before)] = known, after
            self._made[id(before)] = after
            return after
        swap(owner, after, known)
        if is_ours(known):
            self._put.append(known)
        return known

    def _copy_states(self):
        """Copies the weights and vocabularies of all layers that stay."""
        for fitted, made in self._dense.values():
            _build_like(fitted, made)
            made.set_weights(fitted.get_weights())
        pairs = [
            (old, self._made[id(old)])
            for old in every_layer(self._model)
            if id(old) not in self._layers and id(old) in self._made
        ]
        for old, new in pairs:  # first: others may be built from words
            if hasattr(old, "save_assets"):  # vocabularies
                with tempfile.TemporaryDirectory() as folder:
                    old.save_assets(folder)
                    new.load_assets(folder)
        for old, new in pairs:
            self._copy_state(old, new)

    def _copy_state(self, old, new):
        """Copies a layer's own weights, and what follows from them.

        Those of the layers in it are copied by themselves.
        """
        _build_like(old, new)
        if old.trainable != new.trainable:
            new.trainable = old.trainable  # and that of all layers in it
        if getattr(old, "lora_enabled", False) and not new.lora_enabled:
            new.enable_lora(old.lora_rank, lora_alpha=old.lora_alpha)
        pairs = [*zip(own_variables(old), own_variables(new), strict=False)]
        self._copy_weights(old, new)
        for before, after in pairs:
            if before.trainable != after.trainable:
                after.trainable = before.trainable
        alike = len(children(old)) == len(children(new))
        if old.built and not new.built and alike:
            new.built = True  # a model that Keras cannot build

    def _copy_weights(self, old, new):
        """Copies a layer's own weights."""
        pairs = own_variables(old), own_variables(new)
        shapes = [[tuple(v.shape) for v in variables] for variables in pairs]
        if shapes[0] != shapes[1]:
            raise unlike(
                old, f"weights of shapes {shapes[0]}, and then {shapes[1]}"
            )
        for before, after in zip(*pairs, strict=True):
            after.assign(ops.copy(before))  # or JAX shares, and donates it
        if type(old).load_own_variables is not _LOAD and old.built:
            _copy_by_store(old, new)


def _same_kind(one, other):
    """Returns whether two dense layers of Keras hold tables alike."""
    if is_ours(one) or is_ours(other):
        return False
    for cls in (keras.layers.Embedding, keras.layers.Dense):
        if isinstance(one, cls) and isinstance(other, cls):
            return does_more(one) == does_more(other)
    return False


def _unreadable(layer, error):
    return ValueError(
        "`model` must have layers that can be made again from their config: "
        "write `get_config`, and register classes and functions with "
        "`keras.saving.register_keras_serializable`. Received: layer "
        f"'{layer.name}' of class {original_class(layer).__name__} "
        f"({' '.join(str(error).split())[:200]})"
    )


def unlike(layer: keras.Layer, what: str) -> ValueError:
    """Returns the error of a layer that is made again in another form."""
    return ValueError(
        "`model` must have layers that have the same layers when they are made "
        f"again from their config. Received: layer '{layer.name}' of class "
        f"{original_class(layer).__name__}, with {what}"
    )


def _unregistered(model):
    """Returns the classes in a model that Keras would not find, by name."""
    classes = {original_class(layer) for layer in every_layer(model)}
    return {
        cls.__name__: cls
        for cls in classes
        if cls.__module__.partition(".")[0] not in ("keras", "keras_embcomp")
        and keras.saving.get_registered_name(cls) == cls.__name__
    }


def _build_like(old, new):
    """Builds a layer as another was built."""
    if not old.built or new.built:
        return
    config = old.get_build_config()
    if config:
        with warnings.catch_warnings():
            # That a model cannot be built so: its layers are.
            warnings.filterwarnings("ignore", ".*cannot be built automat")
            warnings.filterwarnings("ignore", ".*does not have a `build")
            new.build_from_config(config)


def _copy_by_store(old, new):
    """Copies what a layer computes of weights when it loads them."""
    if getattr(old, "lora_enabled", False):
        return  # it would be merged
    store: dict[str, Any] = {}
    old.save_own_variables(store)
    new.load_own_variables({name: ops.copy(x) for name, x in store.items()})


def _check_nothing_left(model, copy, layers):
    """Raises if a weight of the copy holds a table that was replaced."""
    own = [*layers.values(), *(place.layer for place in dense_places(copy))]
    kept = {id(variable) for layer in own for variable in layer.variables}
    for old in every_layer(model):
        if id(old) not in layers or is_ours(old):
            continue
        for table in old.variables:
            if len(table.shape) != 2:
                continue
            for variable in copy.variables:
                if id(variable) in kept or variable.shape != table.shape:
                    continue
                if np.array_equal(
                    *map(ops.convert_to_numpy, (variable, table))
                ):
                    raise RuntimeError(
                        "The table of layer "
                        f"'{old.name}' is still in the copy, as "
                        f"{variable.path}. Please report the model's layers."
                    )


def _compile_like(model, copy):
    config = model.get_compile_config()
    try:
        if type(model).compile is keras.Model.compile:
            copy.compile_from_config(config)
        else:  # which Keras does not call by itself
            copy.compile(**keras.saving.deserialize_keras_object(config))
    except (ValueError, TypeError) as error:
        warnings.warn(
            "The copy is not compiled, as the settings of the model cannot be "
            f"read again: compile it yourself. ({error})",
            stacklevel=4,
        )
    if hasattr(model, "sampler"):  # keras-hub's: not in the config
        copy.sampler = model.sampler
