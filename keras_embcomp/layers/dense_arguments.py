"""Arguments of Keras' embeddings that a compressed one does not take."""

import inspect
import warnings
from typing import Any

import numpy as np

from keras_embcomp.layers.lora import Adaptable

_KINDS = ("initializer", "regularizer", "constraint")

# Arguments of dense embeddings: what asks for nothing, and what to use else.
_DENSE_ARGUMENTS = (
    ("quantization_config", None, "give it to `quantize`"),
    ("tie_weights", True, "use a `Softmax` layer of this package beside it"),
    ("reverse_dtype", None, "cast the hidden states"),
    ("logit_soft_cap", None, "cap the logits in a layer after it"),
)


def without_dense_arguments(
    cls: type, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Returns arguments without the dense table's own, or raises.

    Arguments of `Embedding` and `ReversibleEmbedding` that a compressed layer
    does not take are refused unless they ask for nothing.
    """
    arguments = dict(arguments)
    if arguments.pop("input_length", None) is not None:
        warnings.warn(  # as Keras does
            "Argument `input_length` is deprecated. Just remove it.",
            stacklevel=4,
        )
    weights = arguments.pop("weights", None)
    if weights is not None:
        if isinstance(weights, (list, tuple)) and len(weights) == 1:
            weights = weights[0]
        raise ValueError(
            "`weights` must be given to `from_dense`, which finds the factors "
            f"of a table. Received: weights of shape {np.shape(weights)}"
        )
    for kind in _KINDS:
        name = f"embeddings_{kind}"
        value = arguments.pop(name, None)
        if value is not None:
            own = " and ".join(f"`{part}`" for part in _parts_of(cls, kind))
            raise ValueError(
                f"`{name}` must be given as {own}, for a `{cls.__name__}` has "
                f"no dense table. Received: {name}={value!r}"
            )
    for name, nothing, instead in _DENSE_ARGUMENTS:
        value = arguments.pop(name, nothing)
        if value != nothing:
            raise ValueError(
                f"`{name}` must be {nothing}: {instead}. "
                f"Received: {name}={value!r}"
            )
    return arguments


def _parts_of(cls, kind):
    """Returns the arguments of a class for parts of its factors."""
    names = (
        name
        for base in cls.__mro__
        if issubclass(base, Adaptable)
        for name in inspect.signature(base.__init__).parameters
        if name.endswith(f"_{kind}")
    )
    return list(dict.fromkeys(names))
