"""From strings to ids with TensorFlow Text, in training and in serving."""

from collections import Counter

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

PADDING, UNKNOWN = 0, 1


class TextToIds(tf.Module):
    """Maps strings to int32 ids of the first `length` words.

    Words are folded to lower case and split where the script changes, so
    punctuation stands alone. Id 0 is padding, id 1 an unknown word, then come
    `words` in their order. A text without a word becomes one unknown word.

    The table is part of the module: a SavedModel that holds the module needs
    no vocabulary file.

    Args:
        words: List of distinct strings.
        length: Integer. Ids for each text, padded or cut.

    Example:

    >>> text_to_ids = TextToIds(["good", "film"], length=4)
    >>> text_to_ids(tf.constant(["A good film", ""])).numpy()
    array([[1, 2, 3, 0],
           [1, 0, 0, 0]], dtype=int32)
    """

    def __init__(self, words, length):
        super().__init__(name="text_to_ids")
        self.length = length
        self.vocabulary_size = len(words) + 2
        self._tokenizer = tf_text.UnicodeScriptTokenizer()
        ids = np.arange(2, self.vocabulary_size, dtype="int32")
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(words, ids), UNKNOWN
        )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        words = split_words(texts, self._tokenizer)[:, : self.length]
        ids = self._table.lookup(words).to_tensor(
            PADDING, shape=(None, self.length)
        )
        # A mean over no words at all would not be a number.
        one_unknown = UNKNOWN * tf.one_hot(0, self.length, dtype=tf.int32)
        return tf.maximum(ids, one_unknown)


def split_words(texts, tokenizer):
    """Returns a ragged tensor with the words of each string."""
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
    return tokenizer.tokenize(tf_text.case_fold_utf8(texts))


def frequent_words(texts, most=None):
    """Returns the words of `texts`, the most frequent first, at most `most`."""
    words = split_words(texts, tf_text.UnicodeScriptTokenizer())
    counts = Counter(words.flat_values.numpy().tolist())
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return [word.decode("utf-8") for word in ranked[:most]]


def count_ids(ids, vocabulary_size):
    """Returns how often each id stands in `ids`; padding counts as 0."""
    counts = np.bincount(ids.ravel(), minlength=vocabulary_size)
    counts[PADDING] = 0
    return counts
