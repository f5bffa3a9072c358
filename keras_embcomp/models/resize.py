"""Grows and shrinks the vocabulary of a trained layer."""

import numpy as np

from keras_embcomp._types import ArrayLike
from keras_embcomp.checks import positive_int
from keras_embcomp.layers.base import Compressed
from keras_embcomp.models.rows import with_rows


def resize_vocabulary(
    layer: Compressed, new_size: int, like: ArrayLike | None = None
) -> Compressed:
    """Returns a layer like a trained one with more or fewer words.

    Words that stay keep their ids and their rows, to the bit; the last ids are
    dropped. In a quantized layer a factor that becomes tall or short may change
    its layout of scales: its rows are then rounded again.

    A new word starts with the row of a known one, and is trained from there, if
    the layer's rows train. A tensor train is different: new words take the
    places that its shape has left, and beyond these whole slices of its first
    core, copies of the slice of a known word.

    Args:
        layer: A built compressed layer, quantized or not.
        new_size: Integer. The words of the new layer.
        like: Id, or ids for the `new_size - vocabulary` new words, of the words
            they start as. `None` takes the word whose row is nearest to the
            mean row.

    Returns:
        A built layer of the same class, name and settings.

    Raises:
        ValueError: if the layer is not compressed or not built, an id in `like`
            is out of range, or the method assigns rows by the size of its
            vocabulary (`HashedEmbedding`, `GroupReduceEmbedding` and their
            output sides): compress `layer.to_dense()`, with rows added,
            again with `from_dense`.

    Example:

    >>> layer = LowRankEmbedding(1_000, 32, 8)
    >>> layer.build()
    >>> resize_vocabulary(layer, 1_100).dense_shape
    (1100, 32)
    """
    if not isinstance(layer, Compressed) or not layer.built:
        raise ValueError(
            "`layer` must be a built compressed layer. "
            f"Received: layer={layer!r}"
        )
    new_size = positive_int("new_size", new_size)
    vocabulary = layer.dense_shape[0]
    sources = np.arange(new_size)
    sources[vocabulary:] = _known(layer, like, new_size - vocabulary)
    return with_rows(layer, sources)


def _known(layer, like, count):
    """Returns the ids that new words start as."""
    vocabulary = layer.dense_shape[0]
    if count <= 0:
        return []
    if like is None:
        table = layer.to_dense()
        return np.argmin(np.square(table - table.mean(axis=0)).sum(axis=1))
    ids = np.asarray(like)
    if ids.shape not in ((), (count,)) or ids.dtype.kind not in "iu":
        raise ValueError(
            f"`like` must be an id, or one for each of the {count} new words. "
            f"Received: like of shape {ids.shape} and dtype {ids.dtype}"
        )
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise ValueError(
            f"`like` must hold ids below {vocabulary}. "
            f"Received: ids from {ids.min()} to {ids.max()}"
        )
    return ids
