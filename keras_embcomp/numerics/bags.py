"""Bags of ids: dense, ragged or sparse, with weights, and sums over them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_embcomp._types import Tensor
from keras_embcomp.numerics.ragged import densified, is_ragged, is_sparse


class Bags(NamedTuple):
    """Ids of bags, as a sum over each bag needs them.

    Attributes:
        ids: Tensor of shape `(*shape, length)`; or `(ids,)`, of all bags, if
            there are `segments`.
        weights: Tensor of the shape of `ids`, or `None`: all are 1.
        segments: `None`, or a tensor of shape `(ids,)` with the number of the
            bag of each id.
        shape: Of the bags, if there are `segments`.
    """

    ids: Tensor
    weights: Tensor | None
    segments: Tensor | None = None
    shape: tuple[Any, ...] = ()

    def sums(self, values: Tensor) -> Tensor:
        """Returns weighted sums of values over each bag.

        Args:
            values: Tensor of shape `(*ids.shape, width)`.

        Returns:
            Tensor of shape `(*shape, width)`.
        """
        weights = self.weights
        if weights is not None:
            weights = ops.cast(weights, values.dtype)
        if self.segments is not None:
            if weights is not None:
                values = values * ops.expand_dims(weights, -1)
            return self._segment_sums(values)
        if weights is None:
            return ops.sum(values, axis=-2)
        # A product with a row builds no weighted copy of the values.
        row = ops.expand_dims(weights, -2)
        return ops.squeeze(ops.matmul(row, values), -2)

    def divisors(self, combiner: str) -> Tensor:
        """Returns what the sum of each bag is divided by; 1 where it is 0.

        Args:
            combiner: `"mean"` or `"sqrtn"`.

        Returns:
            float32 tensor of shape `(*shape, 1)`.
        """
        weights = self.weights
        if weights is None:
            weights = ops.ones(ops.shape(self.ids), "float32")
        weights = ops.expand_dims(ops.cast(weights, "float32"), -1)
        if combiner == "sqrtn":
            weights = ops.square(weights)
        ones = self._replace(weights=None)
        total = ones.sums(weights)
        total = ops.where(ops.equal(total, 0), 1.0, total)
        return ops.sqrt(total) if combiner == "sqrtn" else total

    def _segment_sums(self, values: Tensor) -> Tensor:
        sums = ops.segment_sum(values, self.segments, math.prod(self.shape))
        if len(self.shape) == 1:
            return sums
        return ops.reshape(sums, (*self.shape, values.shape[-1]))


def bags_of(ids: Any, weights: Any = None) -> Bags:
    """Returns the bags that the last dimension of ids holds.

    Args:
        ids: Integer tensor of two or more dimensions, or a sparse one of one
            or more, or a ragged one whose last dimension alone is ragged.
        weights: `None`, or a tensor of the shape of `ids`: ragged if they are;
            if `ids` are sparse, dense or sparse.
    """
    if is_ragged(ids):
        return _ragged_bags(ids, weights)
    if is_sparse(ids):
        coordinates, values = _coordinates(ids)
        if weights is not None:
            weights = _at(densified(weights), coordinates)
        return _sparse_bags(values, weights, coordinates, _sizes(ids))
    return Bags(ids, densified(weights))


def _ragged_bags(ids: Any, weights: Any) -> Bags:
    import tensorflow as tf

    if weights is not None:
        tf.debugging.assert_equal(
            tf.cast(ids.row_splits, "int64"),
            tf.cast(weights.row_splits, "int64"),
            "`weights` must be ragged in the same way as `inputs`",
        )
        weights = weights.values
    rows = ids.nrows()
    return Bags(ids.values, weights, ids.value_rowids(), (rows,))


def _sparse_bags(
    values: Tensor,
    weights: Tensor | None,
    coordinates: Tensor,
    sizes: tuple[Any, ...],
) -> Bags:
    if len(sizes) == 1:
        # Each place is a bag of one id or none.
        return Bags(values, weights, coordinates[:, 0], sizes)
    segments = coordinates[:, 0]
    for axis, size in enumerate(sizes[1:-1], 1):
        segments = segments * size + coordinates[:, axis]
    return Bags(values, weights, segments, sizes[:-1])


def _coordinates(ids: Any) -> tuple[Tensor, Tensor]:
    """Returns the places of entries, of shape (entries, axes), and values."""
    if keras.backend.backend() == "tensorflow":
        return ids.indices, ids.values
    from jax.experimental.sparse import BCSR, bcoo_update_layout

    if isinstance(ids, BCSR):
        ids = ids.to_bcoo()
    if ids.n_batch or ids.n_dense:
        ids = bcoo_update_layout(ids, n_batch=0, n_dense=0)
    # Padding is outside; in rows of one batch in its last coordinate only.
    inside = ops.all(ids.indices < ops.array(ids.shape), axis=-1, keepdims=True)
    return ops.where(inside, ids.indices, ops.array(ids.shape)), ids.data


def _sizes(ids: Any) -> tuple[Any, ...]:
    """Returns the shape of a sparse tensor, with tensors for unknown sizes."""
    if keras.backend.backend() != "tensorflow":
        return tuple(ids.shape)
    known = ids.shape.as_list()
    return tuple(
        ids.dense_shape[axis] if size is None else size
        for axis, size in enumerate(known)
    )


def _at(values: Tensor, coordinates: Tensor) -> Tensor:
    """Returns the entries of a dense tensor at places."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather_nd(values, coordinates)
    columns = [coordinates[:, axis] for axis in range(coordinates.shape[1])]
    return values[tuple(columns)]
