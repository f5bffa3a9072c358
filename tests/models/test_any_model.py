"""Models of any class: what comes out is what went in, with smaller tables."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from contract import assert_close, assert_equal
from hub_models import small_gpt2
from keras import layers, ops

from keras_embcomp import (
    LowRankEmbedding,
    ProductQuantizedEmbedding,
    compress,
    replace_layers,
    report,
    resize_vocabulary,
    to_keras,
    trim_vocabulary,
)
from keras_embcomp.models.find import dense_places

WORDS, WIDTH = 2_003, 16
register = keras.saving.register_keras_serializable(package="tests")


@register
class TokenAndPosition(layers.Layer):
    """As in Keras' tutorial of a Transformer."""

    def __init__(self, length, words, width, **kwargs):
        super().__init__(**kwargs)
        self.sizes = {"length": length, "words": words, "width": width}
        self.token = layers.Embedding(words, width)
        self.position = layers.Embedding(length, width)

    def call(self, ids):
        numbers = ops.arange(ops.shape(ids)[-1])
        return self.token(ids) + self.position(numbers)

    def get_config(self):
        return {**super().get_config(), **self.sizes}


@register
class TiedHead(layers.Layer):
    """Gets the table in its constructor, as keras-hub's `MaskedLMHead`."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def build(self, shape):
        self.bias = self.add_weight(name="bias", shape=(self.table.input_dim,))

    def call(self, hidden):
        return self.table(hidden, reverse=True) + self.bias

    def get_config(self):
        table = keras.saving.serialize_keras_object(self.table)
        return {**super().get_config(), "table": table}

    @classmethod
    def from_config(cls, config):
        table = keras.saving.deserialize_keras_object(config.pop("table"))
        return cls(table, **config)


@register
class TwoTowers(keras.Model):
    def __init__(self, users=WORDS, items=1_501, **kwargs):
        super().__init__(**kwargs)
        self.sizes = {"users": users, "items": items}
        self.towers = {
            name: keras.Sequential(
                [layers.Embedding(size, WIDTH), layers.Dense(4)]
            )
            for name, size in self.sizes.items()
        }

    def call(self, inputs):
        users, items = (self.towers[name](inputs[name]) for name in self.sizes)
        return ops.sum(users * items, axis=-1, keepdims=True)

    def get_config(self):
        return {**super().get_config(), **self.sizes}


@register
class Tied(keras.Model):
    """A subclass whose table is called on both sides, held in two places."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.ReversibleEmbedding(WORDS, WIDTH)
        self.blocks = [layers.Dense(WIDTH) for _ in range(2)]
        self.head = TiedHead(self.words)

    def call(self, ids):
        hidden = self.words(ids)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)

    def get_config(self):
        return {"name": self.name}


@register
class OwnStep(keras.Model):
    """Made of inputs and outputs, with a train step of its own."""

    def train_step(self, *args):  # the state and the data on JAX
        return super().train_step(*args)


def ids_of(size=WORDS, shape=(5, 6)):
    return np.random.default_rng(1).integers(0, size, shape).astype("int32")


def in_a_layer():
    entry = keras.Input((6,), dtype="int32")
    hidden = TokenAndPosition(6, WORDS, WIDTH)(entry)
    return keras.Model(entry, layers.Dense(2)(hidden)), ids_of()


def tied_by_a_constructor():
    entry = keras.Input((6,), dtype="int32")
    words = layers.ReversibleEmbedding(WORDS, WIDTH, name="words")
    hidden = layers.Dense(WIDTH)(words(entry))
    return keras.Model(entry, TiedHead(words, name="head")(hidden)), ids_of()


def subclassed():
    inputs = {"users": ids_of(shape=(5,)), "items": ids_of(1_501, (5,))}
    model = TwoTowers()
    model(inputs)
    return model, inputs


def subclassed_and_tied():
    model = Tied()
    model(ids_of())
    return model, ids_of()


def with_a_step_of_its_own():
    entry = keras.Input((6,), dtype="int32")
    hidden = layers.Embedding(WORDS, WIDTH, mask_zero=True)(entry)
    return OwnStep(entry, layers.Dense(2)(layers.LSTM(4)(hidden))), ids_of()


def untied_and_capped():
    entry = keras.Input((6,), dtype="int32")
    words = layers.ReversibleEmbedding(
        WORDS, WIDTH, tie_weights=False, logit_soft_cap=2.0, name="words"
    )
    hidden = layers.Dense(WIDTH)(words(entry))
    return keras.Model(entry, words(hidden, reverse=True)), ids_of()


