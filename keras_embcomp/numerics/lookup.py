"""Row lookup, with dense gradients and the ids of a dense table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from keras_embcomp._types import ArrayLike, Tensor

if TYPE_CHECKING:
    from keras_embcomp.numerics.execution import Execution

_LARGEST = np.int64(2**31 - 1)


def take_rows(table: Tensor, ids: Tensor) -> Tensor:
    """Returns `table[ids]`, of shape `(*ids.shape, *table.shape[1:])`.

    An id out of range does what `keras.layers.Embedding` does on the backend.

    On the TensorFlow backend, the gradient of a gather straight from a variable
    is `IndexedSlices` with repeated ids, and the adaptive optimizers of Keras
    square the slices before they sum them. The reshape makes the gradient
    dense, and so equal to the gradient on other backends.
    """
    return ops.take(ops.reshape(table, table.shape), ids, axis=0)


def widened(ids: ArrayLike) -> Tensor:
    """Returns integers of 32 bits or more as a tensor of int32 or int64.

    Sums with ids, and comparisons with a vocabulary, would wrap around in
    fewer bits. An unsigned id of 2^31 or more becomes `2**31 - 1`, which is
    above every vocabulary, and never the id of another row.

    Args:
        ids: Tensor or array of integers or booleans.
    """
    if isinstance(ids, np.ndarray) and ids.dtype.kind == "u":
        # PyTorch has no uint64.
        ids = np.minimum(ids, _LARGEST.astype(ids.dtype)).astype("int32")
    ids = ops.convert_to_tensor(ids)
    dtype = keras.backend.standardize_dtype(ids.dtype)
    if dtype in ("int32", "int64"):
        return ids
    found = ops.cast(ids, "int32")
    if dtype == "uint32":
        return ops.where(ops.less(found, 0), int(_LARGEST), found)
    if dtype == "uint64":
        large = ops.greater(ops.cast(ids, "float64"), float(_LARGEST))
        return ops.where(large, int(_LARGEST), found)
    return found


def likely_count(shape: Iterable[int | None]) -> int:
    """Returns the product of sizes; an unknown size counts 32, as in Keras.

    An unknown size is `None`, or an expression where JAX infers shapes.
    """
    return math.prod(size if isinstance(size, int) else 32 for size in shape)


def inside_and_outside(
    execution: Execution, ids: Tensor, vocabulary: int
) -> tuple[Tensor, Tensor]:
    """Returns ids clipped to the range, and 1 for each id outside it, else 0.

    For lookups that compute with ids before they gather. For an id out of
    range, such a lookup must gather from beyond its own table too. The backend
    then does what it does for the dense table.
    """
    if execution.for_onnx or not execution.exporting:
        ids = ops.where(ops.less(ids, 0), ids + vocabulary, ids)
    elif keras.backend.standardize_dtype(ids.dtype) == "int64":
        # LiteRT divides int32 only.
        ids = ops.cast(ops.clip(ids, -1, vocabulary), "int32")
    inside = ops.clip(ids, 0, vocabulary - 1)
    if execution.in_xla:  # where a gather clips
        return inside, ops.zeros_like(inside)
    return inside, ops.cast(ops.not_equal(ids, inside), ids.dtype)


def from_the_end_once(
    execution: Execution, ids: Tensor, vocabulary: int
) -> Tensor:
    """Returns ids that a gather wraps once at most.

    For lookups that gather with the ids as they come. Keras adds the
    vocabulary to a negative id, and the gather of an ONNX file does so again.
    An id below `-vocabulary` would get the row of another id; it becomes
    `vocabulary`, which is out of range.
    """
    if not execution.for_onnx:
        return ids
    return ops.where(ops.less(ids, -vocabulary), vocabulary, ids)
