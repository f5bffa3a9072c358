"""The table of a distilled layer: narrow rows and a decoder."""

from typing import Any, Self

import numpy as np
from keras import activations, initializers, ops

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import at_most, positive_int
from keras_embcomp.layers.base import Compressed, Resizing
from keras_embcomp.layers.distilled.fitting import fitted_weights
from keras_embcomp.layers.execution import current_execution
from keras_embcomp.numerics.blocks import row_blocks
from keras_embcomp.numerics.distilled import (
    Decoder,
    decoded_logits,
    decoded_scores,
    returned,
)
from keras_embcomp.numerics.lookup import from_the_end_once

_LIFT = initializers.Constant(0.05)


class DistilledTable(Compressed):
    """The table is decoded from `embeddings`, which are narrow rows."""

    def _set_structure(
        self, rank: int, activation: Any, hidden_dim: int | None, **parts: Any
    ) -> None:
        self.rank = positive_int("rank", rank)
        if hidden_dim is not None:
            hidden_dim = positive_int("hidden_dim", hidden_dim)
        self.hidden_dim = hidden_dim
        self.decoder_activation = activations.get(activation)
        self._set_parts(**parts)

    def _check_width(self, name, width):
        at_most("rank", self.rank, name, width)

    def _build_table(self, width):
        self.embeddings = self._add_table_weight(
            "embeddings", (self._vocabulary, self.rank)
        )
        features = self.hidden_dim or self.rank
        # Without a hidden layer, a row whose features are all 0 would have no
        # gradient: the bias starts them above.
        self.hidden_bias = self.add_weight(
            name="hidden_bias",
            shape=(features,),
            initializer="zeros" if self.hidden_dim else _LIFT,
        )
        self.projection = self._add_table_weight(
            "projection", (features, width), shared=True
        )
        self.projection_bias = self.add_weight(
            name="projection_bias", shape=(width,), initializer="zeros"
        )
        self.hidden_kernel = self.shortcut = None
        if self.hidden_dim:
            self.hidden_kernel = self._add_factor(
                "hidden_kernel",
                (self.rank, self.hidden_dim),
                shared=True,
                initializer="he_normal",
            )
            self.shortcut = self._add_factor(
                "shortcut",
                (self.rank, width),
                shared=True,
                initializer="lecun_normal",
            )

    @property
    def _decoder(self):
        """What decodes narrow rows, in the dtypes of the weights."""
        return Decoder(
            self.decoder_activation,
            self.hidden_bias,
            self.projection,
            self.projection_bias,
            self.hidden_kernel,
            self.shortcut,
        )

    def _rows(self, ids):
        execution = current_execution()
        ids = from_the_end_once(execution, ids, self._vocabulary)
        narrow = execution.take(self.embeddings, ids)
        narrow = ops.cast(narrow, self.compute_dtype)
        decoder = self._decoder.cast(execution, narrow.dtype, ids)
        return decoder.decode(narrow)

    def _logit_blocks(self, hidden):
        execution = current_execution()
        decoder = self._decoder.cast(execution, hidden.dtype, hidden)
        blocks = decoded_logits(execution, hidden, self.embeddings, decoder)
        return blocks, None

    def _row_scores(self, hidden):
        execution = current_execution()
        decoder = self._decoder.cast(execution, hidden.dtype)
        scores = decoded_scores(execution, hidden, self.embeddings, decoder)
        return [scores], None

    def _table(self) -> Array:
        execution = current_execution()
        embeddings = execution.whole(self.embeddings, "float32")
        decoder = self._decoder.cast(execution, "float32")
        blocks = [
            decoder.decode(embeddings[part])
            for part in row_blocks(self._vocabulary)
        ]
        return np.concatenate([ops.convert_to_numpy(b) for b in blocks])

    @classmethod
    def from_dense(
        cls,
        table: ArrayLike,
        rank: int,
        hidden_dim: int | None = None,
        *,
        frequencies: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        epochs: int | None = None,
        learning_rate: float = 1e-2,
        seed: int = 0,
        verbose: int = 0,
        **kwargs: Any,
    ) -> Self:
        """Returns a built layer fitted to a table: stage two of the paper.

        The fit starts from the best affine table of the rank, or near it. For
        the paper's form with ReLU there is none nearer; otherwise Adam goes on.

        Args:
            table: Array of shape `(vocabulary, width)`: the table of an
                embedding, or a `Dense` kernel transposed.
            rank: Integer, at most `width`.
            hidden_dim: Integer, or `None` for the paper's form.
            frequencies: Counts of shape `(vocabulary,)`. If given, a row's
                squared error is weighed by its count.
            covariance: Second moments `E[h h^T]` of what multiplies the table,
                of shape `(width, width)`: of the hidden states that reach an
                output layer. If given, the errors of the logits count, and not
                those of the numbers (Chen et al., 2021).
            epochs: Integer. Passes over the table, at most; it ends after five
                without a gain. `None` is 120, and less from 8,333 rows on, to
                30 from 33,333.
            learning_rate: Number. The highest rate, for unit variance.
            seed: Integer. Seed of the hidden layer and of the order of rows.
            verbose: As in `keras.Model.fit`: 1 shows a progress bar.
            **kwargs: Other arguments of the constructor. On the output side
                `bias` too, an array of shape `(vocabulary,)`; `None` starts
                from `bias_initializer`.

        Raises:
            ValueError: if the table is not a finite matrix, or an argument
                does not fit it.

        Reference:
        - [Lioutas et al., 2020](https://arxiv.org/abs/1910.06720), Eq. 5
        """
        return cls._fitted(
            table,
            {"rank": rank, "hidden_dim": hidden_dim, **kwargs},
            covariance,
            frequencies=frequencies,
            epochs=epochs,
            learning_rate=learning_rate,
            seed=seed,
            verbose=verbose,
        )

    def _fit(self, table, turning=None, **how):
        structure = self.rank, self.hidden_dim, self.decoder_activation
        weights = fitted_weights(table, *structure, **how)
        if turning is not None:
            weights = returned(weights, turning)
        self._set_table(weights)

    @property
    def _can_fold_relu(self) -> bool:
        return (
            self.hidden_dim is None
            and self.decoder_activation is activations.relu
            and self.quantization_mode is None
            and self.fake_quantization is None
        )

    def _fold_relu(self) -> None:
        """Folds the ReLU into `embeddings`; for inference only.

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

    def _set_table(self, weights):
        """Assigns weights in the order of `_table_weights`."""
        for weight, value in zip(self._table_weights, weights, strict=True):
            weight.assign(value)

    @property
    def _table_weights(self):
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

    def _resizing(self, rows):
        return Resizing()

    def _mix(self, mixtures, rows):
        self._mix_factor("embeddings", mixtures)

    def _check_weights(self):
        """Any numbers make a table."""

    def get_config(self):
        return {
            **super().get_config(),
            "rank": self.rank,
            "hidden_dim": self.hidden_dim,
        }