def keras_rs_bag():
    keras_rs = pytest.importorskip("keras_rs")
    entry = keras.Input((6,), dtype="int32")
    bag = keras_rs.layers.EmbedReduce(WORDS, WIDTH, combiner="sqrtn")
    return keras.Model(entry, layers.Dense(2)(bag(entry))), ids_of()


MODELS = (
    in_a_layer,
    tied_by_a_constructor,
    subclassed,
    subclassed_and_tied,
    with_a_step_of_its_own,
    untied_and_capped,
    keras_rs_bag,
)
COMPUTED = (in_a_layer, subclassed, untied_and_capped, keras_rs_bag)
TRAINED = (tied_by_a_constructor, subclassed_and_tied, with_a_step_of_its_own)
# A copy is made of configurations, which is the same on every backend; what
# computes, trains or generates is not.
once = pytest.mark.tensorflow_only


def models(on_every_backend):
    """Parametrizes a test with every model, on TensorFlow."""
    parameters = [
        pytest.param(make, marks=() if make in on_every_backend else once)
        for make in MODELS
    ]
    return pytest.mark.parametrize(
        "make", parameters, ids=[make.__name__ for make in MODELS]
    )


def test_every_model_is_tried_on_every_backend():
    assert {*COMPUTED, *TRAINED} == {*MODELS}


def numbers(outputs):
    return ops.convert_to_numpy(outputs)


def size_of(model, folder):
    model.save(folder / "size.keras")
    return (folder / "size.keras").stat().st_size


@models(COMPUTED)
def test_keeps_the_class_and_computes_with_the_tables(make, tmp_path):
    model, inputs = make()
    before = model.get_weights()
    expected = numbers(model(inputs))
    small = compress(model, ratio=8, method="low_rank")
    assert isinstance(small, type(model))
    assert type(small).__name__ == type(model).__name__
    assert not dense_places(small) or "layer" in make.__name__
    dense = to_keras(small)
    assert type(dense) is type(model)
    assert len(dense.weights) == len(model.weights)
    found = numbers(small(inputs))
    assert_close(found, numbers(dense(inputs)), rtol=1e-4, atol=1e-5)
    assert not np.array_equal(found, expected)
    # The original is as it was.
    assert_equal(model(inputs), expected)
    for one, other in zip(model.get_weights(), before, strict=True):
        assert_equal(one, other)
    assert size_of(small, tmp_path) < 0.6 * size_of(model, tmp_path)


@models(TRAINED)
def test_trains_saves_and_loads(make, tmp_path):
    model, inputs = make()
    plan_like = {"max_error": 0.9, "method": "hashed"}
    small = compress(model, **plan_like)
    outputs = numbers(small(inputs))
    small.compile("adam", "mse")
    small.fit(inputs, np.zeros_like(outputs), verbose=0)
    expected = numbers(small(inputs))
    assert not np.array_equal(expected, outputs)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    assert type(loaded).__name__ == type(small).__name__
    assert_equal(loaded(inputs), expected)
    small.save_weights(tmp_path / "small.weights.h5")
    fresh = compress(model, **plan_like)
    fresh.load_weights(tmp_path / "small.weights.h5")
    assert_equal(fresh(inputs), expected)
    # It goes on where it was: the slots of the optimizer are those.
    for one in (small, loaded):
        one.fit(
            inputs, np.ones_like(outputs), verbose=0, epochs=2, shuffle=False
        )
    assert_close(loaded(inputs), numbers(small(inputs)), rtol=1e-5, atol=1e-6)


