"""Small tokenizers of every kind, trained on text that is always there."""

import functools
import inspect
import io
import json
import re

import keras
import keras_hub
import sentencepiece
import tensorflow as tf
import tokenizers

SIZE = 360


@functools.cache
def texts():
    """Returns a hundred English sentences: docstrings of Keras."""
    found = []
    for name in sorted(dir(keras.layers)):
        text = inspect.getdoc(getattr(keras.layers, name)) or ""
        sentences = re.split(r"(?<=\.)\s+", text.split("```")[0])
        found += [" ".join(one.split()) for one in sentences]
    found = [one for one in dict.fromkeys(found) if 20 < len(one) < 120]
    return [*found[:120], "naïve façade, 東京 and 🙂"]


def _trained(model, trainer, **parts):
    tokenizer = tokenizers.Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(texts()[:-1], trainer)
    return tokenizer


@functools.cache
def hugging_face(kind):
    """Returns a tokenizer of the library `tokenizers`."""
    models, pre = tokenizers.models, tokenizers.pre_tokenizers
    trainers = tokenizers.trainers
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if kind == "word pieces":
        tokenizer = _trained(
            models.WordPiece(unk_token="[UNK]"),
            trainers.WordPieceTrainer(
                vocab_size=SIZE, special_tokens=specials, show_progress=False
            ),
            normalizer=tokenizers.normalizers.BertNormalizer(),
            pre_tokenizer=pre.BertPreTokenizer(),
            decoder=tokenizers.decoders.WordPiece(),
        )
        ids = [(one, tokenizer.token_to_id(one)) for one in specials[2:4]]
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=ids
        )
        tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
        return tokenizer
    if kind == "bytes":
        return _trained(
            models.BPE(),
            trainers.BpeTrainer(
                vocab_size=SIZE,
                special_tokens=["<s>", "<pad>", "</s>"],
                initial_alphabet=pre.ByteLevel.alphabet(),
                show_progress=False,
            ),
            pre_tokenizer=pre.ByteLevel(add_prefix_space=False),
            decoder=tokenizers.decoders.ByteLevel(),
        )
    if kind == "ends of words":
        return _trained(
            models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"),
            trainers.BpeTrainer(
                vocab_size=SIZE,
                special_tokens=["<unk>"],
                end_of_word_suffix="</w>",
                show_progress=False,
            ),
            pre_tokenizer=pre.Whitespace(),
        )
    return _trained(
        models.Unigram(),
        trainers.UnigramTrainer(
            vocab_size=SIZE,
            special_tokens=["<unk>"],
            unk_token="<unk>",
            show_progress=False,
        ),
        pre_tokenizer=pre.Metaspace(),
        decoder=tokenizers.decoders.Metaspace(),
    )


@functools.cache
def proto(kind, **options):
    """Returns a SentencePiece model of a kind, "unigram" or "bpe"."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()[:-1]),
        model_writer=file,
        vocab_size=SIZE,
        model_type=kind,
        minloglevel=2,
        **options,
    )
    return file.getvalue()


def keras_hub_tokenizer(kind):
    """Returns a tokenizer of keras-hub."""
    if kind == "BertTokenizer":
        ids = hugging_face("word pieces").get_vocab()
        return keras_hub.models.BertTokenizer(
            sorted(ids, key=ids.__getitem__), lowercase=True
        )
    if kind in ("RobertaTokenizer", "GPT2Tokenizer"):
        trained = hugging_face("bytes")
        ids, merges = trained.get_vocab(), _merges(trained)
        if kind == "GPT2Tokenizer":
            ids["<|endoftext|>"] = len(ids)
            return keras_hub.models.GPT2Tokenizer(ids, merges)
        ids["<mask>"] = len(ids)
        return keras_hub.models.RobertaTokenizer(ids, merges)
    fallback = {"byte_fallback": True, "pad_id": 0, "unk_id": 3}
    fallback |= {"pad_piece": "<pad>", "eos_id": 1, "bos_id": 2}
    if kind == "GemmaTokenizer":
        pieces = {"bos_piece": "<bos>", "eos_piece": "<eos>"}
        return keras_hub.models.GemmaTokenizer(
            proto("bpe", **fallback, **pieces)
        )
    if kind == "T5Tokenizer":
        return keras_hub.models.T5Tokenizer(
            proto("unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
        )
    if kind == "XLMRobertaTokenizer":
        return keras_hub.models.XLMRobertaTokenizer(proto("unigram"))
    assert kind == "DebertaV3Tokenizer", kind
    symbols = {"bos_piece": "[CLS]", "eos_piece": "[SEP]"}
    symbols |= {"pad_piece": "[PAD]", "unk_piece": "[UNK]"}
    return keras_hub.models.DebertaV3Tokenizer(
        proto("unigram", pad_id=0, bos_id=1, eos_id=2, unk_id=3, **symbols)
    )


def _merges(tokenizer):
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [x if isinstance(x, str) else " ".join(x) for x in merges]


def lookup(kind):
    """Returns a lookup of Keras: `TextVectorization`, `StringLookup` or one
    with two unknown words."""
    words = sorted({w for t in texts()[:60] for w in t.lower().split()})
    if kind == "TextVectorization":
        layer = keras.layers.TextVectorization(output_sequence_length=12)
        layer.adapt(tf.constant(texts()[:60]))
        return layer
    if kind == "StringLookup":
        return keras.layers.StringLookup(vocabulary=words, mask_token="")
    return keras.layers.StringLookup(vocabulary=words, num_oov_indices=2)
