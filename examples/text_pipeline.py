"""From strings to ids with TensorFlow Text, in training and in serving."""

from collections import Counter
from pathlib import Path

import tensorflow as tf
import tensorflow_text as tf_text

PADDING, UNKNOWN = 0, 1
_SYMBOL = r"[^\pL\pM\pN\s]"


class TextToIds(tf.Module):
    """Maps strings to int32 ids of their first `length` words.

    Words are folded to lower case and split at white space; each punctuation
    mark is a word. Id 0 is padding, id 1 an unknown word. A text without words
    becomes one unknown word.

    The table is part of the module: a SavedModel that holds the module needs
    no vocabulary file.

    Args:
        words: List of distinct strings. The first gets id 2.
        length: Integer. Ids for each text, padded or cut.
        last: Boolean. Whether the last words of a longer text are kept.

    Example:

    >>> text_to_ids = TextToIds(["good", "film"], length=4)
    >>> text_to_ids(tf.constant(["A good film", ""])).numpy()
    array([[1, 2, 3, 0],
           [1, 0, 0, 0]], dtype=int32)
    """

    def __init__(self, words, length, last=False):
        super().__init__(name="text_to_ids")
        self.length = length
        self._kept = slice(-length, None) if last else slice(length)
        self.vocabulary_size = len(words) + 2
        ids = tf.range(2, self.vocabulary_size)
        # A table read from a file would store a path of this machine.
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(words, ids), UNKNOWN
        )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        words = split_words(texts)[:, self._kept]
        ids = self._table.lookup(words)
        ids = ids.to_tensor(PADDING, shape=(None, self.length))
        # The mean over no words would be NaN.
        one_unknown = UNKNOWN * tf.one_hot(0, self.length, dtype=tf.int32)
        return tf.maximum(ids, one_unknown)


def split_words(texts):
    """Returns a ragged tensor with the words of each string."""
    # Bytes that are not UTF-8 become one symbol instead of an error.
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
    folded = tf_text.case_fold_utf8(texts)
    return tf_text.regex_split(folded, rf"\s|{_SYMBOL}", _SYMBOL)


def frequent_words(texts, most=None):
    """Returns at most `most` words of `texts`, the most frequent first."""
    words = split_words(texts)
    counts = Counter(words.flat_values.numpy().tolist())
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return [word.decode("utf-8") for word in ranked[:most]]


def write_vocabulary(path, words):
    """Writes words to a file; the id of a word is its line, from 0."""
    # A bracket is a word of its own, so no word of a text is one of these.
    lines = ["[padding]", "[unknown]", *words]
    path = Path(path)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
