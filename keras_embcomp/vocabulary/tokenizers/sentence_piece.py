"""SentencePiece tokenizers of keras-hub.

A unigram model takes the pieces with the largest sum of scores. If these are
kept, the sum is the largest still. What a character without a piece costs
follows from the lowest score, so the piece with that score is kept.
"""

from typing import Any

from keras_embcomp.vocabulary.tokenizers.merges import Merges
from keras_embcomp.vocabulary.tokenizers.pieces import (
    HubPieces,
    is_a,
    remade,
    special_ids,
)

SPACE = "\u2581"  # bytes would write it as what it looks like
_BPE = 2
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


class SentencePieces(HubPieces):
    """The pieces of a `SentencePieceTokenizer`.

    Ids are those of the tokenizer: some classes put pieces before and after
    those of their file.
    """

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self._model = read_model(tokenizer.proto)
        self._ids = [
            int(tokenizer.token_to_id(piece.piece))
            for piece in self._model.pieces
        ]
        names = [piece.piece for piece in self._model.pieces]
        self._by_name = dict(zip(names, self._ids, strict=True))
        self._merges = None
        if self._model.trainer_spec.model_type == _BPE:
            self._merges = Merges.from_scores(
                {p.piece: p.score for p in self._model.pieces}
            )

    @classmethod
    def takes(cls, tokenizer):
        return is_a(tokenizer, "SentencePieceTokenizer")

    def names(self):
        size = self.tokenizer.vocabulary_size()
        return [self.tokenizer.id_to_token(index) for index in range(size)]

    def always_kept(self):
        pieces = list(zip(self._model.pieces, self._ids, strict=True))
        ids = {
            index
            for piece, index in pieces
            if piece.type in (_UNKNOWN, _CONTROL, _BYTE) or piece.piece == SPACE
        }
        normal = [(p.score, i) for p, i in pieces if p.type == _NORMAL]
        if normal and self._merges is None:
            ids.add(min(normal)[1])
        return special_ids(self.tokenizer) | ids

    def needed(self, piece):
        if self._merges is None:
            return set()
        name = self.tokenizer.id_to_token(piece)
        parts = self._merges.made_of(name)
        return {self._by_name[part] for part in parts & self._by_name.keys()}

    def rewritten(self, kept):
        chosen = set(kept)
        pieces = zip(self._model.pieces, self._ids, strict=True)
        model = type(self._model)()
        model.CopyFrom(self._model)
        del model.pieces[:]
        model.pieces.extend(p for p, index in pieces if index in chosen)
        number_specials(model)
        new = remade(self.tokenizer, proto=None)
        new.set_proto(model.SerializeToString())
        return new


def read_model(proto: bytes) -> Any:
    """Returns the model in a file of SentencePiece."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise ImportError(
            "A SentencePiece tokenizer is trimmed with the package "
            "`sentencepiece`: `pip install sentencepiece`."
        ) from error
    model: Any = sentencepiece_model_pb2
    return model.ModelProto.FromString(proto)


def number_specials(model: Any) -> None:
    """Makes a model's notes of its own pieces those of its pieces now."""
    spec = model.trainer_spec
    ids = {piece.piece: index for index, piece in enumerate(model.pieces)}
    spec.vocab_size = len(model.pieces)
    for name in ("unk", "bos", "eos", "pad"):
        index = ids.get(getattr(spec, f"{name}_piece"), -1)
        if getattr(spec, f"{name}_id") >= 0 or index >= 0:
            setattr(spec, f"{name}_id", index)
