"""Additions whose gradients are sums in float32."""

import keras
from keras import ops

from keras_embcomp._types import Tensor


def plus_broadcast(tensor: Tensor, addend: Tensor) -> Tensor:
    """Returns `tensor + addend`, of the dtype of `tensor`.

    The gradient of an addend that is broadcast is a sum, over all units for
    one. TensorFlow on CPUs adds numbers of half precision up in half precision:
    what is below the rounding of the sum so far is lost, and positive and
    negative parts no longer cancel. In float32 they do.

    Args:
        tensor: Float tensor.
        addend: Tensor of the same dtype, which is broadcast to its shape.
    """
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype not in ("float16", "bfloat16"):
        return tensor + addend  # `ops.add` fails for some shapes of no tokens
    wide = ops.cast(tensor, "float32") + ops.cast(addend, "float32")
    return ops.cast(wide, dtype)
