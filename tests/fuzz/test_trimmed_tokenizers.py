"""Random corpora, random words kept: the same pieces where these are kept."""

import json
import os

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from keras_embcomp import trim_tokenizer
from keras_embcomp.vocabulary.tokenizers import pieces_of
from keras_embcomp.vocabulary.trimming import Wanted, chosen

few = settings(
    derandomize=True,
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 60)),
)
words = st.text("abcé", min_size=1, max_size=8)
corpora = st.lists(
    st.lists(words, min_size=1, max_size=6).map(" ".join),
    min_size=3,
    max_size=12,
)


def trained(kind, texts, size):
    """Returns a small tokenizer of a corpus."""
    quiet = {"vocab_size": size, "show_progress": False}
    pre = pre_tokenizers.Whitespace()
    if kind == "bytes":
        pre = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model, trainer = models.BPE(), trainers.BpeTrainer(**quiet)
    elif kind == "ends of words":
        model = models.BPE(unk_token="?", end_of_word_suffix="</w>")
        trainer = trainers.BpeTrainer(
            special_tokens=["?"], end_of_word_suffix="</w>", **quiet
        )
    elif kind == "inside words":
        model = models.BPE(unk_token="?", continuing_subword_prefix="##")
        trainer = trainers.BpeTrainer(
            special_tokens=["?"], continuing_subword_prefix="##", **quiet
        )
    elif kind == "word pieces":
        model = models.WordPiece(unk_token="?")
        trainer = trainers.WordPieceTrainer(special_tokens=["?"], **quiet)
    else:
        model = models.Unigram()
        trainer = trainers.UnigramTrainer(
            special_tokens=["?"], unk_token="?", **quiet
        )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre
    tokenizer.train_from_iterator(texts, trainer)
    return of_exact_scores(tokenizer) if kind == "unigram" else tokenizer


def of_exact_scores(tokenizer):
    """Returns a unigram tokenizer whose sums of scores have no rounding.

    "a" and "aa" spell "aaa" in two ways of one score. Which of the two is
    taken follows from the last bit of each score, and these differ between
    a tokenizer that was trained and one that was read from a file.
    """
    description = json.loads(tokenizer.to_str())
    description["model"]["vocab"] = [
        [piece, round(score * 1024) / 1024]
        for piece, score in description["model"]["vocab"]
    ]
    return tokenizers.Tokenizer.from_str(json.dumps(description))


@pytest.mark.parametrize(
    "kind", ["bytes", "ends of words", "inside words", "word pieces", "unigram"]
)
@given(corpora, corpora, st.randoms(), st.integers(15, 60))
@few
def test_the_same_pieces_where_these_are_kept(kind, corpus, texts, random, n):
    tokenizer = trained(kind, corpus, n)
    pieces = pieces_of(tokenizer)
    size = len(pieces.names())
    texts = [*texts, *corpus]
    before = [tokenizer.encode(text).ids for text in texts]
    keep = {index for index in range(size) if random.random() < 0.4}
    keep |= set(before[random.randrange(len(texts))])
    trimming = chosen(
        Wanted(keep=sorted(keep)), size, pieces.always_kept(), pieces.needed
    )
    small = trim_tokenizer(tokenizer, trimming)
    kept = set(trimming.new_to_old.tolist())
    assert keep <= kept
    for text, old in zip(texts, before, strict=True):
        new = small.encode(text).ids
        assert all(0 <= index < len(kept) for index in new)
        if set(old) <= kept:
            np.testing.assert_array_equal(trimming.renumbered(old), new)
    if "BPE" in json.loads(small.to_str())["model"]["type"]:
        vocabulary = small.get_vocab()
        for first, second in json.loads(small.to_str())["model"]["merges"]:
            assert {first, second} <= set(vocabulary)
            assert pieces._merges.joined(first, second) in vocabulary
