"""Fits a layer to a table: the second of the distilled paper's three stages."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import frequency_weights, positive_int
from keras_embcomp.numerics.distilled import (
    lifted,
    principal_rows,
    regressed,
    rescaled,
    with_hidden_layer,
)

_SHOWN_ROWS = 1_000_000  # in all epochs
_STEPS = 30  # in an epoch
_NOTHING_TO_GAIN = 1e-9  # of the unit variance


class _Rows(keras.utils.PyDataset):
    """Batches of ids, rows and weights, in another order in each epoch."""

    def __init__(self, table, weights, batch_size, seed):
        super().__init__()
        self.table, self.weights = table, weights
        self.batch_size = min(batch_size, len(table))
        self.generator = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.table) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        ids = self.order[start : start + self.batch_size]
        return ids, self.table[ids], self.weights[ids]

    def on_epoch_end(self):
        order = self.generator.permutation(len(self.table))
        # All batches are full, so that one program is compiled.
        self.order = np.resize(order, len(self) * self.batch_size)
        self.order = self.order.astype("int32")


class _Lookup(keras.layers.Layer):
    """The rows of a layer of either side, to be trained."""

    def __init__(self, layer):
        super().__init__(dtype="float32")
        self.layer = layer

    def call(self, ids):
        return self.layer.rows(ids)


def fit_table(
    layer: Any,
    table: Array,
    frequencies: ArrayLike | None,
    epochs: int | None,
    learning_rate: float,
    seed: int,
    verbose: int,
) -> None:
    """Assigns the weights of a built float32 layer that fit a table best.

    It starts from the best affine table, which for the paper's form with ReLU
    is the best of all, and is learned further otherwise.

    Args:
        layer: A built distilled layer of either side.
        table: Array of its `dense_shape`.
        frequencies, epochs, learning_rate, seed, verbose: As for its
            `from_dense`.
    """
    if epochs is None:
        epochs = min(max(_SHOWN_ROWS // len(table), 30), 120)
    positive_int("epochs", epochs)
    weights = frequency_weights(frequencies, len(table))
    *affine, scale = principal_rows(table, layer.rank, weights)
    table = table / scale
    # Entries as large as a dense table's, so that an optimizer moves them as
    # much when the layer is trained further.
    factor = scale * (table.shape[1] / layer.rank) ** 0.5

    def activation(array):
        return ops.convert_to_numpy(layer.decoder_activation(array))

    if not layer.hidden_dim:
        arrays = rescaled(lifted(*affine), factor, scale)
        features = (arrays[0] + arrays[1]).astype("float32")
        if np.array_equal(activation(features), features):
            layer._set_table(arrays)
            return
    if layer.hidden_dim:
        start = with_hidden_layer(*affine, layer.hidden_dim, seed)
    else:
        factor = 1.0
        start = regressed(affine[0], activation, table, weights)
    layer._set_table(start)
    _fit_rows(
        layer,
        table,
        weights,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        verbose=verbose,
    )
    found = [ops.convert_to_numpy(weight) for weight in layer._table_weights]
    layer._set_table(rescaled(found, factor, scale))


def _fit_rows(
    layer,
    table,
    weights,
    *,
    epochs,
    learning_rate,
    seed,
    verbose,
):
    """Trains a built layer so that its rows become the rows of a table.

    Minimises the weighted mean of squared errors with Adam, whose rate warms up
    and falls to nothing. Keeps the weights of the best epoch, or those that the
    layer had. Ends after five epochs without a gain.

    Args:
        layer: A built layer.
        table: Array of its `dense_shape`, about of unit variance.
        weights: Weights of the rows, of mean 1.
        epochs: Integer. Passes over the rows, at most.
        learning_rate: Number. The highest rate.
        seed: Integer. Seed of the order of rows.
        verbose: As in `keras.Model.fit`: 1 shows a progress bar.
    """
    batch_size = max(len(table) // _STEPS, 32)
    rows = _Rows(table, weights.astype("float32"), batch_size, seed)
    start, error = layer.get_weights(), _error(layer, table, weights)
    if error < _NOTHING_TO_GAIN:
        return
    ids = keras.Input((), dtype="int32")
    model = keras.Model(ids, _Lookup(layer)(ids))
    steps = epochs * len(rows)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=learning_rate, warmup_steps=-(-steps // 10)
    )
    model.compile(keras.optimizers.Adam(schedule), "mse")
    stop = keras.callbacks.EarlyStopping(
        "loss",
        patience=5,
        start_from_epoch=epochs // 4,
        restore_best_weights=True,
    )
    model.fit(
        rows,
        epochs=epochs,
        shuffle=False,  # `rows` are, by the seed
        callbacks=[stop],
        verbose=verbose,
    )
    if not _error(layer, table, weights) < error:
        layer.set_weights(start)


def _error(layer, table, weights):
    """Returns the weighted mean of squared errors."""
    errors = np.square(layer.to_dense() - table).mean(axis=1, dtype="float64")
    return weights @ errors / len(weights)
