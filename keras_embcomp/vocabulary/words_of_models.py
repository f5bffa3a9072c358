"""Finds the tokenizers and lookups of a model's vocabulary."""

from collections.abc import Iterator
from typing import Any

import keras

from keras_embcomp._compat import call_arguments, every_layer, producer
from keras_embcomp.models.vocabulary import Vocabulary
from keras_embcomp.vocabulary.tokenizers import can_be_cut, pieces_of
from keras_embcomp.vocabulary.tokenizers.lookups import LookupPieces


def tokenizers_of(
    model: keras.Model, vocabulary: Vocabulary
) -> list[keras.Layer]:
    """Returns the tokenizers and lookups in a model that give its ids.

    They are those of its preprocessor, the lookups whose ids reach a table in
    the graph, and others with as many words as the tables have rows; and all
    with the same words, such as lookups back from ids to words.

    Raises:
        ValueError: if they have different words.
    """
    known = [layer for layer in every_layer(model) if can_be_cut(layer)]
    fed = {
        id(layer)
        for place in vocabulary.places
        for layer in _sources(place.layer, set())
    }
    words = {id(layer): _words(layer) for layer in known}
    givers = [layer for layer in known if id(layer) in fed]
    if not givers:
        givers = [
            layer
            for layer in known
            if not LookupPieces.takes(layer)
            or len(words[id(layer)]) == vocabulary.size
        ]
    if not givers:
        return []
    first = words[id(givers[0])]
    others = [x.name for x in givers if words[id(x)] != first]
    if others:
        raise ValueError(
            "`model` must have one vocabulary for the tables that are cut: "
            "`tables` names these. Received: lookups of different words, "
            f"'{givers[0].name}' and '{others[0]}'"
        )
    return [layer for layer in known if words[id(layer)] == first]


def _words(layer):
    return tuple(pieces_of(layer).names())


def _sources(layer: Any, seen: set[int]) -> Iterator[keras.Layer]:
    """Yields the layers and operations whose outputs reach a layer."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    for arguments in call_arguments(layer):
        for tensor in keras.tree.flatten(arguments):
            if isinstance(tensor, keras.KerasTensor):
                source = producer(tensor)
                yield source
                yield from _sources(source, seen)
