"""WordPiece tokenizers of keras-hub.

The longest piece that fits is taken first. A piece that is taken still fits
when others are gone, and no longer one does: a text of kept pieces has the same
pieces.
"""

from keras_embcomp.vocabulary.tokenizers.pieces import (
    HubPieces,
    is_a,
    remade,
    special_ids,
)


class WordPieces(HubPieces):
    """The pieces of a `WordPieceTokenizer`."""

    @classmethod
    def takes(cls, tokenizer):
        return is_a(tokenizer, "WordPieceTokenizer")

    def names(self):
        return list(self.tokenizer.get_vocabulary())

    def always_kept(self):
        unknown = self.tokenizer.token_to_id(self.tokenizer.oov_token)
        extra = self.tokenizer.get_config().get("special_tokens") or []
        ids = {self.tokenizer.token_to_id(token) for token in extra}
        return special_ids(self.tokenizer) | ids | {unknown}

    def rewritten(self, kept):
        names = self.names()
        new = remade(self.tokenizer, vocabulary=None)
        new.set_vocabulary([names[old] for old in kept])
        return new
