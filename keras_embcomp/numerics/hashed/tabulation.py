"""Hashes of ids of up to 64 bits, by simple tabulation.

A hash is the sum, modulo its size, of one random number for each byte of the
id: `sum(table[i][byte_i]) % size` (Zobrist 1970; Patrascu and Thorup 2012). Two
different ids have the same hash with a probability of `1 / size` over the draw
of the tables, and the hashes of any three ids are independent. Nothing but
bytes, gathers and sums of small numbers is computed, so that each backend and
each runtime of files gives the same: also one that holds integers as float32,
as long as eight times the size stays below 2**24.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp._types import Array, Tensor

BYTES = 8  # of an id
_VALUES = 256


def check_size(name: str, size: int, count: int) -> None:
    """Raises a `ValueError` if sums of `count` numbers may pass 31 bits."""
    if size * count >= 2**31:
        raise ValueError(
            f"`{name}` must be below 2**31 / {count} = {2**31 // count}. "
            f"Received: {name}={size}"
        )


def check_integers(dtype: Any, where: str = "") -> None:
    """Raises a `ValueError` unless a dtype is one of integers."""
    if not keras.backend.is_int_dtype(dtype):
        raise ValueError(
            f"Ids must be integers. Received: ids of dtype {dtype}{where}"
        )


def random_table(count: int, sizes: Sequence[int], seed: int) -> Array:
    """Returns random numbers below sizes for each value of each byte.

    Args:
        count: How many bytes an id has.
        sizes: Integers, one for each hash.
        seed: Integer.

    Returns:
        An int32 array of shape `(256 * count, hashes)`.
    """
    generator = np.random.default_rng(seed)
    shape = (_VALUES * count, len(sizes))
    return generator.integers(0, sizes, shape).astype("int32")


def salt_of(name: str, seed: int) -> Array:
    """Returns what is added to the bytes of ids of a feature, `(8,)`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.frombuffer(digest[:BYTES], "uint8").astype("int32")


def hashes(values: Tensor, table: Array) -> Tensor:
    """Returns the sums of the numbers of bytes, of shape `(..., hashes)`.

    Args:
        values: int32 tensor of shape `(..., count)`, from 0 to 255.
        table: The result of `random_table`.
    """
    count = len(table) // _VALUES
    places = values + ops.convert_to_tensor(
        np.arange(0, _VALUES * count, _VALUES, dtype="int32")
    )
    numbers = ops.take(ops.convert_to_tensor(table), places, axis=0)
    return ops.sum(numbers, axis=-2)


def bytes_of(ids: Tensor) -> Tensor:
    """Returns the bytes of integers as int64, the last ones first.

    Args:
        ids: Integer tensor of any shape.

    Returns:
        int32 tensor of shape `(*ids.shape, 8)`.
    """
    dtype = keras.backend.standardize_dtype(ids.dtype)
    signed = not dtype.startswith("uint") and dtype != "bool"
    if dtype not in ("int64", "uint64"):
        ids = ops.cast(ids, "uint32" if dtype == "uint32" else "int32")
    found = ops.cast(_VIEWS[keras.backend.backend()](ids), "int32")
    if found.shape[-1] == BYTES:
        return found
    high = ops.expand_dims(ops.zeros_like(found[..., 0]), -1)
    if signed:
        high = ops.where(found[..., 3:] >= _VALUES // 2, _VALUES - 1, high)
    return ops.concatenate([found, *(BYTES // 2) * [high]], axis=-1)


def bytes_of_halves(halves: Tensor) -> Tensor:
    """Returns what `bytes_of` does, of ids that are split into two int32."""
    found = _VIEWS[keras.backend.backend()](ops.cast(halves, "int32"))
    found = ops.cast(found, "int32")
    return ops.concatenate([found[..., 0, :], found[..., 1, :]], axis=-1)


def split_into_halves(ids: Any) -> Array:
    """Returns the low and the high 32 bits of ids, int32 `(*ids.shape, 2)`.

    Raises:
        ValueError: unless the ids are integers.
    """
    ids = np.asarray(ids)
    check_integers(ids.dtype)
    whole = ids.astype("<u8" if ids.dtype == "uint64" else "<i8", order="C")
    return whole.view("<i4").reshape(*ids.shape, 2)


def _bytes_in_tensorflow(ids: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.bitcast(ids, "uint8")


def _bytes_in_jax(ids: Tensor) -> Tensor:
    import jax

    return jax.lax.bitcast_convert_type(ids, "uint8")


def _bytes_in_torch(ids: Tensor) -> Tensor:
    import torch

    return ids.unsqueeze(-1).contiguous().view(torch.uint8)


_VIEWS = {
    "tensorflow": _bytes_in_tensorflow,
    "jax": _bytes_in_jax,
    "torch": _bytes_in_torch,
}
