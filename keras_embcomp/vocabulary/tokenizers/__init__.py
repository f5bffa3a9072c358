"""Tokenizers that can be cut to some of their pieces, a module a kind."""

from typing import Any

from keras_embcomp.vocabulary.tokenizers.byte_pair import BytePairs
from keras_embcomp.vocabulary.tokenizers.lookups import LookupPieces
from keras_embcomp.vocabulary.tokenizers.pieces import Pieces
from keras_embcomp.vocabulary.tokenizers.sentence_piece import SentencePieces
from keras_embcomp.vocabulary.tokenizers.tokenizer_json import JsonPieces
from keras_embcomp.vocabulary.tokenizers.word_piece import WordPieces

_KINDS: tuple[type[Pieces], ...] = (
    WordPieces,
    BytePairs,
    SentencePieces,
    LookupPieces,
    JsonPieces,
)


def can_be_cut(tokenizer: Any) -> bool:
    """Returns whether a layer is a tokenizer or lookup of a known kind."""
    return any(
        kind.takes(tokenizer) for kind in _KINDS if kind is not JsonPieces
    )


def pieces_of(tokenizer: Any) -> Pieces:
    """Returns the pieces of a tokenizer.

    Raises:
        ValueError: for one of another kind, or without a vocabulary.
    """
    for kind in _KINDS:
        if kind.takes(tokenizer):
            return kind(tokenizer)
    raise ValueError(
        "`tokenizer` must be a WordPiece, byte-pair or SentencePiece "
        "tokenizer of keras-hub, a `TextVectorization`, `StringLookup` or "
        "`IntegerLookup` of Keras, a `tokenizers.Tokenizer` or the path of a "
        f"`tokenizer.json`. Received: tokenizer={tokenizer!r}"
    )
