"""Grows and shrinks the vocabulary of a trained layer or model."""

from collections.abc import Mapping, Sequence
from typing import Any, overload

import keras
import numpy as np
from keras import ops

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import positive_int
from keras_embcomp.layers.base import Compressed, Mixture
from keras_embcomp.layers.rows import with_rows
from keras_embcomp.models.find import is_embedding
from keras_embcomp.models.vocabulary import vocabulary_of, with_words

Like = ArrayLike | Mapping[int, Any] | None


@overload
def resize_vocabulary(
    layer: Compressed, new_size: int, like: Like = None
) -> Compressed: ...
@overload
def resize_vocabulary(
    layer: keras.Model,
    new_size: int,
    like: Like = None,
    tables: Sequence[str] | None = None,
) -> keras.Model: ...
def resize_vocabulary(
    layer: Any,
    new_size: int,
    like: Like = None,
    tables: Sequence[str] | None = None,
) -> Any:
    """Returns a layer or model like a trained one with more or fewer words.

    Words that stay keep their ids and their rows, to the bit; the last ids are
    dropped. `trim_vocabulary` keeps others. In a quantized layer a factor that
    becomes tall or short may change its layout of scales: its rows are then
    rounded again. In a model all tables, biases and heads of the vocabulary
    change, and the sizes in the configs.

    A new word starts with the row of a known one, or with a weighted mean of
    some, and is trained from there, if the layer's rows train. Four methods
    come as near to a mean as they can: `GroupReduceEmbedding` in the group of
    the heaviest word, `ProductQuantizedEmbedding` with its nearest codes,
    `DistilledEmbedding` with the mean of what its decoder reads; the table of
    a `HashedEmbedding`, whose rows follow from the size of the vocabulary, is
    fitted again with a warning of its error. In a tensor train new words take
    the places that its shape has left, and beyond these whole slices of its
    first core, copies of the slice of a known word.

    Args:
        layer: A built compressed layer, or a built model; quantized or not.
        new_size: Integer. The words of the new layer.
        like: What the `new_size - vocabulary` new words start as: the id of a
            known word, or one for each, or a dictionary from each new id to a
            known id or to a dictionary from known ids to weights. `None`, and
            new ids that a dictionary leaves out, take the word whose row is
            nearest to the mean row.
        tables: Paths of the layers of a model that share the vocabulary. `None`
            takes those with as many rows as the largest embedding.

    Returns:
        A built layer or model of the same class, name and settings.

    Raises:
        ValueError: if the layer is not compressed or not built, or an id in
            `like` is out of range.

    Example:

    >>> layer = LowRankEmbedding(1_000, 32, 8)
    >>> layer.build()
    >>> like = {1_000: 7, 1_001: {3: 0.5, 12: 0.5}}
    >>> resize_vocabulary(layer, 1_002, like).dense_shape
    (1002, 32)
    """
    new_size = positive_int("new_size", new_size)
    if isinstance(layer, keras.Model):
        vocabulary = vocabulary_of(layer, tables)
        table = _first_table(vocabulary)
        rows, mixtures = _sources(table, vocabulary.size, new_size, like)
        return with_words(layer, vocabulary, rows, mixtures=mixtures)
    if not isinstance(layer, Compressed) or not layer.built:
        raise ValueError(
            "`layer` must be a built compressed layer, or a model. "
            f"Received: layer={layer!r}"
        )
    size = layer.dense_shape[0]
    rows, mixtures = _sources(layer.to_dense, size, new_size, like)
    return with_rows(layer, rows, mixtures)


def _first_table(vocabulary):
    """Returns a function that returns a table of a vocabulary."""

    def table():
        layers = [place.layer for place in vocabulary.places]
        layer: Any = next(filter(is_embedding, layers), layers[0])
        if isinstance(layer, Compressed):
            return layer.to_dense()
        if is_embedding(layer):
            return ops.convert_to_numpy(layer.embeddings)
        return ops.convert_to_numpy(layer.kernel).T

    return table


def _sources(table, size, new_size, like):
    """Returns the row of each new word, and mixtures of rows for some."""
    rows = np.arange(new_size)
    count = new_size - size
    if count <= 0:
        return rows, []
    if isinstance(like, Mapping):
        mixtures = _mixtures(like, size, new_size)
        left = set(range(size, new_size)) - {m.word for m in mixtures}
        if left:
            rows[size:] = _nearest_to_mean(table())
        for mixture in mixtures:
            rows[mixture.word] = mixture.heaviest
        return rows, [m for m in mixtures if len(m.ids) > 1]
    if like is None:
        rows[size:] = _nearest_to_mean(table())
    else:
        rows[size:] = _known(like, size, count)
    return rows, []


def _nearest_to_mean(table: Array) -> int:
    distances = np.square(table - table.mean(axis=0)).sum(axis=1)
    return int(np.argmin(distances))


def _known(like, size, count):
    """Returns the ids that new words start as."""
    ids = np.asarray(like)
    if ids.shape not in ((), (count,)) or ids.dtype.kind not in "iu":
        raise ValueError(
            f"`like` must be an id, or one for each of the {count} new words. "
            f"Received: like of shape {ids.shape} and dtype {ids.dtype}"
        )
    _check_ids(ids, size)
    return ids


def _mixtures(like, size, new_size):
    """Returns what a dictionary says of new words."""
    found = []
    for word, known in like.items():
        if not size <= word < new_size:
            raise ValueError(
                f"`like` must have new ids from {size} to {new_size - 1}. "
                f"Received: {word}"
            )
        parts = known if isinstance(known, Mapping) else {known: 1.0}
        ids = np.asarray([*parts])
        weights = np.asarray([*parts.values()], "float32")
        if not len(ids) or ids.dtype.kind not in "iu":
            raise ValueError(
                "`like` must give each new word known ids with weights. "
                f"Received: {known!r} for {word}"
            )
        _check_ids(ids, size)
        if not np.isfinite(weights).all():
            raise ValueError(
                "`like` must have finite weights. Received: "
                f"{known!r} for {word}"
            )
        found.append(Mixture(int(word), ids, weights))
    return found


def _check_ids(ids, size):
    if ids.min() < 0 or ids.max() >= size:
        raise ValueError(
            f"`like` must hold ids below {size}. "
            f"Received: ids from {ids.min()} to {ids.max()}"
        )
