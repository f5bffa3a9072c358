"""`count_ids` on everything that holds ids or text."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_embcomp import count_ids

IDS = np.array([[0, 2, 2], [4, 2, 1]])
COUNTS = [1, 1, 3, 0, 1]


class Batches(keras.utils.PyDataset):
    """Batches as `fit` takes them."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return IDS[index : index + 1], np.zeros(1)


def generated():
    for row in IDS:
        yield {"token_ids": row, "padding_mask": np.ones(3)}


DATA = {
    "array": IDS,
    "bytes": IDS.astype("uint8"),
    "lists": IDS.tolist(),
    "list of arrays": list(IDS),
    "tuple of fit": [(IDS, np.zeros((2, 7)))],
    "dictionary": {"ids": IDS},
    "generator": generated,
    "PyDataset": Batches,
}


@pytest.mark.parametrize("kind", DATA)
def test_counts_ids(kind):
    data = DATA[kind]() if callable(DATA[kind]) else DATA[kind]
    counts = count_ids(data, vocabulary=5)
    assert counts.tolist() == COUNTS


@pytest.mark.tensorflow_only
def test_counts_datasets_of_tensorflow(capsys):
    dataset = tf.data.Dataset.from_tensor_slices((IDS, [0, 1])).batch(2)
    assert count_ids(dataset, 5, verbose=1).tolist() == COUNTS
    assert "1/1" in capsys.readouterr().out
    ragged = tf.ragged.constant([[0], [2, 2, 4, 2, 1]])
    assert count_ids(ragged, 5).tolist() == COUNTS
    dataset = tf.data.Dataset.from_tensor_slices(ragged)
    assert count_ids(dataset, 5).tolist() == COUNTS


@pytest.mark.tensorflow_only
def test_counts_text():
    lookup = keras.layers.TextVectorization(vocabulary=["a", "b", "c"])
    text = ["A b!", "b b"]
    wanted = [0, 0, 1, 3, 0]
    assert count_ids(text, tokenizer=lookup).tolist() == wanted
    assert count_ids(np.array(text), tokenizer=lookup).tolist() == wanted
    assert count_ids(text, 6, tokenizer=lookup).tolist() == [*wanted, 0]
    dataset = tf.data.Dataset.from_tensor_slices((text, [0, 1])).batch(2)
    assert count_ids(dataset, tokenizer=lookup).tolist() == wanted


@pytest.mark.parametrize(
    ("data", "how", "message"),
    [
        (IDS, {}, "`vocabulary` must be given without a `tokenizer`"),
        (IDS, {"vocabulary": 4}, "ids from 0 to 3. Received: ids from 0 to 4"),
        (-IDS, {"vocabulary": 9}, "Received: ids from -4 to 0"),
        (IDS / 2, {"vocabulary": 9}, "integer ids or text. Received: values"),
        (["a"], {"vocabulary": 9}, "`tokenizer` must be given to count text"),
        (
            {"ids": IDS, "mask": IDS},
            {"vocabulary": 9},
            "choose with `map`. Received: a dictionary with ids, mask",
        ),
        (IDS, {"vocabulary": 0}, "`vocabulary` must be a positive integer"),
    ],
)
def test_refuses_what_cannot_be(data, how, message):
    with pytest.raises(ValueError, match=message):
        count_ids(data, **how)
