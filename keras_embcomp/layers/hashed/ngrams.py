"""Ids of the last words together."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_embcomp.checks import positive_int
from keras_embcomp.numerics.hashed.tabulation import (
    BYTES,
    bytes_of,
    check_integers,
    check_size,
    hashes,
    random_table,
)


@keras.saving.register_keras_serializable(package="keras_embcomp")
class NGramIds(keras.layers.Layer):
    """Turns ids into hashed ids of the last two, three or more together.

    An embedding of them, such as `HashedEmbedding`, beside that of the ids
    tells a model of what often comes together at the cost of a lookup. Before
    the first id of a row stand ids of -1. Two different n-grams have the same
    id with a probability of `1 / num_ids`. There is no weight.

    Args:
        num_ids: Integer. Ids that n-grams are hashed to, from 0 to
            `num_ids - 1`: the `input_dim` of the embedding.
        orders: Sequence of integers above 1. How many ids are hashed together.
        seed: Integer. The hashes.
        **kwargs: Base layer keyword arguments, such as `name`.

    Call arguments:
        inputs: Integer ids.

    Input shape:
        Integer tensor of shape `(batch, length)`.

    Output shape:
        `(batch, length, len(orders))`, int32.

    Example:

    >>> ids = np.array([[5, 8, 3, 8, 3]])
    >>> found = NGramIds(10_000, orders=(2, 3))(ids)
    >>> found.shape
    (1, 5, 2)
    >>> bool(found[0, 2, 0] == found[0, 4, 0])  # 8, 3 both times
    True

    Reference:
    - [Cheng et al., 2026](https://arxiv.org/abs/2601.07372), section 2
    """

    def __init__(
        self,
        num_ids: int,
        orders: Sequence[int] = (2, 3),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_ids = positive_int("num_ids", num_ids)
        self.orders = tuple(positive_int("orders", one) for one in orders)
        if not self.orders or min(self.orders) < 2:
            raise ValueError(
                "`orders` must be integers above 1. "
                f"Received: orders={tuple(orders)}"
            )
        self._longest = max(self.orders)
        check_size("num_ids", self.num_ids, self._longest * BYTES)
        self.seed = seed
        self.supports_masking = True
        self.autocast = False
        table = random_table(
            self._longest * BYTES,
            [self.num_ids] * len(self.orders),
            seed,
        ).reshape(self._longest, -1, len(self.orders))
        for column, order in enumerate(self.orders):
            table[order:, :, column] = 0
        self._table = table

    def call(self, inputs):
        check_integers(inputs.dtype)
        before = self._longest - 1
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        ids = inputs if dtype == "int64" else ops.cast(inputs, "int32")
        ids = ops.pad(ids, ((0, 0), (before, 0)), constant_values=-1)
        values = bytes_of(ids)
        total: Any = 0
        for back, table in enumerate(self._table):
            window = values[:, before - back : -back or None]
            total = total + hashes(window, table)
        return total % self.num_ids

    def compute_output_shape(self, input_shape):
        return (*input_shape, len(self.orders))

    def compute_output_spec(self, inputs):
        shape = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(shape, dtype="int32")

    def get_config(self):
        return {
            **super().get_config(),
            "num_ids": self.num_ids,
            "orders": list(self.orders),
            "seed": self.seed,
        }
