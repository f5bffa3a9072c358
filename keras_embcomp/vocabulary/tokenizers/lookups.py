"""`TextVectorization`, `StringLookup` and `IntegerLookup` of Keras."""

import keras

from keras_embcomp.vocabulary.tokenizers.pieces import Pieces

_LOOKUPS = (keras.layers.StringLookup, keras.layers.IntegerLookup)


class LookupPieces(Pieces):
    """The words of a lookup. Others become its unknown word."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        mode = tokenizer.get_config().get("output_mode", "int")
        if mode != "int":
            raise ValueError(
                "`tokenizer` must give ids. Received: layer "
                f"'{tokenizer.name}' with output_mode={mode!r}"
            )

    @classmethod
    def takes(cls, tokenizer):
        return isinstance(
            tokenizer, (keras.layers.TextVectorization, *_LOOKUPS)
        )

    def names(self):
        return list(self.tokenizer.get_vocabulary(include_special_tokens=True))

    def always_kept(self):
        words = self.tokenizer.get_vocabulary(include_special_tokens=False)
        return set(range(len(self.names()) - len(words)))

    def rewritten(self, kept):
        names, first = self.names(), len(self.always_kept())
        words = [names[old] for old in kept[first:]]
        config = {**self.tokenizer.get_config(), "vocabulary": words}
        if config.get("max_tokens") is not None:
            config["max_tokens"] = len(kept)
        config.pop("idf_weights", None)
        return type(self.tokenizer).from_config(config)

    def encoded(self, texts):
        found = keras.ops.convert_to_numpy(self.tokenizer(list(texts)))
        return found.reshape(len(texts), -1)
