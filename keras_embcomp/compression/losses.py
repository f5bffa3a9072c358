"""Losses of a model, as functions of targets, outputs and weights."""

from typing import Any

import keras
from keras import ops


def loss_of(model: keras.Model, loss: Any) -> Any:
    """Returns a function of targets, outputs and weights, or `None`.

    Args:
        model: A model, whose loss is taken for `None`.
        loss: A loss of Keras, its name, a list or dictionary of them, or
            `False`.
    """
    if loss is None:
        loss = getattr(model, "loss", None)
    if loss is None or loss is False:
        return None
    if not isinstance(loss, (dict, list, tuple)):
        return _single(loss)
    losses = keras.tree.map_structure(_single, loss)

    def summed(y, outputs, weights):
        if isinstance(losses, dict) and not isinstance(outputs, dict):
            outputs = dict(zip(model.output_names, outputs, strict=True))
        keys = losses if isinstance(losses, dict) else range(len(losses))
        return sum(
            losses[key](y[key], outputs[key], weights[key] if weights else None)
            for key in keys
        )

    return summed


def _single(loss):
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if not callable(loss):
        raise ValueError(
            f"`loss` must be a loss of Keras. Received: loss={loss!r}"
        )
    if not isinstance(loss, keras.losses.Loss):
        loss = _OfFunction(loss)
    return lambda y, outputs, weights: loss(y, outputs, weights)


class _OfFunction(keras.losses.Loss):
    """The mean of a function of targets and outputs."""

    def __init__(self, function):
        super().__init__(name="loss")
        self.function = function

    def call(self, y_true, y_pred):
        if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
            y_true = ops.expand_dims(y_true, -1)
        return self.function(y_true, y_pred)
