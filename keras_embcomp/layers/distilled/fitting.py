"""Fits a layer to a table: the second of the distilled paper's three stages."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from keras_embcomp._types import Array, ArrayLike, Tensor
from keras_embcomp.checks import frequency_weights, positive_int
from keras_embcomp.numerics.blocks import row_blocks
from keras_embcomp.numerics.distilled import (
    Decoder,
    lifted,
    principal_rows,
    regressed,
    rescaled,
    with_hidden_layer,
)
from keras_embcomp.numerics.lookup import take_rows

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


class _Decoded(keras.layers.Layer):
    """Narrow rows and their decoder, as plain float32 weights to be trained."""

    def __init__(self, activation, arrays):
        super().__init__(dtype="float32")
        self.activation = activation
        self.arrays = [self._add(np.asarray(array)) for array in arrays]
        self.built = True

    def _add(self, array):
        weight = self.add_weight(shape=array.shape, initializer="zeros")
        weight.assign(array)
        return weight

    def call(self, ids):
        narrow = take_rows(self.arrays[0], ids)
        return self.decoder.decode(narrow)

    @property
    def decoder(self):
        _, bias, projection, projection_bias, *hidden = self.arrays
        return Decoder(
            self.activation, bias, projection, projection_bias, *hidden
        )

    def error(self, table, weights):
        """Returns the weighted mean of squared errors."""
        total = 0.0
        for part in row_blocks(len(table)):
            rows = self.decoder.decode(self.arrays[0][part])
            errors = np.square(ops.convert_to_numpy(rows) - table[part])
            total += weights[part] @ errors.mean(axis=1, dtype="float64")
        return total / len(table)


def fitted_weights(
    table: Array,
    rank: int,
    hidden_dim: int | None,
    activation: Callable[[Tensor], Tensor],
    frequencies: ArrayLike | None = None,
    epochs: int | None = None,
    learning_rate: float = 1e-2,
    seed: int = 0,
    verbose: int = 0,
) -> Sequence[Array]:
    """Returns the weights of a distilled table that fit a table best.

    It starts from the best affine table, which for the paper's form with ReLU
    is the best of all, and is learned further otherwise.

    Args:
        table: Array of shape `(vocabulary, width)`.
        rank, hidden_dim, activation: The structure.
        frequencies, epochs, learning_rate, seed, verbose: As for the
            `from_dense` of a distilled layer.

    Returns:
        The arrays `U`, `b1`, `P`, `b2` and, with a hidden layer, `K` and `S`
        of `keras_embcomp.numerics.distilled`.
    """
    if epochs is None:
        epochs = min(max(_SHOWN_ROWS // len(table), 30), 120)
    positive_int("epochs", epochs)
    weights = frequency_weights(frequencies, len(table))
    rows, directions, mean, scale = principal_rows(table, rank, weights)
    affine = rows, directions, mean
    table = table / scale

    def of_array(array):
        return ops.convert_to_numpy(activation(array))

    if hidden_dim:
        start = with_hidden_layer(*affine, hidden_dim, seed)
    else:
        moved = rescaled(lifted(*affine), scale)
        features = (moved[0] + moved[1]).astype("float32")
        if np.array_equal(of_array(features), features):
            return moved
        start = regressed(rows, of_array, table, weights)
    found = _learned(
        _Decoded(activation, start),
        table,
        weights,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        verbose=verbose,
    )
    if hidden_dim:
        return rescaled(found, scale)
    # The activation commutes with no factor.
    narrow, bias, projection, projection_bias = found
    return narrow, bias, projection * scale, projection_bias * scale


def _learned(layer, table, weights, *, epochs, learning_rate, seed, verbose):
    """Returns the weights with which a layer's rows are nearest to a table's.

    Minimises the weighted mean of squared errors with Adam, whose rate warms up
    and falls to nothing. Keeps the weights of the best epoch, or those that the
    layer had. Ends after five epochs without a gain.

    Args:
        layer: A `_Decoded`.
        table: Array of shape `(vocabulary, width)`, about of unit variance.
        weights: Weights of the rows, of mean 1.
        epochs: Integer. Passes over the rows, at most.
        learning_rate: Number. The highest rate.
        seed: Integer. Seed of the order of rows.
        verbose: As in `keras.Model.fit`: 1 shows a progress bar.
    """
    batch_size = max(len(table) // _STEPS, 32)
    rows = _Rows(table, weights.astype("float32"), batch_size, seed)
    start, error = layer.get_weights(), layer.error(table, weights)
    if error < _NOTHING_TO_GAIN:
        return start
    ids = keras.Input((), dtype="int32")
    model = keras.Model(ids, layer(ids))
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
    if not layer.error(table, weights) < error:
        return start
    return layer.get_weights()
