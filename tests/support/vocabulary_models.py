"""Small random models of keras-hub, with their tokenizers."""

import keras_hub
from tokenizers_of_text import keras_hub_tokenizer

WORDS, WIDTH = 300, 16
SIZES = {
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": WIDTH,
    "intermediate_dim": 2 * WIDTH,
}


def backbone(kind, words=WORDS):
    """Returns a small random backbone of keras-hub."""
    hub, sizes = keras_hub.models, {**SIZES, "vocabulary_size": words}
    if kind == "Gemma":
        return hub.GemmaBackbone(
            num_query_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            **{k: v for k, v in sizes.items() if k != "num_heads"},
        )
    if kind == "T5":
        return hub.T5Backbone(**sizes)
    if kind == "Llama":
        return hub.Llama3Backbone(
            num_query_heads=2,
            num_key_value_heads=1,
            **{k: v for k, v in sizes.items() if k != "num_heads"},
        )
    cls = getattr(hub, f"{kind}Backbone")
    extra = {"bucket_size": 8} if kind == "DebertaV3" else {}
    return cls(max_sequence_length=16, **sizes, **extra)


def task(kind):
    """Returns a task of keras-hub, with its tokenizer and preprocessor."""
    hub = keras_hub.models
    family, name = kind.split(" ")
    tokenizer = keras_hub_tokenizer(
        {"T5": "T5", "Xlm": "XLMRoberta"}.get(family, family) + "Tokenizer"
    )
    preprocessor = getattr(hub, f"{family}{name}Preprocessor")(
        tokenizer, sequence_length=16
    )
    made = backbone(family, tokenizer.vocabulary_size())
    extra = {"num_classes": 3} if name == "TextClassifier" else {}
    cls = getattr(hub, family + name)
    return cls(backbone=made, preprocessor=preprocessor, **extra)


def varied(model, generator):
    """Gives a model random weights, where some start equal."""
    for weight in model.weights:
        if "float" in weight.dtype and "seed" not in weight.path:
            values = generator.normal(size=weight.shape, scale=0.2)
            weight.assign(values + ("gamma" in weight.path))
    return model
