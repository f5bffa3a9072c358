"""How long suggested layers take on this machine, beside a dense one."""

import dataclasses
import math
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_embcomp._compat import reversible_embedding
from keras_embcomp.deploy.litert.export import export_litert
from keras_embcomp.from_scratch.suggestions import Suggestion
from keras_embcomp.reporting.costs import (
    TOKENS,
    compiled_call,
    median_seconds,
)

TARGETS = "keras", "litert"
# The dense layer in place: its table, a gradient and two moments of Adam.
_LARGEST_DENSE = 2**28  # bytes of the table


def measured(layers: list[Suggestion], target: str) -> list[Suggestion]:
    """Returns suggestions with their times on this machine.

    In Keras a dense layer takes turns with each, so that a busy machine slows
    both. There is none if it would take more than a quarter of a gigabyte.

    Args:
        layers: Suggestions for one table.
        target: One of `TARGETS`: what runs the lookups. Steps run in Keras.
    """
    dense = None
    if layers[0].dense_bytes <= _LARGEST_DENSE:
        dense = _Timed(layers[0], _dense(layers[0]), target)
    return [_with_times(layer, dense, target) for layer in layers]


def _with_times(layer, dense, target):
    timed = [_Timed(layer, layer.layer(), target)]
    if dense is not None:
        timed.append(dense)
    lookups = [one.seconds_in_file for one in timed]
    if target == "keras":
        lookups = median_seconds([one.lookup for one in timed]).tolist()
    steps = median_seconds([one.step for one in timed]).tolist()
    found = {"lookup_seconds": lookups[0], "step_seconds": steps[0]}
    if dense is not None:
        found["lookup_ratio"] = lookups[0] / lookups[1]
        found["step_ratio"] = steps[0] / steps[1]
    return dataclasses.replace(layer, **found)


class _Timed:
    """A model of one layer, what it is called with, and its step."""

    def __init__(self, suggestion, layer, target):
        vocabulary, width = suggestion.shape
        generator = np.random.default_rng(0)
        ids = generator.integers(0, vocabulary, TOKENS).astype("int32")
        states = generator.normal(size=(TOKENS, width)).astype("float32")
        self.inputs = states if suggestion.side == "softmax" else ids
        self.model = _model(suggestion, layer)
        if suggestion.side == "embedding":
            self.targets, loss = states, "mean_squared_error"
        else:
            self.targets = ids
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # The file first: what a step compiles need not be exported.
        self.seconds_in_file = math.nan
        if target == "litert":
            self.seconds_in_file = _seconds_in_file(self.model)
        self.lookup = compiled_call(self.model, self.inputs)
        self.model.compile("adam", loss)

    def step(self):
        return self.model.train_on_batch(self.inputs, self.targets)


def _model(suggestion, layer):
    """Returns a model of ids or hidden states, with the layer alone."""
    width = suggestion.shape[1]
    if suggestion.side == "softmax":
        layer.activation = keras.activations.linear  # the loss takes logits
        inputs = keras.Input((width,), name="hidden")
        return keras.Model(inputs, layer(inputs))
    inputs = keras.Input((), dtype="int32", name="ids")
    outputs = layer(inputs)
    if suggestion.side == "tied":
        outputs = layer(outputs, reverse=True)
    return keras.Model(inputs, outputs)


def _dense(suggestion):
    vocabulary, width = suggestion.shape
    if suggestion.side == "softmax":
        return keras.layers.Dense(vocabulary, use_bias=suggestion.use_bias)
    if suggestion.side == "tied":
        return reversible_embedding()(vocabulary, width)
    return keras.layers.Embedding(vocabulary, width)


def _seconds_in_file(model):
    with tempfile.TemporaryDirectory() as folder:
        found = export_litert(model, Path(folder) / "layer.tflite")
    return found.latency_ms / 1_000
