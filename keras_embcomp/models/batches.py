"""What a user gives as data of a model, one batch at a time."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np


class Batch(NamedTuple):
    """What `fit` gets of a batch.

    Attributes:
        x: Inputs of a model.
        y: Targets, or `None`.
        sample_weight: Weights of the samples, or `None`.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None


class Batches(NamedTuple):
    """Data of a model.

    Attributes:
        number: How many batches there are, or `None` if it is not known.
        each: Yields them.
    """

    number: int | None
    each: Iterator[Batch]


def batches_of(
    data: Any, batch_size: int = 32, steps: int | None = None
) -> Batches:
    """Returns the batches of what `fit` and `predict` take.

    Args:
        data: Inputs of a model as arrays, in a dictionary or list if it has
            several; a tuple of these and targets, and weights of the samples;
            or what yields such batches, as a `tf.data.Dataset` does.
        batch_size: Integer. Samples of a batch of arrays.
        steps: Integer. How many batches are taken at most.

    Raises:
        ValueError: if there are none, or arrays have several lengths.
    """
    data = _with_texts(data)
    if isinstance(data, keras.utils.PyDataset):
        number = data.num_batches
        each: Iterable[Any] = (data[i] for i in _numbers(number))
    elif _holds_arrays(data):
        samples = _samples(data)
        number = -(-samples // batch_size)
        each = (_part(data, i * batch_size, batch_size) for i in range(number))
    elif isinstance(data, Iterable):
        number, each = length_of(data), iter(data)
    else:
        raise ValueError(
            "`data` must be arrays, as `predict` takes them, or what yields "
            f"batches. Received: data={data!r}"
        )
    if steps is not None:
        number = steps if number is None else min(number, steps)
        each = itertools.islice(each, steps)
    return Batches(number, (_batch(one) for one in each))


def _numbers(number):
    return itertools.count() if number is None else range(number)


def length_of(data: Any) -> int | None:
    """Returns how many batches there are, or `None` if it is not known."""
    try:
        return len(data)
    except TypeError:
        return None


def _with_texts(data):
    """Returns lists of strings as arrays."""
    if isinstance(data, tuple):
        return tuple(map(_with_texts, data))
    if isinstance(data, list) and data and isinstance(data[0], str):
        return np.array(data)
    return data


def _holds_arrays(data):
    leaves = keras.tree.flatten(data)
    return bool(leaves) and all(
        leaf is None or hasattr(leaf, "shape") for leaf in leaves
    )


def _samples(data):
    lengths = {
        len(leaf) for leaf in keras.tree.flatten(data) if leaf is not None
    }
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "`data` must hold arrays of one length, above 0. Received: "
            f"arrays of lengths {sorted(lengths)}"
        )
    return lengths.pop()


def _part(data, start, size):
    return keras.tree.map_structure(
        lambda array: None if array is None else array[start : start + size],
        data,
    )


def _batch(one):
    if not isinstance(one, tuple):
        return Batch(one)
    if not 1 <= len(one) <= len(Batch._fields):
        raise ValueError(
            "`data` must yield tuples of inputs, targets and weights of the "
            f"samples. Received: a tuple of {len(one)}"
        )
    return Batch(*one)
