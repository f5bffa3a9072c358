"""Checks what an entry of a plan says of a layer that there is not yet."""

import inspect
import math
import numbers
from typing import Any

from keras_embcomp._compat import unallocated
from keras_embcomp.checks import one_of
from keras_embcomp.compression.candidates import structure_bytes, structured
from keras_embcomp.layers.base import Compressed, CompressedEmbedding
from keras_embcomp.layers.method import Arguments, Shape
from keras_embcomp.layers.methods import METHODS, method_named
from keras_embcomp.layers.softmax import CompressedSoftmax

# A layer may exceed its table, but not by what takes all memory.
_MOST = 2**30
# How a weight begins, is held back and is kept in bounds: no structure.
_OF_WEIGHTS = ("_initializer", "_regularizer", "_constraint", "_stddev")


def check_structure(
    method: str,
    number_format: str | None,
    arguments: Arguments,
    shape: Shape,
    side: type[Compressed] | None = None,
) -> int | None:
    """Raises unless there is such a layer.

    Nothing of its size is allocated.

    Args:
        method: Name of a method, or `"keep"`.
        number_format: `None`, or the name of a number format.
        arguments: Structural arguments.
        shape: Rows and width of the table.
        side: The class that takes the arguments. The embedding if not given.

    Returns:
        The bytes of the layer; `None` for `"keep"`.

    Raises:
        ValueError: if there is none; names the field.
    """
    one_of("method", method, ("keep", *(one.name for one in METHODS)))
    if method == "keep":  # what the entry said of a method does not count
        return None
    found = method_named(method)
    if number_format not in found.formats:
        raise ValueError(
            f"`number_format` must be one of "
            f"{', '.join(map(str, found.formats))} for {method}. "
            f"Received: number_format={number_format!r}"
        )
    _check_arguments(side or found.embedding, arguments)
    try:
        held = structure_bytes(found, number_format, arguments, shape)
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"`arguments` must be those of `{found.embedding.__name__}` for a "
            f"table of shape {shape}. Received: arguments={arguments} "
            f"({error or type(error).__name__})"
        ) from error
    if held > max(40 * shape[0] * shape[1], _MOST):
        raise ValueError(
            "`arguments` must make the table smaller. "
            f"Received: arguments={arguments}, of {held:,} bytes"
        )
    return held


def trains(
    method: str, number_format: str | None, arguments: Arguments, shape: Shape
) -> bool:
    """Returns whether a layer has weights that train."""
    if method == "keep":
        return True
    with unallocated():
        layer = structured(
            method_named(method), number_format, arguments, shape
        )
    return bool(layer.trainable_weights)


def structural_arguments(side: type[Compressed]) -> list[str]:
    """Returns the arguments of a layer that say how its table is written."""
    bases = (CompressedEmbedding, CompressedSoftmax)
    base = next(base for base in bases if issubclass(side, base))
    common = {*_parameters(base), "input_dim", "output_dim", "units"}
    return [
        name
        for name in _parameters(side)
        if name not in common and not name.endswith(_OF_WEIGHTS)
    ]


def _parameters(cls):
    return list(inspect.signature(cls.__init__).parameters)


def _check_arguments(side, arguments):
    allowed = structural_arguments(side)
    for name, value in arguments.items():
        if name not in allowed:
            raise ValueError(
                f"`arguments` must be of the structure, which is "
                f"{', '.join(allowed)} for `{side.__name__}`. "
                f"Received: {name}={value!r}"
            )
        if not _is_plain(value):
            raise ValueError(
                "`arguments` must be numbers, texts, None and lists of them. "
                f"Received: {name}={value!r}"
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    if isinstance(value, numbers.Integral):
        return abs(int(value)) < 2**63
    if isinstance(value, numbers.Real):
        return math.isfinite(float(value))
    return value is None or isinstance(value, str)
