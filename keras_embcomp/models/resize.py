"""Grows and shrinks the vocabulary of a trained layer."""

import numpy as np
from keras import ops

from keras_embcomp._types import ArrayLike
from keras_embcomp.checks import positive_int
from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.factors import RoundedFactor, in_numpy


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
    vocabulary, width = layer.dense_shape
    sources = np.arange(new_size)
    sources[vocabulary:] = _known(layer, like, new_size - vocabulary)
    new = layer.__class__.from_config(layer._resized_config(new_size))
    new.build((None, width))
    words_per_row = layer._resizing(new_size).words_per_row
    _copy_rows(layer, new, sources, words_per_row)
    return new


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


def _copy_rows(old, new, sources, words_per_row):
    """Copies weights; those of other sizes take their rows by source.

    A factor in 8 or 4 bits keeps its integers and scales where the new one
    stores them alike. Where it does not (scales of columns are worth their
    bytes for tall factors only), its rows are rounded again.
    """
    words = old.dense_shape[0]
    same = {
        name: _stored_alike(factor, new._factors[name])
        for name, factor in old._factors.items()
    }
    if all(same.values()):
        pairs = zip(old.weights, new.weights, strict=True)
    else:
        pairs = zip(old._others(), new._others(), strict=True)

    def rows_for(values, target):
        """Returns rows of an array for a weight or factor of a new layer."""
        if values.shape[0] == target.shape[0]:
            return values
        each = 1 if values.shape[0] == words else words_per_row
        return values[sources[::each] // each]

    for before, after in pairs:
        after.assign(rows_for(ops.convert_to_numpy(before), after))
    if not all(same.values()):
        for name, factor in old._factors.items():
            after = new._factors[name]
            after.assign(rows_for(in_numpy(factor), after))


def _stored_alike(old, new):
    """Returns whether two factors have the same scales but for their rows."""
    if not isinstance(old, RoundedFactor):
        return True
    steps = [x if x is None else x.shape[1:] for x in (old.steps, new.steps)]
    alike = old.column_scales.shape == new.column_scales.shape
    return alike and steps[0] == steps[1]
