"""Puts other layers in the place of some of a model."""

from collections.abc import Mapping, Sequence

import keras

from keras_embcomp.layers.bags import EmbedReduce
from keras_embcomp.layers.from_keras import does_more, is_bag
from keras_embcomp.layers.two_sided import TwoSidedEmbedding
from keras_embcomp.models.copy import replaced
from keras_embcomp.models.find import Table, check_model, every_place


def replacements(
    tables: Sequence[Table], layers: Mapping[str, keras.Layer]
) -> dict[int, keras.Layer]:
    """Returns what stands for the layers of tables, by the `id` of a layer.

    Args:
        tables: Tables of a model.
        layers: The layers that take some of them over, by path.
    """
    found: dict[int, keras.Layer] = {}
    for table in tables:
        old = table.layer
        if old is None or id(old) in found:
            continue
        own = [one for one in tables if one.layer is old]
        if not any(one.path in layers for one in own):
            continue
        parts = [layers.get(one.path) or _kept(one) for one in own]
        found[id(old)] = _assembled(old, parts)
    return found


def _assembled(old, parts):
    """Returns a layer that does what an old one does, with other tables."""
    if is_bag(old):
        return EmbedReduce(parts[0], combiner=old.combiner, name=old.name)
    if not does_more(old):
        return parts[0]
    head = parts[1] if len(parts) > 1 else None
    layer = TwoSidedEmbedding(
        parts[0],
        head,
        logit_soft_cap=old.logit_soft_cap,
        reverse_dtype=old.reverse_dtype,
        name=old.name,
        dtype=old.dtype_policy,
    )
    layer.build()
    return layer


def _kept(table):
    """Returns a layer of Keras with one of two tables that are not tied."""
    rows, width = table.values.shape
    arguments = dict(table.arguments)
    if table.is_input:
        layer = keras.layers.Embedding(rows, width, **arguments)
        layer.build()
        layer.set_weights([table.values])
        return layer
    layer = keras.layers.Dense(rows, **arguments)
    layer.build((None, width))
    layer.set_weights([table.values.T])
    return layer


def replace_layers(
    model: keras.Model, layers: Mapping[str, keras.Layer]
) -> keras.Model:
    """Returns a copy of a model with other layers in the place of some.

    The copy has the class of the model, its other layers with their weights,
    and its ties: a layer that the model holds in several places is replaced in
    all of them. It saves and loads. The model stays as it is.

    Args:
        model: Built model of any class.
        layers: Dictionary from the path of a layer to the built layer in its
            place. A path is the names of the layers around it, and its own,
            with `/` between them.

    Raises:
        ValueError: if there is no such layer, a layer is not built, or the
            model cannot be made again from its config.

    Example:

    >>> words = keras.layers.Embedding(2_000, 32, name="words")
    >>> model = keras.Sequential([keras.Input((4,), dtype="int32"), words])
    >>> small = LowRankEmbedding.from_layer(words, rank=4)
    >>> replace_layers(model, {"words": small}).layers[0].rank
    4
    """
    check_model(model)
    known = {place.path: place.layer for place in every_place(model)}
    for path, layer in layers.items():
        if path not in known:
            raise ValueError(
                "`layers` must name layers of the model, which are "
                f"{', '.join(known)}. Received: {path!r}"
            )
        if not isinstance(layer, keras.Layer) or not layer.built:
            raise ValueError(
                "`layers` must hold built layers. "
                f"Received: {path!r}: {layer!r}"
            )
    return replaced(model, {id(known[p]): x for p, x in layers.items()})