@once
def test_a_fresh_process_reads_the_class(tmp_path):
    hub = pytest.importorskip("keras_hub")
    backbone = hub.models.BertBackbone(
        vocabulary_size=WORDS,
        num_layers=1,
        num_heads=2,
        hidden_dim=WIDTH,
        intermediate_dim=WIDTH,
        max_sequence_length=16,
    )
    model = hub.models.BertMaskedLM(backbone=backbone, preprocessor=None)
    small = compress(model, ratio=4, method="low_rank")
    inputs = {
        "token_ids": ids_of(shape=(2, 8)),
        "padding_mask": np.ones((2, 8), "int32"),
        "segment_ids": np.zeros((2, 8), "int32"),
        "mask_positions": np.array([[1, 2], [3, 4]], "int32"),
    }
    small.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", y=numbers(small(inputs)), **inputs)
    code = f"""
import keras, keras_embcomp, keras_hub, numpy as np
data = dict(np.load({str(tmp_path / "x.npz")!r}))
expected = data.pop("y")
model = keras.saving.load_model({str(tmp_path / "model.keras")!r})
assert isinstance(model, keras_hub.models.BertMaskedLM), type(model)
found = keras.ops.convert_to_numpy(model(data))
assert np.array_equal(found, expected), abs(found - expected).max()
head = model.get_layer("mlm_head")
assert head.token_embedding is model.backbone.token_embedding
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=500)


def test_a_causal_model_generates_as_with_dense_tables(tmp_path):
    hub = pytest.importorskip("keras_hub")
    model = small_gpt2(WORDS, WIDTH)
    small = compress(model, ratio=4, method="low_rank")
    assert isinstance(small, hub.models.GPT2CausalLM)
    assert isinstance(small.backbone, hub.models.GPT2Backbone)
    assert isinstance(small.backbone.token_embedding, LowRankEmbedding)
    prompt = {
        "token_ids": np.array([[5, 6, 7, 0, 0, 0]], "int32"),
        "padding_mask": np.array([[1, 1, 1, 0, 0, 0]], "int32"),
    }
    found = []
    small.save_to_preset(tmp_path / "preset")
    read = hub.models.CausalLM.from_preset(str(tmp_path / "preset"))
    assert type(read) is hub.models.GPT2CausalLM
    for one in (to_keras(small), small, read):
        one.compile(sampler="greedy")
        tokens = one.generate(prompt, stop_token_ids=None)["token_ids"]
        found.append(numbers(tokens))
    assert_equal(found[1], found[0])
    assert_equal(found[2], found[0])


@once
def test_lora_stays_where_it_was():
    model = small_gpt2(WORDS, WIDTH, num_layers=2)
    model.backbone.enable_lora(2)
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(generator.normal(size=weight.shape) * 0.1)
    small = compress(model, ratio=4, method="low_rank")
    names = [weight.name for weight in model.trainable_weights]
    assert [weight.name for weight in small.trainable_weights] == names
    inputs = {
        "token_ids": ids_of(shape=(2, 8)),
        "padding_mask": np.ones((2, 8), "int32"),
    }
    dense = to_keras(small)
    assert_close(small(inputs), numbers(dense(inputs)), rtol=1e-4, atol=1e-5)
    table = dense.backbone.token_embedding.get_weights()
    model.backbone.token_embedding.set_weights(table)
    assert_close(small(inputs), numbers(model(inputs)), rtol=1e-4, atol=1e-5)


@once
@pytest.mark.parametrize("side", ["embedding", "kernel"])
def test_lora_of_a_table_is_part_of_it(side):
    entry = keras.Input((6,), dtype="int32")
    words = layers.Embedding(WORDS, WIDTH)
    head = layers.Dense(1_501)
    model = keras.Model(entry, head(words(entry)))
    layer = words if side == "embedding" else head
    layer.enable_lora(2, b_initializer="glorot_normal")
    expected = numbers(model(ids_of()))
    small = compress(model, max_error=1e-5, method="low_rank")
    assert_close(small(ids_of()), expected, rtol=1e-3, atol=1e-4)


@once
def test_replaces_layers_by_path():
    model, inputs = in_a_layer()
    layer = model.layers[1].token
    small = ProductQuantizedEmbedding.from_layer(
        layer, num_parts=4, part_width=4, codebook_size=32
    )
    path = f"{model.layers[1].name}/{layer.name}"
    copy = replace_layers(model, {path: small})
    assert copy.layers[1].token is small
    expected = small.to_dense()[inputs] + numbers(
        model.layers[1].position(np.arange(6))
    )
    assert_close(copy.layers[1](inputs), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="must name layers of the model"):
        replace_layers(model, {"words": small})
    with pytest.raises(ValueError, match="must hold built layers"):
        replace_layers(model, {path: LowRankEmbedding(WORDS, WIDTH, 2)})


@once
def test_a_report_counts_what_the_file_weighs(tmp_path):
    model, _ = tied_by_a_constructor()
    small = compress(model, ratio=8, method="low_rank")
    words = report(small, baseline=model).tables
    assert [table.path for table in words] == ["words"]
    saved = size_of(model, tmp_path) - size_of(small, tmp_path)
    claimed = words[0].dense_bytes - words[0].bytes
    assert saved == pytest.approx(claimed, rel=0.05)


@once
def test_a_copy_of_the_copy_is_alike():
    model, inputs = subclassed_and_tied()
    small = compress(model, ratio=8, method="low_rank")
    copy = replace_layers(small, {})
    assert type(copy) is type(small)
    assert copy.head.table is copy.words
    assert copy.words is not small.words
    assert_equal(copy(inputs), numbers(small(inputs)))


@once
def test_says_which_layer_cannot_be_made_again():
    class Unsaid(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    entry = keras.Input((6,), dtype="int32")
    hidden = layers.Embedding(WORDS, WIDTH, name="words")(entry)
    model = keras.Model(entry, Unsaid(ops.relu)(hidden))
    with pytest.raises(ValueError, match="config.*Received: layer 'unsaid'"):
        compress(model, ratio=4, method="low_rank")


def test_a_hidden_layer_is_no_table():
    """A real Transformer's first feed-forward layer has 1,536 units."""
    ids = keras.Input((4,), dtype="int32")
    states = layers.Embedding(WORDS, WIDTH, name="words")(ids)
    wide = layers.Dense(1_536, activation="gelu", name="wide")(states)
    states = states + layers.Dense(WIDTH, name="narrow")(wide)
    logits = layers.Dense(1_200, name="head")(states)
    model = keras.Model(ids, logits)
    assert [p.path for p in dense_places(model)] == ["words", "head"]
    assert [row.path for row in report(model).tables] == ["words", "head"]
    # A head of as many units as an embedding has rows is one, though another
    # layer may read as many numbers.
    again = layers.Dense(WORDS, name="again")(states)
    model = keras.Model(ids, layers.Dense(3, name="few")(again))
    assert [p.path for p in dense_places(model)] == ["words", "again"]


