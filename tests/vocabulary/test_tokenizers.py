"""Tokenizers that are cut give the same pieces wherever these are kept."""

import json

import keras
import numpy as np
import pytest
from tokenizers_of_text import hugging_face, keras_hub_tokenizer, lookup, texts

from keras_embcomp import Trimming, trim_tokenizer
from keras_embcomp.vocabulary.tokenizers import pieces_of
from keras_embcomp.vocabulary.tokenizers.merges import Merges
from keras_embcomp.vocabulary.trimming import Wanted, chosen

pytestmark = pytest.mark.tensorflow_only

KERAS_HUB = (
    "BertTokenizer",
    "DebertaV3Tokenizer",
    "GPT2Tokenizer",
    "GemmaTokenizer",
    "RobertaTokenizer",
    "T5Tokenizer",
    "XLMRobertaTokenizer",
)
HUGGING_FACE = ("word pieces", "bytes", "ends of words", "unigram")
LOOKUPS = ("TextVectorization", "StringLookup", "two unknown words")


def made(kind):
    if kind in KERAS_HUB:
        return keras_hub_tokenizer(kind)
    return hugging_face(kind) if kind in HUGGING_FACE else lookup(kind)


def encoded(tokenizer, kind):
    written = texts()
    if kind in LOOKUPS[1:]:
        written = [word for text in written for word in text.lower().split()]
    found = pieces_of(tokenizer).encoded(written)
    return [np.asarray(ids, "int64") for ids in found]


def trimming_of(tokenizer, keep):
    pieces = pieces_of(tokenizer)
    size = len(pieces.names())
    special = pieces.always_kept() | {0}
    return chosen(Wanted(keep=keep), size, special, pieces.needed)


@pytest.mark.parametrize("kind", [*KERAS_HUB, *HUGGING_FACE, *LOOKUPS])
def test_texts_of_kept_pieces_have_the_same_pieces(kind, generator):
    tokenizer = made(kind)
    names = pieces_of(tokenizer).names()
    before = encoded(tokenizer, kind)
    same = 0
    for share in (0.3, 0.9):
        keep = np.flatnonzero(generator.random(len(names)) < share)
        # And all pieces of a few texts.
        for ids in before[:: len(before) // 5]:
            keep = np.union1d(keep, ids)
        trimming = trimming_of(tokenizer, keep)
        small = trim_tokenizer(tokenizer, trimming)
        assert type(small) is type(tokenizer)
        kept = trimming.new_to_old
        assert pieces_of(small).names() == [names[old] for old in kept]
        for old, new in zip(before, encoded(small, kind), strict=True):
            assert new.size == 0 or 0 <= new.min() <= new.max() < len(kept)
            if np.isin(old, kept).all():
                np.testing.assert_array_equal(trimming.renumbered(old), new)
                same += 1
    assert same > 10


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "GemmaTokenizer"])
def test_bytes_say_what_no_kept_piece_says(kind):
    """decode(encode(text)) is the text, with any pieces left."""
    tokenizer = made(kind)
    small = trim_tokenizer(tokenizer, trimming_of(tokenizer, [0]))
    for text in (texts()[0], texts()[-1]):
        found = small.detokenize(small.tokenize([text]))[0]
        if hasattr(found, "numpy"):
            found = found.numpy().decode()
        assert str(found).strip() == text


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "RobertaTokenizer"])
def test_no_merge_leads_to_a_missing_piece(kind, generator):
    tokenizer = made(kind)
    keep = generator.choice(len(tokenizer.vocabulary), 90, replace=False)
    small = trim_tokenizer(tokenizer, trimming_of(tokenizer, keep))
    assert small.merges
    for merge in small.merges:
        first, second = merge.split(" ")
        assert {first, second, first + second} <= set(small.vocabulary)


@pytest.mark.parametrize("kind", KERAS_HUB)
def test_specials_keep_their_names(kind):
    tokenizer = made(kind)
    small = trim_tokenizer(tokenizer, trimming_of(tokenizer, []))
    assert sorted(small.special_tokens) == sorted(tokenizer.special_tokens)
    for token in small.special_tokens:
        index = small.token_to_id(token)
        assert small.id_to_token(index) == token
    again = type(small).from_config(small.get_config())
    assert again.get_config() == small.get_config()


def test_a_file_becomes_the_text_of_a_file(tmp_path):
    from tokenizers import Tokenizer

    tokenizer = hugging_face("word pieces")
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    ids = tokenizer.encode("A layer of weights.").ids
    trimming = trimming_of(path, ids)
    text = trim_tokenizer(path, trimming)
    small = Tokenizer.from_str(text)
    found = small.encode_batch(["A layer of weights.", "A layer"])
    np.testing.assert_array_equal(found[0].ids, trimming.renumbered(ids))
    assert found[1].tokens[-1] == "[PAD]"
    assert found[0].tokens[0] == "[CLS]"
    assert json.loads(text)["padding"]["pad_id"] == 0


def test_merges_that_a_piece_needs():
    pairs = [("a", "b"), ("c", "d"), ("ab", "cd"), ("b", "c"), ("a", "bc")]
    merges = Merges.from_pairs(pairs)
    # "bc" is never made here: "a b" comes first.
    assert merges.made_of("abcd") == {"a", "b", "c", "d", "ab", "cd"}
    assert merges.made_of("abc") == set()
    assert merges.made_of("<s>") == set()
    ends = Merges.from_pairs([("a", "b</w>")], suffix="</w>")
    assert ends.made_of("ab</w>") == {"a", "b</w>"}
    inside = Merges.from_pairs([("##a", "##b")], prefix="##")
    assert inside.made_of("##ab") == {"##a", "##b"}


def test_refuses_what_cannot_be():
    tokenizer = keras_hub_tokenizer("BertTokenizer")
    size = len(tokenizer.get_vocabulary())
    with pytest.raises(ValueError, match="must be a WordPiece, byte-pair"):
        trim_tokenizer(keras.layers.Dense(3), trimming_of(tokenizer, [1]))
    with pytest.raises(ValueError, match=r"a trimming without '\[PAD\]'"):
        trim_tokenizer(tokenizer, chosen(Wanted(keep=[5]), size))
    few = Trimming(3, np.arange(3), {})
    with pytest.raises(ValueError, match=f"3 words, and {size} pieces"):
        trim_tokenizer(tokenizer, few)
    many = keras.layers.StringLookup(
        vocabulary=["a", "b"], output_mode="multi_hot"
    )
    with pytest.raises(ValueError, match="must give ids. Received: layer"):
        pieces_of(many)
