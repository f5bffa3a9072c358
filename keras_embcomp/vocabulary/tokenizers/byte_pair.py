"""Byte-pair tokenizers of keras-hub."""

from keras_embcomp.vocabulary.tokenizers.merges import Merges
from keras_embcomp.vocabulary.tokenizers.pieces import (
    HubPieces,
    is_a,
    remade,
    special_ids,
)

_END = "</w>"  # CLIP's


class BytePairs(HubPieces):
    """The pieces of a `BytePairTokenizer`: bytes, and what merges make."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        ids = tokenizer.vocabulary
        self._names = sorted(ids, key=ids.__getitem__)
        if [ids[name] for name in self._names] != list(range(len(ids))):
            raise ValueError(
                "`tokenizer` must give its pieces the ids from 0. Received: "
                f"{len(ids)} pieces with ids up to {max(ids.values())}"
            )
        self._pairs = [
            (*merge.split(" "), merge)
            for merge in tokenizer.merges
            if "#version:" not in merge
        ]
        pairs = [(first, second) for first, second, _ in self._pairs]
        ends = any(second.endswith(_END) for _, second in pairs)
        self._merges = Merges.from_pairs(pairs, suffix=_END if ends else "")

    @classmethod
    def takes(cls, tokenizer):
        return is_a(tokenizer, "BytePairTokenizer")

    def names(self):
        return self._names

    def always_kept(self):
        single = {
            index
            for index, name in enumerate(self._names)
            if len(name.removesuffix(_END)) == 1
        }
        # keras-hub cannot read a tokenizer without merges.
        merged = {
            self.tokenizer.vocabulary[name]
            for first, second, _ in self._pairs[:1]
            for name in (first, second, first + second)
        }
        return special_ids(self.tokenizer) | single | merged

    def needed(self, piece):
        parts = self._merges.made_of(self._names[piece])
        return {self.tokenizer.vocabulary[part] for part in parts}

    def rewritten(self, kept):
        vocabulary = {self._names[old]: new for new, old in enumerate(kept)}
        merges = [
            text
            for first, second, text in self._pairs
            if {first, second, first + second} <= vocabulary.keys()
        ]
        config = {}
        unsplit = self.tokenizer.get_config().get("unsplittable_tokens")
        if unsplit:
            config["unsplittable_tokens"] = [
                token for token in unsplit if token in vocabulary
            ]
        new = remade(self.tokenizer, **config)
        new.set_vocabulary_and_merges(vocabulary, merges)
        return new
