"""Which layers of so many bytes there are to train from scratch."""

import contextlib
import dataclasses
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_embcomp._compat import unallocated
from keras_embcomp._types import ArrayLike
from keras_embcomp.checks import frequency_weights, one_of, positive_int
from keras_embcomp.compression.choose import UnreachableError, check_goal
from keras_embcomp.from_scratch.suggestions import (
    Suggestion,
    Suggestions,
    name_of,
)
from keras_embcomp.from_scratch.times import TARGETS, measured
from keras_embcomp.layers.base import weight_bytes
from keras_embcomp.layers.method import SIDES
from keras_embcomp.layers.methods import METHODS


def suggest_layers(
    vocabulary: int,
    width: int,
    ratio: float | None = None,
    max_bytes: float | None = None,
    frequencies: ArrayLike | None = None,
    side: str = "embedding",
    use_bias: bool = True,
    target: str = "keras",
    measure: bool = False,
) -> Suggestions:
    """Returns the layers of so many bytes that can be trained from scratch.

    Each method that trains from scratch is there with the sizes that use the
    budget, what a lookup costs, and what was measured of its quality. The order
    says nothing: which one is best depends on the task, so try some.

    Args:
        vocabulary: Integer. Rows of the table.
        width: Integer. Columns of the table.
        ratio: Number above 1: bytes of the dense float32 layer over those of a
            suggested one. One of `ratio` and `max_bytes` must be given.
        max_bytes: Number of bytes that a layer may take, in float32.
        frequencies: Counts of the rows, of shape `(vocabulary,)`. `None`
            assumes Zipf's law, with the most frequent row first.
        side: `"embedding"`, `"softmax"` for an output layer, or `"tied"` for an
            embedding that is also called with `reverse=True`.
        use_bias: Boolean. Whether an output layer has a bias, which counts.
        target: What runs lookups: `"keras"` on this machine, or `"litert"`, a
            file in LiteRT's interpreter.
        measure: Boolean. Whether to measure a lookup on the target and a
            training step with Adam in Keras, of 64 ids or tokens and of the
            layer alone, beside a dense layer. It takes some seconds a layer.
            In LiteRT a lookup is of one id or token.

    Returns:
        `Suggestions`, a sequence of `Suggestion`: print it, and call
        `layer()` of an entry for the layer.

    Raises:
        ValueError: if an argument is wrong, if the dense layer is within the
            budget, or if no layer is (says how many bytes the smallest takes).

    Example:

    >>> found = suggest_layers(50_000, 128, ratio=200)
    >>> [entry.method for entry in found if entry.form == ""]
    ['tensor_train', 'hashed']
    >>> layer = found[0].layer(mask_zero=True, name="words")
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 128)
    """
    shape = positive_int("vocabulary", vocabulary), positive_int("width", width)
    one_of("side", side, SIDES)
    one_of("target", target, TARGETS)
    check_goal(ratio=ratio, max_bytes=max_bytes)
    if frequencies is not None:
        frequency_weights(frequencies, shape[0])
    bias = shape[0] if side == "softmax" and use_bias else 0
    dense_bytes = 4 * (shape[0] * shape[1] + bias)
    budget = dense_bytes / ratio if ratio is not None else max_bytes
    assert budget is not None  # by `check_goal`
    if budget >= dense_bytes:
        raise ValueError(
            "`max_bytes` must be below the bytes of a dense layer, which are "
            f"{dense_bytes:,}: use that. Received: max_bytes={max_bytes}"
        )
    with _seeds_kept():
        found = {
            name_of(method.name, form.name): _largest(
                method, form, shape, budget, bias, frequencies, side
            )
            for method in METHODS
            for form in method.from_scratch
        }
        sized = [one for one in found.values() if isinstance(one, Suggestion)]
        layers = [one for one in sized if one.bytes <= budget]
        if not layers:
            raise _unreachable(budget, sized, dense_bytes, bias)
        if measure:
            layers = measured(layers, target)
    unsuited = {
        name: why
        for name, one in found.items()
        if (why := _why_unsuited(one, budget))
    }
    return Suggestions(layers, unsuited, _notes(layers[0], frequencies))


@contextlib.contextmanager
def _seeds_kept() -> Iterator[None]:
    """Leaves Python's random state, from which Keras takes its seeds."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _largest(method, form, shape, budget, bias, counts, side):
    """Returns the largest layer within a budget, or else the smallest.

    Or the error of the constructor, if it makes no layer of this shape.
    """
    parameters = max(budget / 4 - bias, 0)
    try:
        arguments = form.sizes(shape, parameters, counts, side)
        return _weighed(_suggestion(method, form, shape, arguments, bias, side))
    except ValueError as error:
        return error


def _suggestion(method, form, shape, arguments, bias, side):
    lookup, logits = (
        method.operations(arguments, shape, output) for output in (False, True)
    )
    operations = {"embedding": lookup, "softmax": logits}
    return Suggestion(
        method=method.name,
        form=form.name,
        side=side,
        shape=shape,
        use_bias=bias > 0,
        arguments=arguments,
        bytes=0,
        dense_bytes=4 * (shape[0] * shape[1] + bias),
        parameters=0,
        operations=operations.get(side, lookup + logits),
        quality=form.known.get(side, "Not measured."),
    )


def _weighed(found):
    """Returns a suggestion with what its weights take; none is allocated."""
    with unallocated():
        layer = found.layer(dtype="float32")
        layer.build((None, found.shape[1]))
    trained = sum(math.prod(v.shape) for v in layer.trainable_weights)
    return dataclasses.replace(
        found, bytes=weight_bytes(layer.weights), parameters=trained
    )


def _why_unsuited(found: Suggestion | ValueError, budget: float) -> str:
    if isinstance(found, ValueError):
        return str(found)
    if found.bytes > budget:
        return f"takes at least {found.bytes:,} bytes."
    return ""


def _unreachable(budget, sized, dense_bytes, bias):
    least = min((one.bytes for one in sized), default=dense_bytes)
    of_bias = f", {4 * bias:,} of them for the bias" if bias else ""
    return UnreachableError(
        "The layer must be allowed more bytes; the smallest reachable are "
        f"{least:,}{of_bias}. Received: {int(budget):,} bytes"
    )


def _notes(layer: Suggestion, frequencies: Any) -> list[str]:
    notes = []
    if layer.lookup_seconds is None:
        notes.append("Times: `measure=True` measures them on this machine.")
    if frequencies is None:
        notes.append(
            "No counts were given: the first ids count as the most frequent, "
            "by Zipf's law."
        )
    elif (np.diff(frequencies) > 0).any():
        notes.append(
            "Ids are not in the order of their counts. Sort the vocabulary by "
            "count: methods give the first ids more, or share by place."
        )
    fitted = [m.name for m in METHODS if not m.from_scratch]
    notes.append(
        f"{', '.join(fitted)} are fitted to a trained table. Where a dense one "
        f"of {layer.dense_bytes:,} bytes fits into memory, train it and call "
        "`compress`."
    )
    return notes
