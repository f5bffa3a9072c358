"""Counts how often each word occurs in data."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_embcomp._types import Array
from keras_embcomp.checks import positive_int
from keras_embcomp.models.batches import length_of
from keras_embcomp.vocabulary.tokenizers import pieces_of

_TEXTS = 256  # at a time


def count_ids(
    dataset: Any,
    vocabulary: int | None = None,
    tokenizer: Any = None,
    verbose: int = 0,
) -> Array:
    """Returns how often each id occurs: `counts`, and `frequencies` of plans.

    Args:
        dataset: Ids: an integer array of any shape, ragged or dense; or what
            yields such arrays: a list, a generator, a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. Of a tuple, as `fit` takes it, the first
            is counted; of a dictionary `"token_ids"`, or its only array. Text:
            strings in the same places.
        vocabulary: Integer. Words there are. It may be left out with a
            tokenizer.
        tokenizer: What makes ids of text, as `trim_vocabulary` takes it.
        verbose: Integer. 1 shows a progress bar.

    Returns:
        int64 array of shape `(vocabulary,)`.

    Raises:
        ValueError: if an id is out of range, there is text without a
            tokenizer, or a dictionary does not say what its ids are.

    Example:

    >>> count_ids([[0, 2], [2, 2]], vocabulary=4)
    array([1, 0, 3, 0])
    """
    pieces = None if tokenizer is None else pieces_of(tokenizer)
    if vocabulary is not None:
        vocabulary = positive_int("vocabulary", vocabulary)
    elif pieces is None:
        raise ValueError(
            "`vocabulary` must be given without a `tokenizer`. "
            "Received: neither"
        )
    else:
        vocabulary = len(pieces.names())
    counts = np.zeros(vocabulary, "int64")
    progress = keras.utils.Progbar(length_of(dataset), verbose=verbose)
    for batch in _batches(dataset):
        values = _values(batch)
        for ids in _ids(values, pieces):
            _check(ids, vocabulary)
            counts += np.bincount(ids, minlength=vocabulary)
        progress.add(1)
    return counts


def _batches(dataset: Any) -> Iterator[Any]:
    """Yields the parts of what a user counts."""
    if isinstance(dataset, str) or hasattr(dataset, "shape"):
        yield dataset
    elif isinstance(dataset, keras.utils.PyDataset):
        for index in range(len(dataset)):
            yield dataset[index]
    elif isinstance(dataset, (list, tuple)) and _is_plain(dataset):
        for start in range(0, len(dataset), _TEXTS):
            yield list(dataset[start : start + _TEXTS])
    elif isinstance(dataset, Mapping) or not isinstance(dataset, Iterable):
        yield dataset
    else:
        yield from dataset


def _is_plain(values):
    """Returns whether a list holds texts, or numbers in lists."""
    return all(isinstance(one, (str, bytes, int, list)) for one in values)


def _values(batch: Any) -> Any:
    """Returns the ids or texts in a batch."""
    if isinstance(batch, tuple):
        batch = batch[0]
    if isinstance(batch, Mapping):
        if "token_ids" not in batch and len(batch) != 1:
            raise ValueError(
                "`dataset` must yield ids, or dictionaries with `token_ids`: "
                "choose with `map`. Received: a dictionary with "
                f"{', '.join(map(str, batch))}"
            )
        batch = batch.get("token_ids", next(iter(batch.values())))
    return batch


def _ids(values: Any, pieces: Any) -> Iterator[Array]:
    """Yields flat arrays of ids."""
    if hasattr(values, "flat_values"):  # ragged, of TensorFlow
        values = values.flat_values
    elif isinstance(values, (list, str, bytes)):
        values = _flat(values)
    found = np.asarray(keras.tree.map_structure(_numpy, values)).reshape(-1)
    if found.dtype.kind not in "OSU":
        yield found
        return
    if pieces is None:
        raise ValueError(
            "`tokenizer` must be given to count text. Received: "
            f"tokenizer=None, and {found[0]!r}"
        )
    for start in range(0, len(found), _TEXTS):
        texts = [
            one.decode("utf-8") if isinstance(one, bytes) else str(one)
            for one in found[start : start + _TEXTS]
        ]
        for ids in pieces.encoded(texts):
            yield np.asarray(ids, "int64").reshape(-1)


def _numpy(value):
    if keras.ops.is_tensor(value) and hasattr(value, "numpy"):
        return value.numpy()  # `keras.ops` takes no strings
    return value


def _flat(values):
    if not isinstance(values, list):
        return [values]
    return list(itertools.chain.from_iterable(map(_flat, values)))


def _check(ids, vocabulary):
    if ids.dtype.kind not in "iu" and ids.size:
        raise ValueError(
            "`dataset` must hold integer ids or text. Received: values of "
            f"dtype {ids.dtype}"
        )
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
        raise ValueError(
            f"`dataset` must hold ids from 0 to {vocabulary - 1}. Received: "
            f"ids from {ids.min()} to {ids.max()}"
        )
