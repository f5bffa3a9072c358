import gzip

import corpora
import keras
import language_model
import numpy as np
import pytest
import tensorflow as tf
from text_pipeline import TextToIds


@pytest.fixture
def model(generator):
    counts = np.sort(generator.integers(1, 99, 60))[::-1]
    dense = language_model.language_model(
        keras.layers.Embedding(60, 12), keras.layers.Dense(60), 12
    )
    dense.layers[-1].bias.assign(generator.normal(size=60))
    return dense, language_model.compressed(dense, counts, ratio=2)


def test_penn_treebank_ends_lines_and_knows_what_is_unknown(tmp_path):
    (tmp_path / "ptb").mkdir()
    for part, text in (("train", "b a a\n<unk> c b a\n"), ("test", "c d\n")):
        with gzip.open(tmp_path / "ptb" / f"ptb.{part}.txt.gz", "wt") as file:
            file.write(text)
    words, training, test = corpora.load(tmp_path, most=2)
    assert words == ["a", "b"]
    assert training.tolist() == [3, 2, 2, 0, 1, 1, 3, 2, 0]
    assert test.tolist() == [1, 1, 0]


def test_a_missing_file_is_named_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match="ptb.train.txt.gz") as caught:
        corpora.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_windows_follow_each_other():
    inputs, targets = language_model.windows(np.arange(72))
    assert inputs.shape == targets.shape == (2, 35)
    np.testing.assert_array_equal(inputs.ravel() + 1, targets.ravel())


def test_compressed_tables_are_smaller_and_the_rest_is_kept(model):
    dense, small = model
    for index in (1, -1):
        sizes = [m.layers[index].count_params() for m in model]
        assert sizes[1] < 0.7 * sizes[0]
    for ours, theirs in zip(small.layers, dense.layers, strict=True):
        if isinstance(ours, keras.layers.LSTM):
            for one, other in zip(
                ours.get_weights(), theirs.get_weights(), strict=True
            ):
                np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(small.layers[-1].bias, dense.layers[-1].bias)


def test_next_words_are_the_likeliest_after_the_last(model):
    _, small = model
    words = [f"w{chr(97 + i % 26)}{i}" for i in range(58)]
    text_to_ids = TextToIds(words, length=6, last=True)
    function = language_model.next_word(small, text_to_ids, words, k=3)
    found = function(tf.constant([f"{words[3]} {words[9]}", "nothing"]))
    expected = keras.ops.log_softmax(small(np.array([[5, 11]])))[0, -1]
    best = np.argsort(-expected)[:3]
    names = np.array(["[end]", "[unknown]", *words], "bytes")
    np.testing.assert_array_equal(found["words"][0], names[best])
    np.testing.assert_allclose(
        found["log_probabilities"][0], np.sort(expected)[::-1][:3], rtol=1e-4
    )
