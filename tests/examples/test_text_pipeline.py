import numpy as np
import pytest
import tensorflow as tf
from text_pipeline import TextToIds, frequent_words, write_vocabulary


@pytest.fixture
def text_to_ids():
    return TextToIds(["good", "film", "café", "."], length=4)


@pytest.mark.parametrize(
    "text, ids",
    [
        ("Good film", [2, 3, 0, 0]),
        ("A CAFÉ.", [1, 4, 5, 0]),
        ("film film film film good", [3, 3, 3, 3]),
        ("[padding]", [1, 1, 1, 0]),
        ("", [1, 0, 0, 0]),
        (b"\xff good", [1, 2, 0, 0]),
    ],
)
def test_maps_a_text_to_ids(text_to_ids, text, ids):
    assert text_to_ids(tf.constant([text])).numpy().tolist() == [ids]


def test_keeps_the_last_words_if_asked():
    text_to_ids = TextToIds(["good", "film"], length=2, last=True)
    ids = text_to_ids(tf.constant(["a good film", "film"])).numpy()
    assert ids.tolist() == [[2, 3], [3, 0]]


def test_ids_are_int32_of_a_fixed_length(text_to_ids):
    ids = text_to_ids(tf.constant(["good", "a long film . . . ."])).numpy()
    assert ids.dtype == np.int32
    assert ids.shape == (2, 4)


def test_counts_padding_and_unknown_in_the_vocabulary(text_to_ids):
    assert text_to_ids.vocabulary_size == 6


def test_ranks_words_by_frequency_then_by_spelling():
    texts = ["b a. A", "c b a"]
    assert frequent_words(texts) == ["a", "b", ".", "c"]
    assert frequent_words(texts, most=2) == ["a", "b"]


def test_a_saved_module_keeps_its_words(text_to_ids, tmp_path):
    tf.saved_model.save(text_to_ids, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert loaded(tf.constant(["good film"])).numpy().tolist() == [[2, 3, 0, 0]]


def test_a_vocabulary_file_has_a_word_at_the_line_of_its_id(
    text_to_ids, tmp_path
):
    write_vocabulary(tmp_path / "words.txt", ["good", "film", "café", "."])
    lines = (tmp_path / "words.txt").read_text(encoding="utf-8").split("\n")
    ids = text_to_ids(tf.constant(["café good"])).numpy()[0]
    assert [lines[i] for i in ids[:2]] == ["café", "good"]
