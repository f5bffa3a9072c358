"""Row lookup with gradients that every optimizer treats alike."""

from keras import ops


def take_rows(table, ids):
    """Returns `table[ids]`, of shape `(*ids.shape, *table.shape[1:])`.

    An id out of range does what `keras.layers.Embedding` does on the backend.

    On the TensorFlow backend a gather straight from a variable has
    `IndexedSlices` with repeated ids for a gradient, and the adaptive
    optimizers of Keras square the pieces before they sum them. The reshape
    makes the gradient dense, hence equal to the other backends'.
    """
    return ops.take(ops.reshape(table, table.shape), ids, axis=0)
