"""Layers of random weights, what they are given, and what they should give."""

import itertools

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from keras import ops

BOTH = pytest.mark.parametrize("case", [*EMBEDDINGS, *SOFTMAXES], ids=str)
FORMATS = ["int8", "int4", "int2", "ternary"]
MODES = pytest.mark.parametrize("mode", FORMATS)


def in_turn(cases, floats=False, whole=False, two=False):
    """Parametrizes `case` and `mode`, without every mode of every case.

    The modes take turns, so that each has some of the cases. Use it where what
    a test looks at hardly depends on both.

    Args:
        cases: List of `Case`.
        floats: Whether each case is there with the mode `None` too.
        whole: Whether the first case of each layer has all modes.
        two: Whether a case has two modes: of both sides, a method has all.
    """
    pairs = []
    for number, case in enumerate(cases):
        all_modes = whole and not case.note
        modes = FORMATS if all_modes else [FORMATS[number % len(FORMATS)]]
        if two:
            modes = FORMATS[number % 2 :: 2]
        pairs += [(case, mode) for mode in [None] * floats + modes]
    return pytest.mark.parametrize(("case", "mode"), pairs, ids=str)


def with_one_of(cases, name, values):
    """Parametrizes `case` and a name, whose values take turns.

    With the cases of both sides, a method has two of them.
    """
    pairs = list(zip(cases, itertools.cycle(values), strict=False))
    return pytest.mark.parametrize(("case", name), pairs, ids=str)


BOTH_IN_TURN = in_turn([*EMBEDDINGS, *SOFTMAXES])


def made(case, **kwargs):
    """Returns a built layer of random weights."""
    arguments = {**case.structure, **kwargs}
    if case in EMBEDDINGS:
        layer = case.layer(VOCABULARY, WIDTH, **arguments)
        layer.build()
    else:
        layer = case.layer(VOCABULARY, activation=None, **arguments)
        layer.build((None, WIDTH))
        layer.bias.assign(np.linspace(-1, 1, VOCABULARY))
    return layer


def inputs_of(case):
    generator = np.random.default_rng(1)
    if case in EMBEDDINGS:
        return generator.integers(0, VOCABULARY, (20, 3)).astype("int32")
    return generator.normal(size=(20, WIDTH)).astype("float32")


def model_of(case, layer):
    inputs = inputs_of(case)
    entry = keras.Input(inputs.shape[1:], dtype=str(inputs.dtype), name="x")
    return keras.Model(entry, layer(entry))


def quantize(model, mode):
    """Quantizes a model's layer, by Keras where it takes the mode."""
    modes = keras.src.dtype_policies.QUANTIZATION_MODES
    owner = model if mode in modes else model.layers[-1]
    owner.quantize(mode)


def expected_of(case, layer):
    """What the table of the layer gives for the inputs."""
    table, inputs = layer.to_dense(), inputs_of(case)
    if case in EMBEDDINGS:
        return table[inputs]
    return inputs @ table.T + ops.convert_to_numpy(layer.bias)
