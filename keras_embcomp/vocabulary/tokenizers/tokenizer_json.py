"""The `tokenizer.json` of Hugging Face's library `tokenizers`."""

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from keras_embcomp.vocabulary.tokenizers.merges import Merges
from keras_embcomp.vocabulary.tokenizers.pieces import Pieces
from keras_embcomp.vocabulary.tokenizers.sentence_piece import SPACE

_MODELS = ("WordPiece", "BPE", "Unigram", "WordLevel")


class JsonPieces(Pieces):
    """The pieces of a `tokenizer.json`, or of a `tokenizers.Tokenizer`.

    A path becomes the text of a new file; a `Tokenizer` another `Tokenizer`.
    """

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        if isinstance(tokenizer, (str, PathLike)):
            self._config = json.loads(Path(tokenizer).read_text("utf-8"))
        else:
            self._config = json.loads(tokenizer.to_str())
        self._model = self._config["model"]
        kind = self._model.get("type")
        if kind not in _MODELS:
            raise ValueError(
                f"`tokenizer` must have a model of {', '.join(_MODELS)}. "
                f"Received: a model of type {kind!r}"
            )
        self._ids = self._every_id()
        self._merges = None
        if kind == "BPE":
            self._merges = Merges.from_pairs(
                self._pairs(),
                self._model.get("continuing_subword_prefix") or "",
                self._model.get("end_of_word_suffix") or "",
            )
        names = {index: name for name, index in self._ids.items()}
        if sorted(names) != list(range(len(names))):
            raise ValueError(
                "`tokenizer` must give its pieces the ids from 0. Received: "
                f"{len(names)} pieces with ids up to {max(names)}"
            )
        self._names = [names[index] for index in range(len(names))]

    @classmethod
    def takes(cls, tokenizer):
        if isinstance(tokenizer, (str, PathLike)):
            return True
        return hasattr(tokenizer, "to_str") and hasattr(tokenizer, "encode")

    def _every_id(self):
        vocabulary = self._model["vocab"]
        if not isinstance(vocabulary, dict):
            vocabulary = {piece: i for i, (piece, _) in enumerate(vocabulary)}
        added = self._config.get("added_tokens") or []
        return {**vocabulary, **{one["content"]: one["id"] for one in added}}

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for merge in self._model["merges"]:
            first, second = (
                merge.split(" ") if isinstance(merge, str) else merge
            )
            yield first, second

    def names(self):
        return self._names

    def always_kept(self):
        ids = {
            one["id"]
            for one in self._config.get("added_tokens") or []
            if one.get("special")
        }
        unknown = self._model.get("unk_token")
        if unknown in self._ids:
            ids.add(self._ids[unknown])
        if isinstance(self._model.get("unk_id"), int):
            ids.add(self._model["unk_id"])
        ids.update(self._ids[name] for name in _templates(self._config))
        pad = (self._config.get("padding") or {}).get("pad_id")
        if pad is not None:
            ids.add(pad)
        if SPACE in self._ids:
            ids.add(self._ids[SPACE])
        if self._model["type"] == "Unigram":
            scores = [score for _, score in self._model["vocab"]]
            ids.add(scores.index(min(scores)))
        return ids | self._bytes()

    def _bytes(self):
        """Returns the ids of the pieces that stand for bytes."""
        ids = set()
        if self._model.get("byte_fallback"):
            names = (f"<0x{byte:02X}>" for byte in range(256))
            ids |= {self._ids[name] for name in names if name in self._ids}
        steps = [self._config.get("pre_tokenizer"), self._config.get("decoder")]
        if "ByteLevel" in json.dumps(steps):
            ids |= {i for i, name in enumerate(self._names) if len(name) == 1}
        return ids

    def needed(self, piece):
        if self._merges is None:
            return set()
        parts = self._merges.made_of(self._names[piece])
        return {self._ids[part] for part in parts if part in self._ids}

    def rewritten(self, kept):
        new = {self._names[old]: index for index, old in enumerate(kept)}
        config = json.loads(json.dumps(self._config))
        config["model"] = self._rewritten_model(kept, new)
        config["added_tokens"] = [
            {**one, "id": new[one["content"]]}
            for one in config.get("added_tokens") or []
            if one["content"] in new
        ]
        if config.get("padding"):
            pad = self._names[config["padding"]["pad_id"]]
            config["padding"]["pad_id"] = new[pad]
        _renumber(config.get("post_processor"), new)
        text = json.dumps(config, ensure_ascii=False)
        if isinstance(self.tokenizer, (str, PathLike)):
            return text
        return type(self.tokenizer).from_str(text)

    def _rewritten_model(self, kept, new):
        model = dict(self._model)
        old = model["vocab"]
        if isinstance(old, dict):
            model["vocab"] = {name: new[name] for name in old if name in new}
        else:
            model["vocab"] = [old[index] for index in kept if index < len(old)]
        if isinstance(model.get("unk_id"), int):
            model["unk_id"] = new[self._names[model["unk_id"]]]
        if self._merges is not None:
            model["merges"] = [
                merge
                for merge, (first, second) in zip(
                    model["merges"], self._pairs(), strict=True
                )
                if {first, second, self._merges.joined(first, second)}
                <= new.keys()
            ]
        return model

    def encoded(self, texts):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(json.dumps(self._config))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        found = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [one.ids for one in found]


def _templates(config: Any) -> Iterator[str]:
    """Yields the pieces that a post-processor adds to a text."""
    for step in _steps(config.get("post_processor")):
        for name in ("sep", "cls"):
            if name in step:
                yield step[name][0]
        for special in (step.get("special_tokens") or {}).values():
            yield from special["tokens"]


def _renumber(processor: Any, new: dict[str, int]) -> None:
    """Gives the pieces that a post-processor adds their new ids."""
    for step in _steps(processor):
        for name in ("sep", "cls"):
            if name in step:
                step[name][1] = new[step[name][0]]
        for special in (step.get("special_tokens") or {}).values():
            special["ids"] = [new[token] for token in special["tokens"]]


def _steps(processor: Any) -> Iterator[dict[str, Any]]:
    if processor is None:
        return
    if processor.get("type") == "Sequence":
        for one in processor["processors"]:
            yield from _steps(one)
    else:
        yield processor
