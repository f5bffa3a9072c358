"""Layers that fit a table into so many bytes, of any method."""

from typing import Any

import numpy as np
from keras import ops

from keras_embcomp._compat import unallocated
from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.layers.base import Compressed, weight_bytes
from keras_embcomp.layers.method import Arguments, Method, Shape
from keras_embcomp.layers.quantization import quantized_policy
from keras_embcomp.numerics.quantized import Format

_TRIES = 6


def arguments_for(
    method: Method,
    number_format: str | None,
    table: Array,
    max_bytes: float,
    weights: Array,
    effort: str = "low",
) -> tuple[Arguments, int] | None:
    """Returns arguments of `from_dense` that keep to so many bytes.

    Args:
        method: A method.
        number_format: One of its formats.
        table: Array of shape `(vocabulary, width)`.
        max_bytes: Number.
        weights: Array of shape `(vocabulary,)`, of mean 1.
        effort: One of `EFFORTS`.

    Returns:
        The arguments, and the bytes of a layer with them; `None` if the
        method's smallest layer takes more.
    """
    each = _bytes_of_number(number_format)
    parameters = max_bytes / each
    for _ in range(_TRIES):
        try:
            arguments = method.sizes(
                table, parameters, weights, **method.efforts.get(effort, {})
            )
        except ValueError:  # the smallest layer has more parameters
            return None
        held = structure_bytes(method, number_format, arguments, table.shape)
        if held <= max_bytes:
            return arguments, held
        excess = (held - max_bytes) / each
        parameters -= max(1.005 * excess, 0.01 * parameters)
        if parameters < 1:
            return None
    return None


def _bytes_of_number(number_format):
    if number_format is None:
        return 4.0
    return 1 / Format(number_format, None).levels.in_byte


def least_bytes(method: Method, number_format: str | None, shape: Shape) -> int:
    """Returns the bytes of a method's smallest layer."""
    arguments = method.smallest(shape)
    return structure_bytes(method, number_format, arguments, shape)


def structure_bytes(
    method: Method,
    number_format: str | None,
    arguments: Arguments,
    shape: Shape,
) -> int:
    """Returns the bytes of a layer with such arguments."""
    with unallocated():
        layer = structured(method, number_format, arguments, shape)
        return weight_bytes(layer.weights)


def structured(
    method: Method,
    number_format: str | None,
    arguments: Arguments,
    shape: Shape,
) -> Compressed:
    """Returns a layer with such arguments, whose weights are not fitted."""
    dtype = "float32"
    if number_format is not None:
        dtype = quantized_policy(number_format, "float32")
    make: Any = method.embedding
    layer = make(*shape, **arguments, dtype=dtype)
    layer.build()
    return layer


def fitted(
    method: Method,
    number_format: str | None,
    arguments: Arguments,
    table: Array,
    counts: ArrayLike | None,
    is_input: bool = True,
    verbose: int = 0,
    covariance: Array | None = None,
) -> Compressed:
    """Returns a layer fitted to a table: an embedding, or an output layer."""
    arguments = {**arguments, "frequencies": counts}
    if covariance is not None and method.takes_covariance:
        arguments["covariance"] = covariance
    if method.slow_fit:
        arguments["verbose"] = verbose
    side: Any = method.embedding if is_input else method.softmax
    if number_format is not None:
        # Made in its format: floats of all its factors need not be held.
        arguments["dtype"] = quantized_policy(
            number_format, arguments.get("dtype", "float32")
        )
    return side.from_dense(table, **arguments)


def rows_between(layer: Compressed, part: slice) -> Array:
    """Returns a range of rows of a layer's table, without the others."""
    ids = np.arange(part.start, part.stop, dtype="int32")
    return ops.convert_to_numpy(ops.cast(layer.rows(ids), "float32"))
