"""What a compressed layer takes over from the dense layer it replaces."""

from typing import Any

import keras
from keras import ops

from keras_embcomp._types import Array


def embedding_parts(layer: keras.Layer) -> tuple[Array, dict[str, Any]]:
    """Returns the table of an `Embedding` and the arguments to keep.

    Raises:
        ValueError: for another layer, or one that is unbuilt, quantized, or
            does more than a tied table.
    """
    if not isinstance(layer, keras.layers.Embedding):
        raise _wrong_layer(layer, "an `Embedding` or `ReversibleEmbedding`")
    if not getattr(layer, "tie_weights", True):
        raise ValueError(
            "`layer` must tie its two sides. "
            f"Received: tie_weights=False in layer '{layer.name}'"
        )
    if getattr(layer, "logit_soft_cap", None) is not None:
        raise ValueError(
            "`layer` must not cap its logits. Received: "
            f"logit_soft_cap={layer.logit_soft_cap} in layer '{layer.name}'"
        )
    _check_trained(layer)
    table = ops.convert_to_numpy(layer.embeddings)
    return table, {"mask_zero": layer.mask_zero, **_common(layer)}


def dense_parts(layer: keras.Layer) -> tuple[Array, dict[str, Any]]:
    """Returns the transposed kernel of a `Dense` and the arguments to keep.

    Raises:
        ValueError: for another layer, or one that is unbuilt or quantized.
    """
    if not isinstance(layer, keras.layers.Dense):
        raise _wrong_layer(layer, "a `Dense`")
    _check_trained(layer)
    arguments = {
        "bias": ops.convert_to_numpy(layer.bias) if layer.use_bias else None,
        "use_bias": layer.use_bias,
        "bias_regularizer": layer.bias_regularizer,
        "bias_constraint": layer.bias_constraint,
        "activation": layer.activation,
    }
    table = ops.convert_to_numpy(layer.kernel).T
    return table, {**arguments, **_common(layer)}


def _wrong_layer(layer, wanted):
    return ValueError(
        f"`layer` must be {wanted} layer of Keras. Received: layer={layer!r}"
    )


def _check_trained(layer):
    if not layer.built:
        raise ValueError(
            "`layer` must be built, so that it has weights. "
            f"Received: layer '{layer.name}', not built"
        )
    if layer.quantization_mode is not None:
        raise ValueError(
            "`layer` must hold float weights. Received: layer "
            f"'{layer.name}' quantized to {layer.quantization_mode}"
        )


def _common(layer):
    return {
        "name": layer.name,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
        "activity_regularizer": layer.activity_regularizer,
    }
