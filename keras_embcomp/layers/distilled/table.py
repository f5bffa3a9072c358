"""What the two sides of a distilled layer share: narrow rows and a decoder."""

import numpy as np
from keras import activations, initializers, ops

from keras_embcomp.checks import frequency_weights, positive_int
from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.distilled.fitting import fit_rows
from keras_embcomp.numerics.distilled import (
    Decoder,
    decoded_logits,
    decoded_scores,
    lifted,
    principal_rows,
    regressed,
    rescaled,
    with_hidden_layer,
)
from keras_embcomp.numerics.lookup import from_the_end_once, take_rows
from keras_embcomp.layers.factors import whole

_BLOCK_ROWS = 16_384
_SHOWN_ROWS = 1_000_000  # in all epochs
_LIFT = initializers.Constant(0.05)


class DecodedTable(Compressed):
    """A table decoded from narrow rows, to be mixed into either side."""

    def set_decoder(self, rank, activation, hidden_dim, **parts):
        """Keeps what the decoder depends on."""
        self.rank = positive_int("rank", rank)
        if hidden_dim is not None:
            hidden_dim = positive_int("hidden_dim", hidden_dim)
        self.hidden_dim = hidden_dim
        self.decoder_activation = activations.get(activation)
        self.set_parts(**parts)

    def add_decoder(self, vocabulary, width):
        """Creates the weights of the table."""
        self.embeddings = self.add_table_weight(
            "embeddings", (vocabulary, self.rank)
        )
        features = self.hidden_dim or self.rank
        # Without a hidden layer, a row whose features are all 0 would have no
        # gradient: the bias starts them above.
        self.hidden_bias = self.add_weight(
            name="hidden_bias",
            shape=(features,),
            initializer="zeros" if self.hidden_dim else _LIFT,
        )
        self.projection = self.add_table_weight(
            "projection", (features, width), shared=True
        )
        self.projection_bias = self.add_weight(
            name="projection_bias", shape=(width,), initializer="zeros"
        )
        self.hidden_kernel = self.shortcut = None
        if self.hidden_dim:
            self.hidden_kernel = self.add_factor(
                "hidden_kernel",
                (self.rank, self.hidden_dim),
                shared=True,
                initializer="he_normal",
            )
            self.shortcut = self.add_factor(
                "shortcut",
                (self.rank, width),
                shared=True,
                initializer="lecun_normal",
            )

    @property
    def decoder(self):
        """What decodes narrow rows, of the dtypes of the weights."""
        return Decoder(
            self.decoder_activation,
            self.hidden_bias,
            self.projection,
            self.projection_bias,
            self.hidden_kernel,
            self.shortcut,
        )

    def rows(self, ids):
        """Returns the rows `ids` of the table."""
        ids = from_the_end_once(ids, self.dense_shape[0])
        narrow = ops.cast(take_rows(self.embeddings, ids), self.compute_dtype)
        return self.decoder.cast(narrow.dtype, ids).decode(narrow)

    def row_scores(self, hidden):
        decoder = self.decoder.cast(hidden.dtype)
        return [decoded_scores(hidden, self.embeddings, decoder)], None

    def logit_blocks(self, hidden):
        decoder = self.decoder.cast(hidden.dtype, hidden)
        return decoded_logits(hidden, self.embeddings, decoder), None

    def logits(self, hidden):
        """Returns `hidden @ table.T`, of shape `(..., vocabulary)`."""
        blocks, _ = self.logit_blocks(hidden)
        return blocks[0] if len(blocks) == 1 else ops.concatenate(blocks, -1)

    def to_dense(self):
        """Returns the table as a float32 NumPy array of `dense_shape`."""
        embeddings = whole(self.embeddings, "float32")
        decoder = self.decoder.cast("float32")
        return np.concatenate(
            [
                ops.convert_to_numpy(
                    decoder.decode(embeddings[start : start + _BLOCK_ROWS])
                )
                for start in range(0, embeddings.shape[0], _BLOCK_ROWS)
            ]
        )

    @property
    def can_settle(self):
        """Whether `settle` can be called."""
        return (
            self.hidden_dim is None
            and self.decoder_activation is activations.relu
            and self.quantization_mode is None
            and self.fake_quantization is None
        )

    def settle(self):
        """Takes the ReLU into `embeddings`, as weights will not change again.

        `relu(u + b)` is `max(u, -b) + b`: a feature that ReLU leaves alone is
        stored as it is, and its bias becomes one of the rows. Where it cuts
        off most, what is left is smaller, and is stored.
        """
        bias = ops.convert_to_numpy(self.hidden_bias)
        rows = ops.convert_to_numpy(self.embeddings)
        left, cut = np.maximum(rows + bias, 0), np.maximum(rows, -bias)
        moved = np.abs(cut).max(axis=0) < left.max(axis=0)
        shift = np.where(moved, bias, 0)
        projection = ops.convert_to_numpy(self.projection)
        self.embeddings.assign(np.where(moved, cut, left))
        self.hidden_bias.assign(np.zeros_like(bias))
        self.projection_bias.assign_add(shift @ projection)
        self.decoder_activation = activations.linear

    def activation_of(self, array):
        """Returns the decoder's activation of a NumPy array, as another."""
        return ops.convert_to_numpy(self.decoder_activation(array))

    def set_table(self, weights):
        """Assigns the weights of the table, in the order of `table_weights`."""
        for weight, value in zip(self.table_weights, weights, strict=True):
            weight.assign(value)

    @property
    def table_weights(self):
        """The weights of the table, without the bias of an output layer."""
        weights = [
            self.embeddings,
            self.hidden_bias,
            self.projection,
            self.projection_bias,
        ]
        if self.hidden_dim:
            weights += [self.hidden_kernel, self.shortcut]
        return weights

    def get_config(self):
        return {
            **super().get_config(),
            "rank": self.rank,
            "hidden_dim": self.hidden_dim,
        }


def fit_table(layer, table, frequencies, epochs, learning_rate, seed, verbose):
    """Assigns the weights of a built float32 embedding that fit a table best.

    Starts from the best affine table, which for the paper's form with ReLU is
    the best of all, and is learned further otherwise.
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
    if not layer.hidden_dim:
        arrays = rescaled(lifted(*affine), factor, scale)
        features = (arrays[0] + arrays[1]).astype("float32")
        if np.array_equal(layer.activation_of(features), features):
            layer.set_table(arrays)
            return
    if layer.hidden_dim:
        start = with_hidden_layer(*affine, layer.hidden_dim, seed)
    else:
        factor = 1.0
        start = regressed(affine[0], layer.activation_of, table, weights)
    layer.set_table(start)
    fit_rows(
        layer,
        table,
        weights,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        verbose=verbose,
    )
    found = [ops.convert_to_numpy(weight) for weight in layer.table_weights]
    layer.set_table(rescaled(found, factor, scale))
