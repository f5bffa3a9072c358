"""What a compressed layer takes over from the dense layer it replaces."""

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_embcomp._types import Array


class DenseTable(NamedTuple):
    """A table of a layer of Keras, for a compressed layer to take over.

    Attributes:
        name: Name of the layer that takes it over.
        values: Array of shape `(vocabulary, width)`.
        arguments: Arguments of `from_dense` that keep what the layer has.
        is_input: Whether it embeds ids, or makes logits.
    """

    name: str
    values: Array
    arguments: dict[str, Any]
    is_input: bool


def dense_tables(layer: keras.Layer) -> list[DenseTable]:
    """Returns the tables of a layer of Keras: one, or two that are not tied.

    Raises:
        ValueError: as `embedding_parts` and `dense_parts`.
    """
    if isinstance(layer, keras.layers.Dense):
        values, arguments = dense_parts(layer)
        return [DenseTable(layer.name, values, arguments, False)]
    values, arguments = _input_parts(layer)
    tables = [DenseTable(layer.name, values, arguments, True)]
    if not getattr(layer, "tie_weights", True):
        name = f"{layer.name}_reverse"
        arguments = {**_common(layer), "name": name}
        arguments.update(activation=None, use_bias=False)
        values = ops.convert_to_numpy(layer.reverse_embeddings).T
        tables.append(DenseTable(name, values, arguments, False))
    return tables


def does_more(layer: keras.Layer) -> bool:
    """Returns whether an embedding does more than embed and tie."""
    return (
        not getattr(layer, "tie_weights", True)
        or getattr(layer, "logit_soft_cap", None) is not None
        or getattr(layer, "reverse_dtype", None) is not None
    )


def embedding_parts(layer: keras.Layer) -> tuple[Array, dict[str, Any]]:
    """Returns the table of an `Embedding` and the arguments to keep.

    Raises:
        ValueError: for another layer, or one that is unbuilt, quantized, or
            does more than a tied table.
    """
    if not getattr(layer, "tie_weights", True):
        raise ValueError(
            "`layer` must tie its two sides; `compress` and `replace_layers` "
            "take one that does not. "
            f"Received: tie_weights=False in layer '{layer.name}'"
        )
    if getattr(layer, "logit_soft_cap", None) is not None:
        raise ValueError(
            "`layer` must not cap its logits; `compress` and `replace_layers` "
            "take one that does. Received: "
            f"logit_soft_cap={layer.logit_soft_cap} in layer '{layer.name}'"
        )
    if is_bag(layer):
        raise ValueError(
            "`layer` must not combine embeddings; `compress` and "
            "`replace_layers` take one that does. Received: "
            f"combiner={layer.combiner} in layer '{layer.name}'"
        )
    return _input_parts(layer)


def is_bag(layer: keras.Layer) -> bool:
    """Returns whether a layer is keras-rs' `EmbedReduce`."""
    package = type(layer).__module__.partition(".")[0]
    return package == "keras_rs" and type(layer).__name__ == "EmbedReduce"


def _input_parts(layer):
    if not isinstance(layer, keras.layers.Embedding):
        raise _wrong_layer(layer, "an `Embedding` or `ReversibleEmbedding`")
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
