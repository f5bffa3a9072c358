"""Keeps the words of a model that are used."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_embcomp._types import ArrayLike
from keras_embcomp.models.find import is_embedding
from keras_embcomp.models.vocabulary import vocabulary_of, with_words
from keras_embcomp.vocabulary.tokenizers import pieces_of
from keras_embcomp.vocabulary.trimming import Trimming, Wanted, chosen
from keras_embcomp.vocabulary.words_of_models import tokenizers_of


def trim_vocabulary(
    model: keras.Model,
    keep: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    size: int | None = None,
    coverage: float | None = None,
    tokenizer: Any = None,
    tables: Sequence[str] | None = None,
    multiple_of: int | None = None,
) -> tuple[keras.Model, Trimming]:
    """Returns a copy of a model with some of its words, and which these are.

    The copy has the class of the model. Every table, bias and head of the
    vocabulary is cut alike, compressed or not, quantized or not; the sizes in
    the configs are changed. Words keep their order. For a text all of whose
    pieces are kept it computes what the model computes.

    The tokenizer of a keras-hub preprocessor and the lookups inside the model
    are cut with it. `trim_tokenizer` cuts others.

    What must stay is kept whatever is asked: id 0, special pieces, the pieces
    of bytes, the unknown word, and the pieces that a kept piece is merged from.

    Args:
        model: Built model of any class that `compress` takes.
        keep: Ids to keep, or `None`.
        counts: Counts of shape `(vocabulary,)`, or one for each piece of the
            tokenizer, as `count_ids` returns, or `None`. The most frequent
            words are kept: all that were counted, or as `size` or `coverage`
            say.
        size: Integer. How many words to keep.
        coverage: Number above 0 and at most 1. The share of all counts that
            the kept words must have.
        tokenizer: What makes the ids, if it is outside the model: a tokenizer
            of keras-hub, a lookup of Keras, or a `tokenizer.json`. It says
            what must stay.
        tables: Paths of the layers with the vocabulary's tables. `None` takes
            those with as many rows as the largest embedding.
        multiple_of: Integer. The number of words is rounded up to a multiple,
            such as 64 for an accelerator.

    Returns:
        The copy, and a `Trimming`.

    Raises:
        ValueError: if an argument is wrong, or the vocabulary is not clear.

    Example:

    >>> words = keras.layers.Embedding(1_000, 8, name="words")
    >>> model = keras.Sequential([keras.Input((4,), dtype="int32"), words])
    >>> small, trimming = trim_vocabulary(model, keep=[5, 7, 900])
    >>> small.layers[0].input_dim, trimming.new_to_old
    (4, array([  0,   5,   7, 900]))
    """
    vocabulary = vocabulary_of(model, tables)
    inside = tokenizers_of(model, vocabulary)
    pieces = None
    if tokenizer is not None or inside:
        pieces = pieces_of(inside[0] if tokenizer is None else tokenizer)
        _check_fits(pieces, vocabulary)
    special = set() if pieces is None else pieces.always_kept()
    if any(is_embedding(place.layer) for place in vocabulary.places):
        special |= {0}  # padding, nearly everywhere
    if pieces is not None and counts is not None:
        counts = _for_rows(counts, len(pieces.names()), vocabulary.size)
    trimming = chosen(
        Wanted(keep, counts, size, coverage, multiple_of),
        vocabulary.size,
        special,
        pieces.needed if pieces is not None else lambda piece: set(),
    )
    layers = {id(layer): trim_tokenizer(layer, trimming) for layer in inside}
    small = with_words(model, vocabulary, trimming.new_to_old, layers)
    return small, trimming


def _for_rows(counts, pieces, rows):
    """Returns counts of pieces as counts of rows: no piece, no count."""
    counts = np.asarray(counts)
    if counts.shape != (pieces,):
        return counts
    return np.pad(counts, (0, rows - pieces))


def _check_fits(pieces, vocabulary):
    if len(pieces.names()) > vocabulary.size:
        raise ValueError(
            "`tokenizer` must not have more pieces than the tables have rows. "
            f"Received: {len(pieces.names())} pieces, and "
            f"{vocabulary.places[0].path} with {vocabulary.size} rows"
        )


def trim_tokenizer(tokenizer: Any, trimming: Trimming) -> Any:
    """Returns a tokenizer of the kept pieces, with their new ids.

    A text all of whose pieces are kept has the same pieces. What cannot be
    said with the kept pieces becomes the unknown piece, or bytes, as the
    tokenizer does.

    Args:
        tokenizer: A WordPiece, byte-pair or SentencePiece tokenizer of
            keras-hub, a `TextVectorization`, `StringLookup` or
            `IntegerLookup` of Keras, a `tokenizers.Tokenizer`, or the path of a
            `tokenizer.json`.
        trimming: What `trim_vocabulary` returned.

    Returns:
        A tokenizer of the same class; for a path, the text of a new file.

    Raises:
        ValueError: if it is of another kind, or the trimming lacks a piece
            that it needs.
    """
    pieces = pieces_of(tokenizer)
    known = len(pieces.names())
    kept = [int(old) for old in trimming.new_to_old if old < known]
    missing = sorted(pieces.always_kept() - set(kept))
    if known > trimming.size or missing:
        raise ValueError(
            "`trimming` must keep what the tokenizer needs: give the tokenizer "
            "to `trim_vocabulary`. Received: "
            + (
                f"a trimming of {trimming.size} words, and {known} pieces"
                if known > trimming.size
                else f"a trimming without {pieces.names()[missing[0]]!r}"
            )
        )
    new = pieces.rewritten(kept)
    if not isinstance(new, str):  # the text of a file
        pieces.check(pieces_of(new), kept)
    return new