@pytest.mark.parametrize("table", ["dense", "compressed", "quantized by Keras"])
def test_words_come_and_go(table):
    ids = keras.Input((4,), dtype="int32")
    words = layers.Embedding(50, 8, name="words")
    model = keras.Model(ids, layers.Dense(50, name="head")(words(ids)))
    if table == "compressed":
        small = LowRankEmbedding.from_layer(words, rank=4)
        small.quantize("int8")
        model = replace_layers(model, {"words": small})
    elif "Keras" in table:
        for layer in model.layers[1:]:
            layer.quantize("int8")
    keep = np.arange(0, 50, 2)
    trimmed, trimming = trim_vocabulary(model, keep)
    x = np.array([[0, 4, 6, 8]])
    before = ops.convert_to_numpy(model(x))
    found = trimmed(trimming.renumbered(x))
    assert_close(found, before[..., keep], atol=1e-6)
    grown = resize_vocabulary(model, 53, like={50: {1: 0.5, 2: 0.5}})
    found = ops.convert_to_numpy(grown(x))
    assert_close(found[..., :50], before, atol=1e-6)
    if table == "dense":
        mean = before[..., 1:3].mean(axis=-1)
        assert_close(found[..., 50], mean, atol=1e-6)


@pytest.mark.parametrize("how", ["compress", "replace", "resize", "to_keras"])
def test_a_copy_outlives_the_training_of_the_original(how):
    """JAX gives the buffers of what it trains away: none may be shared."""
    ids = keras.Input((5,), dtype="int32")
    words = layers.Embedding(1_200, 8, name="words")
    states = layers.LSTM(8, return_sequences=True)(words(ids))
    model = keras.Model(ids, layers.Dense(1_200, name="next")(states))
    if how == "to_keras":
        model = compress(model, ratio=4, method="low_rank")
    made = {
        "compress": lambda: compress(model, ratio=4, method="low_rank"),
        "replace": lambda: replace_layers(
            model, {"words": LowRankEmbedding.from_layer(words, rank=2)}
        ),
        "resize": lambda: resize_vocabulary(model, 1_203),
        "to_keras": lambda: to_keras(model),
    }
    copy = made[how]()
    before = [np.array(weight) for weight in copy.get_weights()]
    x = np.arange(40, dtype="int32").reshape(8, 5)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, x, verbose=0)
    copy.predict(x, verbose=0)
    for weight, kept in zip(copy.get_weights(), before, strict=True):
        assert_equal(weight, kept)


@pytest.mark.parametrize("kind", ["GPT2 CausalLM", "Bert TextClassifier"])
def test_a_task_that_was_used_is_copied(kind):
    """A preprocessor makes layers once it is called, of its tokenizer."""
    pytest.importorskip("keras_hub")
    from vocabulary_models import task

    model = task(kind)
    texts = ["the cat sat", "a dog on the mat"]

    def used(model):
        if kind.endswith("CausalLM"):
            model.compile(sampler="greedy")
            return model.generate(texts, max_length=10)
        return model.predict(texts, verbose=0)

    before = used(model)
    path, table = dense_places(model)[0]
    same = LowRankEmbedding.from_layer(table, rank=table.output_dim)
    copy = replace_layers(model, {path: same})
    if kind.endswith("CausalLM"):
        assert used(copy) == before
    else:
        assert_close(used(copy), before, rtol=1e-4, atol=1e-5)
