import gzip

import keras
import numpy as np
import pytest
import small_tables
import translation_data
import translation_model
from translation_data import END, PADDING, START, Pairs, Subwords

SENTENCES = ["ein hund läuft .", "zwei hunde laufen !", "a dog runs ."]


@pytest.fixture
def subwords():
    letters = sorted(set("".join(SENTENCES).replace(" ", "")))
    pieces = [*translation_data._RESERVED, *letters]
    return Subwords([*pieces, *(f"##{letter}" for letter in letters), "hund"])


def test_sentences_come_back_as_they_were(subwords):
    ids = subwords.ids(SENTENCES, 24)
    assert subwords.sentences(ids) == SENTENCES
    started = subwords.ids(SENTENCES, 24, start=True)
    assert subwords.sentences(started) == SENTENCES
    assert np.all(started[:, 0] == START)
    np.testing.assert_array_equal(started[:, 1:], ids[:, :-1])


def test_long_sentences_are_cut_and_end(subwords):
    ids = subwords.ids(SENTENCES, 6, start=True)
    assert ids.shape == (3, 6)
    assert np.all(ids[:, -1] == END)
    assert subwords.sentences(ids)[0] == "ein hund"


def test_unknown_letters_are_unknown(subwords):
    assert subwords.sentences(subwords.ids(["ein x ."], 9)) == ["ein [UNK] ."]


def test_learned_pieces_cover_their_text():
    subwords = Subwords.learned(SENTENCES * 9, 60)
    ids = subwords.ids(SENTENCES, 30)
    assert subwords.sentences(ids) == SENTENCES


def test_batches_have_all_sentences_and_weights_are_1_on_the_mean(subwords):
    pairs = Pairs(SENTENCES, SENTENCES[::-1])
    data = translation_data.arrays(pairs, subwords, 20)
    dataset = translation_data.batches(data, 2)
    found = []
    for inputs, targets, weights in dataset.as_numpy_iterator():
        assert len(targets) <= 2
        np.testing.assert_array_equal(inputs["target"][:, 1:], targets[:, :-1])
        np.testing.assert_array_equal(weights > 0, targets != PADDING)
        np.testing.assert_allclose(weights.mean(), 1, rtol=1e-6)
        last = np.concatenate([inputs["source"], targets])[:, -1]
        assert np.any(last != PADDING)  # nothing is longer than it must be
        found += subwords.sentences(inputs["source"])
    assert sorted(found) == sorted(SENTENCES)
    assert dataset.cardinality() == len(list(dataset))


def test_multi30k_is_read_in_pairs(tmp_path):
    (tmp_path / "multi30k").mkdir()
    for part in ("train", "val", "test_2016_flickr"):
        for language in ("en", "de"):
            name = f"{part}.lc.norm.tok.{language}.gz"
            with gzip.open(tmp_path / "multi30k" / name, "wt") as file:
                file.write(f"{language} {part}\n{language} two\n")
    training, _, test = translation_data.load(tmp_path)
    assert training == Pairs(["en train", "en two"], ["de train", "de two"])
    assert test.sources[0] == "en test_2016_flickr"
    (tmp_path / "multi30k" / name).unlink()
    with pytest.raises(SystemExit, match="test_2016_flickr.lc.norm.tok.de.gz"):
        translation_data.load(tmp_path)


def test_messages_of_the_package_are_pairs_that_do_not_leak():
    training, validation, test = translation_data.load(dataset="django")
    assert len(training) > 500 and len(test) > 50
    seen = set(training.sources) | set(validation.sources)
    assert not seen & set(test.sources)


@pytest.fixture
def model(subwords):
    size = len(subwords.pieces)
    return translation_model.transformer(
        translation_model.dense_tokens(size, 16), 16
    )


def test_a_model_learns_sentences_by_heart(subwords, model):
    pairs = Pairs(SENTENCES, SENTENCES[::-1])
    data = translation_data.arrays(pairs, subwords, 22)
    translation_model.train(model, data, 150, 1e-2, verbose=0)
    sources = subwords.ids(SENTENCES, 22)
    for beams in (1, 3):
        score = translation_model.bleu(
            model, sources, pairs.targets, subwords, beams
        )
        assert score == pytest.approx(100)


def test_the_loss_is_that_of_smoothed_labels(generator):
    logits = generator.normal(size=(2, 3, 7)).astype("float32")
    targets = generator.integers(0, 7, (2, 3))
    smooth = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.1, reduction=None
    )
    expected = smooth(np.eye(7)[targets], logits)
    found = translation_model.smoothed_loss(targets, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("method", small_tables.FITTED)
def test_a_small_table_takes_the_place_of_the_dense_one(
    method, model, subwords
):
    size = model.tokens.input_dim
    counts = 1 + np.arange(size)[::-1]
    tokens = small_tables.FITTED[method](model.tokens, 1.6, counts)
    assert tokens.count_params() <= size * 16 / 1.6
    copy = translation_model.with_tokens(model, tokens, 16)
    inputs = {
        "source": subwords.ids(SENTENCES, 9),
        "target": subwords.ids(SENTENCES, 9, start=True),
    }
    tokens_of_dense = translation_model.dense_tokens(size, 16)
    same = translation_model.with_tokens(model, tokens_of_dense, 16)
    tokens_of_dense.set_weights([tokens.to_dense()])
    np.testing.assert_allclose(copy(inputs), same(inputs), atol=1e-4)
