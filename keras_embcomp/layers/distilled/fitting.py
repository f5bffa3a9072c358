"""Fits a layer to a table: the second of the distilled paper's three stages."""

import keras
import numpy as np

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


def fit_rows(
    layer,
    table,
    weights,
    *,
    epochs,
    learning_rate,
    seed,
    verbose,
):
    """Trains a built embedding so that its rows are those of a table.

    Minimises the weighted mean of squared errors with Adam, whose rate warms up
    and falls to nothing. Keeps the weights of the best epoch, or those that the
    layer had. Ends after five epochs without a gain.

    Args:
        layer: A built embedding.
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
    if not _error(layer, table, weights) < error:
        layer.set_weights(start)


def _error(layer, table, weights):
    """Returns the weighted mean of squared errors."""
    errors = np.square(layer.to_dense() - table).mean(axis=1, dtype="float64")
    return weights @ errors / len(weights)
