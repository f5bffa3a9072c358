"""Puts one layer in the place of another, wherever a model holds it."""

import keras

from keras_embcomp._compat import (
    Functional,
    every_layer,
    follow_layers,
    follow_nodes,
    retrack,
)

_DEEPEST = 8  # containers in containers


def swap(owner: keras.Layer, old: keras.Layer, new: keras.Layer) -> bool:
    """Puts a layer in the place of another in one owner.

    The attributes of the owner, the containers in them, and the graph of a
    functional model lead to the new layer afterwards. The owner may be built.

    Returns:
        Whether the owner held the old layer.
    """
    held = retrack(owner, old, new)
    for name, value in list(vars(owner).items()):
        if name in _KEPT or name.startswith("_self_"):
            continue
        found = _swapped(value, old, new, 0)
        if found is not value:
            vars(owner)[name] = found
            held = True
    graphs = [owner, getattr(owner, "_functional", None)]
    for graph in graphs:
        if isinstance(graph, Functional):
            held = follow_nodes(graph, old, new) or held
    if held:
        follow_layers(owner)
    return held


def swap_everywhere(
    root: keras.Layer, old: keras.Layer, new: keras.Layer
) -> None:
    """Puts a layer in the place of another in a layer and all in it."""
    for owner in every_layer(root):
        if owner is not old and owner is not new:
            swap(owner, old, new)


# What Keras keeps of the graph is followed by itself.
_KEPT = frozenset(
    {
        "_tracker",
        "_inbound_nodes",
        "_outbound_nodes",
        "_nodes",
        "_nodes_by_depth",
        "_operations",
        "_operations_by_depth",
        "_functional",
    }
)


def _swapped(value, old, new, depth):
    """Returns a value with a layer in the place of another.

    Lists, dictionaries and sets are changed in place.
    """
    if value is old:
        return new
    if depth > _DEEPEST:
        return value
    if isinstance(value, list):
        for index, one in enumerate(value):
            found = _swapped(one, old, new, depth + 1)
            if found is not one:
                list.__setitem__(value, index, found)
    elif isinstance(value, dict):
        for key, one in list(value.items()):
            found = _swapped(one, old, new, depth + 1)
            if found is not one:
                dict.__setitem__(value, key, found)
    elif isinstance(value, set) and old in value:
        set.discard(value, old)
        set.add(value, new)
    elif isinstance(value, tuple):
        found = [_swapped(one, old, new, depth + 1) for one in value]
        if any(x is not y for x, y in zip(found, value, strict=True)):
            if hasattr(value, "_fields"):
                return type(value)(*found)
            return tuple(found)
    return value
