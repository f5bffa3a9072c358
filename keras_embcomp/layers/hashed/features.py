"""Rows of the ids of many features, out of one pool."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import constraints, initializers, ops, regularizers

from keras_embcomp._types import Array, ArrayLike, Tensor
from keras_embcomp.checks import at_most, positive_int
from keras_embcomp.numerics.hashed.subvectors import (
    check_parts,
    pools_of_parts,
)
from keras_embcomp.numerics.hashed.tabulation import (
    BYTES,
    bytes_of,
    bytes_of_halves,
    check_integers,
    check_size,
    hashes,
    random_table,
    salt_of,
    split_into_halves,
)
from keras_embcomp.numerics.lookup import take_rows


@keras.saving.register_keras_serializable(package="keras_embcomp")
class HashedFeatures(keras.layers.Layer):
    """Embeds the ids of many features by pieces out of one pool.

    An id is any integer of 64 bits: a hash, a user as it comes, a negative one
    too. There is no vocabulary, and no id is out of range. A row is
    `num_parts` sub-vectors, one after the other. Each part has a share of the
    pool of its own, and a hash of the id and the feature's name picks from it:
    two ids, of one feature or of two, have the same sub-vector of a part with a
    probability of `num_parts / num_subvectors`, and the same row with that
    probability to the power of `num_parts`.

    A feature's rows depend on its name and `seed`, not on what other features
    there are. They are the same on each backend and in exported files.

    Args:
        features: Sequence of strings. Names of the features.
        output_dim: Integer. Width of an embedding.
        num_subvectors: Integer. Size of the pool, at least `num_parts`. It
            holds `num_subvectors * output_dim / num_parts` parameters.
        num_parts: Integer. Pieces of a row; it divides `output_dim`.
        seed: Integer. The hashes.
        split: Boolean. Whether ids come as two numbers of 32 bits along a last
            axis, as `HashedFeatures.halves` makes them. JAX has no integers of
            64 bits unless it is told to: larger ids must be split there.
        subvectors_initializer: Initializer of the pool.
        subvectors_regularizer: Regularizer of the pool.
        subvectors_constraint: Constraint of the pool.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Dictionary from each feature's name to its ids.

    Input shape:
        A dictionary of integer tensors, each of any shape; on TensorFlow
        strings too, which are hashed as by `keras.layers.Hashing(2**63 - 1)`.
        With `split`, int32 tensors of shape `(..., 2)`.

    Output shape:
        A dictionary of the same names: the shape of the ids with `output_dim`
        appended.

    Example:

    >>> layer = HashedFeatures(["user", "item"], 64, num_subvectors=20_000)
    >>> ids = {"user": np.array([-3, 17]), "item": np.array([[5], [9]])}
    >>> rows = layer(ids)
    >>> rows["user"].shape
    (2, 64)
    >>> rows["item"].shape
    (2, 1, 64)

    References:
    - [Li et al., 2018](https://arxiv.org/abs/1711.09873)
    - Simple tabulation hashing:
      [Patrascu and Thorup, 2012](https://arxiv.org/abs/1011.5200)
    - One pool for many features:
      [Coleman et al., 2023](https://arxiv.org/abs/2305.12102)
    """

    def __init__(
        self,
        features: Sequence[str],
        output_dim: int,
        num_subvectors: int,
        num_parts: int = 4,
        seed: int = 0,
        split: bool = False,
        subvectors_initializer: Any = "uniform",
        subvectors_regularizer: Any = None,
        subvectors_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.features = _names(features)
        self.output_dim = positive_int("output_dim", output_dim)
        self.num_subvectors = positive_int("num_subvectors", num_subvectors)
        self.num_parts = positive_int("num_parts", num_parts)
        check_parts("output_dim", self.output_dim, self.num_parts)
        at_most("num_parts", num_parts, "num_subvectors", num_subvectors)
        self._sizes, self._starts = pools_of_parts(num_subvectors, num_parts)
        check_size("num_subvectors", self._sizes[0], BYTES)
        self.seed = seed
        self.split = split
        self.subvectors_initializer = initializers.get(subvectors_initializer)
        self.subvectors_regularizer = regularizers.get(subvectors_regularizer)
        self.subvectors_constraint = constraints.get(subvectors_constraint)
        self._hashes = random_table(BYTES, self._sizes, seed)
        # Keras would cast float ids, and float32 has no 2**24 + 1.
        self.autocast = False

    @staticmethod
    def halves(ids: ArrayLike) -> Array:
        """Returns ids as the layer takes them with `split=True`.

        Args:
            ids: Array of integers of any shape.

        Returns:
            An int32 array of shape `(*ids.shape, 2)`: the low and the high 32
            bits.
        """
        return split_into_halves(ids)

    def __call__(self, inputs, *args, **kwargs):
        self._check_features(inputs)
        if keras.backend.backend() == "jax" and not self.split:
            for name, ids in inputs.items():
                _check_fits(name, ids)
        return super().__call__(inputs, *args, **kwargs)

    def _check_features(self, inputs: Any) -> None:
        known = set(self.features)
        given = set(inputs) if isinstance(inputs, Mapping) else None
        if given != known:
            received = sorted(given) if given is not None else type(inputs)
            raise ValueError(
                "`inputs` must be a dictionary with the features "
                f"{', '.join(self.features)}. Received: {received}"
            )

    def build(self, input_shape=None):
        self.subvectors = self.add_weight(
            name="subvectors",
            shape=(self.num_subvectors, self.output_dim // self.num_parts),
            initializer=self.subvectors_initializer,
            regularizer=self.subvectors_regularizer,
            constraint=self.subvectors_constraint,
        )

    def call(self, inputs):
        return {name: self._rows(name, inputs[name]) for name in self.features}

    def _rows(self, name: str, ids: Tensor) -> Tensor:
        dtype = keras.backend.standardize_dtype(ids.dtype)
        if dtype == "string" and not self.split:
            import tensorflow as tf

            ids = tf.strings.to_hash_bucket_fast(ids, 2**63 - 1)
        else:
            check_integers(dtype, f" for feature '{name}'")
        if self.split:
            if ids.shape[-1] != 2:
                raise ValueError(
                    "Ids that are split must have a last axis of 2. Received: "
                    f"ids of shape {ids.shape} for feature '{name}'"
                )
            values = bytes_of_halves(ids)
        else:
            values = bytes_of(ids)
        salt = ops.convert_to_tensor(salt_of(name, self.seed))
        found = hashes((values + salt) % 256, self._hashes)
        sizes, starts = (
            ops.convert_to_tensor(np.array(numbers, "int32"))
            for numbers in (self._sizes, self._starts)
        )
        places = found % sizes + starts
        pieces = take_rows(self.subvectors, places)
        lead = ops.shape(values)[:-1]
        rows = ops.reshape(pieces, (*lead, self.output_dim))
        return ops.cast(rows, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return {
            name: (
                *(shape[:-1] if self.split else shape),
                self.output_dim,
            )
            for name, shape in input_shape.items()
        }

    def compute_output_spec(self, inputs):
        shapes = self.compute_output_shape(
            {name: ids.shape for name, ids in inputs.items()}
        )
        return {
            name: keras.KerasTensor(shapes[name], dtype=self.compute_dtype)
            for name in self.features
        }

    def get_config(self):
        serialized = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "features": list(self.features),
            "output_dim": self.output_dim,
            "num_subvectors": self.num_subvectors,
            "num_parts": self.num_parts,
            "seed": self.seed,
            "split": self.split,
            "subvectors_initializer": serialized(self.subvectors_initializer),
            "subvectors_regularizer": serialized(self.subvectors_regularizer),
            "subvectors_constraint": serialized(self.subvectors_constraint),
        }


def _names(features: Sequence[str]) -> tuple[str, ...]:
    names = () if isinstance(features, str) else tuple(features)
    strings = all(isinstance(name, str) for name in names)
    if not names or not strings or len(set(names)) < len(names):
        raise ValueError(
            "`features` must be a sequence of names that differ. "
            f"Received: features={features!r}"
        )
    return names


def _check_fits(name: str, ids: Any) -> None:
    """Raises if JAX would cut the ids of an array to 32 bits."""
    import jax

    if not isinstance(ids, np.ndarray) or jax.config.jax_enable_x64:
        return
    wide = ids.dtype.kind in "iu" and ids.dtype.itemsize == 8
    if wide and not np.array_equal(ids.astype("int32"), ids):
        raise ValueError(
            "On JAX, ids of more than 32 bits must be split: use "
            "`HashedFeatures(..., split=True)` and `HashedFeatures.halves`. "
            f"Received: ids from {ids.min()} to {ids.max()} for feature "
            f"'{name}'"
        )
