"""Row lookup with gradients that every optimizer treats alike."""

import math

import keras
from keras import ops

from keras_embcomp.layers.execution import (
    compiled_by_tensorflow,
    exporting,
    tables_in_file,
)
from keras_embcomp.layers.factors import RoundedTable


def take_rows(table, ids):
    """Returns `table[ids]`, of shape `(*ids.shape, *table.shape[1:])`.

    An id out of range does what `keras.layers.Embedding` does on the backend.

    On the TensorFlow backend a gather straight from a variable has
    `IndexedSlices` with repeated ids for a gradient, and the adaptive
    optimizers of Keras square the pieces before they sum them. The reshape
    makes the gradient dense, hence equal to the other backends'.
    """
    if tables_in_file() is not None:
        return tables_in_file().rows(table, ids)

    def pick(rows):
        if not exporting():
            rows = ops.reshape(rows, rows.shape)
        return gather_rows(rows, ids)

    if not isinstance(table, RoundedTable):
        return pick(table)
    rows = table.decoded(pick)
    if keras.backend.backend() != "jax":
        return rows
    # JAX has no NaN for bytes.
    size = table.shape[0]
    known = ops.logical_and(ids >= -size, ids < size)
    for _ in table.shape[1:]:
        known = ops.expand_dims(known, -1)
    return ops.where(known, rows, float("nan"))


def gather_rows(table, ids):
    """Returns `table[ids]` for a table that was computed."""
    if exporting():
        import tensorflow as tf

        return tf.gather(table, ids)
    return ops.take(table, ids, axis=0)


def likely_count(shape):
    """Returns a product of sizes; an unknown one is Keras' default batch."""
    return math.prod(32 if size is None else size for size in shape)


def inside_and_outside(ids, vocabulary):
    """Returns ids in range, and 1 for those outside, where others have 0.

    For lookups that compute with ids before they gather: what is gathered for
    an id outside must be above the gathered table as well, so that the backend
    does with it what it does in a dense table.
    """
    if not exporting():
        ids = ops.where(ops.less(ids, 0), ids + vocabulary, ids)
    elif keras.backend.standardize_dtype(ids.dtype) == "int64":
        # LiteRT divides int32 only.
        ids = ops.cast(ops.clip(ids, -1, vocabulary), "int32")
    inside = ops.clip(ids, 0, vocabulary - 1)
    if compiled_by_tensorflow():  # where a gather clips
        return inside, ops.zeros_like(inside)
    return inside, ops.cast(ops.not_equal(ids, inside), ids.dtype)


def from_the_end_once(ids, vocabulary):
    """Returns ids of which a gather wraps none twice that is below zero.

    Keras adds the vocabulary to a negative id, and the gather of an ONNX file
    does so again: an id that is too low would get the row of another.
    """
    if keras.backend.backend() != "tensorflow" or exporting():
        return ids
    if compiled_by_tensorflow():
        return ids
    return ops.where(ops.less(ids, -vocabulary), vocabulary, ids)
