"""Models of some of their words compute what the models computed."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tokenizers_of_text import keras_hub_tokenizer, texts
from vocabulary_models import WIDTH, WORDS, backbone, task, varied

from keras_embcomp import (
    DistilledEmbedding,
    GroupReduceEmbedding,
    HashedEmbedding,
    LowRankEmbedding,
    ProductQuantizedEmbedding,
    Trimming,
    compress,
    count_ids,
    replace_layers,
    resize_vocabulary,
    trim_vocabulary,
)

pytestmark = [
    pytest.mark.tensorflow_only,
    # Of keras-hub: a file that is left open.
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
    # Keras quantizes what it can of a model.
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not have"),
]


def kept_words(generator, words=WORDS, count=130):
    return np.union1d(generator.choice(words, count, replace=False), [0])


def fed(model, ids):
    """Returns what a backbone takes, for ids."""
    names = [x.name for x in model.inputs]
    made = {"padding_mask": np.ones_like(ids)}
    made["segment_ids"] = np.zeros_like(ids)
    made["mask_positions"] = np.tile([1, 2], (len(ids), 1))
    return {n: made.get(n, ids) for n in names}


NO_MASKS = pytest.mark.filterwarnings("ignore::UserWarning")  # T5 says so
BACKBONES = ["Bert", "Roberta", "GPT2", "Gemma", "DebertaV3"]


@pytest.mark.parametrize(
    "kind", [*BACKBONES, pytest.param("T5", marks=NO_MASKS)]
)
def test_backbones_are_bit_equal(kind, generator):
    model = varied(backbone(kind), generator)
    keep = kept_words(generator)
    small, trimming = trim_vocabulary(model, keep)
    assert type(small) is type(model)
    assert small.vocabulary_size == len(keep)
    ids = generator.choice(keep, (2, 8))
    before = model(fed(model, ids))
    after = small(fed(small, trimming.renumbered(ids)))
    for old, new in zip(
        keras.tree.flatten(before), keras.tree.flatten(after), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    again = type(small).from_config(small.get_config())
    assert again.count_params() == small.count_params()


@pytest.mark.parametrize("kind", ["BertMaskedLM", "GPT2CausalLM", "Llama"])
def test_heads_follow(kind, generator):
    """Tied, tied with a bias, and untied."""
    if kind == "Llama":
        inner = backbone("Llama")
        ids = keras.Input((None,), dtype="int32", name="token_ids")
        mask = keras.Input((None,), dtype="int32", name="padding_mask")
        hidden = inner({"token_ids": ids, "padding_mask": mask})
        logits = inner.token_embedding(hidden, reverse=True)
        model = keras.Model({"token_ids": ids, "padding_mask": mask}, logits)
    else:
        family = "Bert" if "Bert" in kind else "GPT2"
        cls = getattr(keras_hub.models, kind)
        model = cls(backbone=backbone(family), preprocessor=None)
    varied(model, generator)
    keep = kept_words(generator)
    small, trimming = trim_vocabulary(model, keep)
    ids = generator.choice(keep, (2, 8))
    before = np.asarray(model(fed(model, ids)))
    after = np.asarray(small(fed(small, trimming.renumbered(ids))))
    assert after.shape[-1] == len(keep)
    np.testing.assert_allclose(after, before[..., keep], atol=2e-5)


TASKS = (
    "Bert TextClassifier",
    "Bert MaskedLM",
    "GPT2 CausalLM",
    "Gemma CausalLM",
    "DebertaV3 TextClassifier",
)


@pytest.mark.parametrize("kind", TASKS)
def test_tasks_take_strings_before_and_after(kind, generator, tmp_path):
    model = varied(task(kind), generator)
    tokenizer = model.preprocessor.tokenizer
    text = [texts()[3], texts()[8]]
    counts = count_ids(text, tokenizer=tokenizer)
    small, trimming = trim_vocabulary(model, counts=counts)
    new = small.preprocessor.tokenizer
    assert new.vocabulary_size() == len(trimming.new_to_old)
    assert new.vocabulary_size() < tokenizer.vocabulary_size()
    assert trimming.coverage == 1
    assert tokenizer.vocabulary_size() == len(counts)  # as it was
    if "Classifier" in kind:
        np.testing.assert_array_equal(
            model.predict(text, verbose=0), small.predict(text, verbose=0)
        )
    if "CausalLM" in kind:
        found = model.preprocessor(text)[0]["token_ids"]
        ours = small.preprocessor(text)[0]["token_ids"]
        np.testing.assert_array_equal(trimming.renumbered(found), ours)
        small.compile(sampler="greedy")
        assert len(small.generate(text, max_length=12)) == 2
    if "MaskedLM" in kind:
        x, y, weights = small.preprocessor(text)
        assert np.max(y) < len(trimming.new_to_old)
        mask = new.mask_token_id
        assert np.any(np.asarray(x["token_ids"]) == mask)
    small.save_to_preset(str(tmp_path))
    loaded = type(small).from_preset(str(tmp_path))
    assert type(loaded) is type(model)
    assert (
        loaded.preprocessor.tokenizer.get_vocabulary() == new.get_vocabulary()
    )
    x = {
        name: np.ones((2, 8), "int32")
        for name in (x.name for x in small.inputs)
    }
    np.testing.assert_array_equal(small(x), loaded(x))


METHODS = {
    "low rank": lambda t: LowRankEmbedding.from_dense(t, 8),
    "codes": lambda t: ProductQuantizedEmbedding.from_dense(
        t, 8, 2, codebook_size=32, num_kept=9
    ),
    "grouped": lambda t: GroupReduceEmbedding.from_dense(
        t, (100, 200), (8, 4), frequencies=np.arange(len(t))[::-1] % 71 + 1
    ),
    "distilled": lambda t: DistilledEmbedding.from_dense(t, 6, 8, epochs=1),
}


@pytest.mark.parametrize("mode", [None, "int8"])
@pytest.mark.parametrize("method", METHODS)
def test_compressed_tables_are_cut_alike(method, mode, generator, tmp_path):
    model = keras_hub.models.GPT2CausalLM(
        backbone=backbone("GPT2"), preprocessor=None
    )
    varied(model, generator)
    path = "gpt2_backbone/token_embedding"
    table = np.asarray(model.backbone.token_embedding.embeddings)
    layer = METHODS[method](table)
    if mode and method != "codes":
        layer.quantize(mode)
    model = replace_layers(model, {path: layer})
    keep = kept_words(generator)
    small, trimming = trim_vocabulary(model, keep)
    assert type(small).__name__ == type(model).__name__
    assert type(small.backbone.token_embedding) is type(layer)
    exact = mode is None or method in ("low rank", "codes")
    np.testing.assert_allclose(
        small.backbone.token_embedding.to_dense(),
        layer.to_dense()[keep],
        atol=1e-5 if exact else 0.02,
    )
    ids = generator.choice(keep, (2, 8))
    before = np.asarray(model(fed(model, ids)))[..., keep]
    after = np.asarray(small(fed(small, trimming.renumbered(ids))))
    np.testing.assert_allclose(before, after, atol=1e-4 if exact else 0.3)
    small.save(tmp_path / "small.keras")
    with pytest.warns(UserWarning):  # keras-hub's `compile`
        loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(
        loaded(fed(small, ids % 9)), small(fed(small, ids % 9))
    )


def test_hashed_tables_are_fitted_again(generator):
    table = generator.normal(size=(WORDS, WIDTH)).astype("float32")
    layer = HashedEmbedding.from_dense(table, 600, num_parts=4)
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer])
    with pytest.warns(UserWarning, match="was fitted again"):
        small, trimming = trim_vocabulary(model, kept_words(generator))
    assert small.layers[0].input_dim == len(trimming.new_to_old)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantized_layers_of_keras_are_cut(mode, generator):
    inputs = keras.Input((6,), dtype="int32")
    words = layers.ReversibleEmbedding(WORDS, WIDTH, name="words")
    model = keras.Model(inputs, words(words(inputs), reverse=True))
    model.quantize(mode)
    keep = kept_words(generator)
    small, trimming = trim_vocabulary(model, keep)
    ids = generator.choice(keep, (2, 6))
    found = small(trimming.renumbered(ids))
    # A product of matrices of another size sums in another order.
    before = np.asarray(model(ids))[..., keep]
    np.testing.assert_allclose(found, before, atol=1e-6)


def test_lora_is_cut(generator):
    model = backbone("GPT2")
    model.token_embedding.enable_lora(3)
    varied(model, generator)
    keep = kept_words(generator)
    small, trimming = trim_vocabulary(model, keep)
    assert small.token_embedding.lora_embeddings_a.shape == (len(keep), 3)
    ids = generator.choice(keep, (2, 8))
    np.testing.assert_array_equal(
        model(fed(model, ids)), small(fed(small, trimming.renumbered(ids)))
    )


def classifier(inside):
    """Returns the classifier of Keras' tutorial: strings at its input."""
    vectorize = layers.TextVectorization(
        max_tokens=5_000, output_sequence_length=12
    )
    vectorize.adapt(tf.constant(texts()))
    tail = [
        layers.Embedding(5_000, WIDTH, mask_zero=True, name="words"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(1),
    ]
    if inside == "Sequential":
        return keras.Sequential(
            [keras.Input((), dtype="string"), vectorize, *tail]
        )
    inputs = keras.Input((), dtype="string")
    outputs = vectorize(inputs)
    for layer in tail:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("inside", ["Sequential", "Functional"])
def test_the_lookup_inside_a_model_follows(inside, generator, tmp_path):
    """It has fewer words than the table has rows, as in the tutorial."""
    model = classifier(inside)
    text = tf.constant(texts()[:20])
    lookup = next(
        x for x in model.layers if isinstance(x, layers.TextVectorization)
    )
    counts = count_ids(np.asarray(lookup(text)), vocabulary=5_000)
    small, trimming = trim_vocabulary(
        model, counts=counts, coverage=1.0, multiple_of=8
    )
    assert len(trimming.new_to_old) % 8 == 0
    assert len(trimming.new_to_old) < 300
    new = next(
        x for x in small.layers if isinstance(x, layers.TextVectorization)
    )
    assert new.get_vocabulary() == [
        lookup.get_vocabulary()[old]
        for old in trimming.new_to_old
        if old < len(lookup.get_vocabulary())
    ]
    np.testing.assert_array_equal(model(text), small(text))
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(loaded(text), small(text))


def test_two_vocabularies_of_a_recommender(generator):
    users = [f"user {number}" for number in range(50)]
    items = [f"item {number}" for number in range(50)]
    inputs = [keras.Input((), dtype="string", name=n) for n in ("u", "i")]
    towers = []
    for words, tensor in zip((users, items), inputs, strict=True):
        lookup = layers.StringLookup(vocabulary=words)
        towers.append(
            layers.Embedding(51, 4, name=f"{words[0][:4]}s")(lookup(tensor))
        )
    model = keras.Model(inputs, layers.Dot(1)(towers))
    with pytest.raises(ValueError, match="`tables` must name.*users, items"):
        trim_vocabulary(model, keep=[3])
    small, trimming = trim_vocabulary(model, keep=[4, 9], tables="items")
    np.testing.assert_array_equal(trimming.new_to_old, [0, 4, 9])
    x = [tf.constant(["user 7", "user 7"]), tf.constant(["item 3", "item 8"])]
    np.testing.assert_array_equal(model(x), small(x))
    gone = small([x[0], tf.constant(["item 4", "item 8"])])
    unknown = model([x[0], tf.constant(["?", "item 8"])])
    np.testing.assert_array_equal(gone, unknown)


@keras.saving.register_keras_serializable("tests")
class Words(keras.Model):
    """A subclassed model, whose constructor is given the size."""

    def __init__(self, words=WORDS, positions=7, **kwargs):
        super().__init__(**kwargs)
        self.words, self.positions = words, positions
        self.table = layers.Embedding(words, WIDTH)
        self.place = layers.Embedding(positions, WIDTH)
        self.head = layers.Dense(words)

    def call(self, ids):
        return self.head(self.table(ids) + self.place(ids % self.positions))

    def get_config(self):
        return {"words": self.words, "positions": self.positions}


@keras.saving.register_keras_serializable("tests")
class Fixed(keras.Model):
    """Its size stands in its constructor."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(WORDS, WIDTH)

    def call(self, ids):
        return self.table(ids)


def test_subclassed_models(generator, tmp_path):
    model = Words()
    ids = generator.choice(WORDS, (2, 5)) // 2 * 2  # even ones
    model(ids)
    small, trimming = trim_vocabulary(model, keep=np.arange(0, WORDS, 2))
    assert small.words == WORDS // 2
    new = trimming.renumbered(ids)
    assert small(new).shape == (2, 5, WORDS // 2)
    grown = resize_vocabulary(model, WORDS + 2, like={WORDS: {1: 0.5, 2: 0.5}})
    before, after = np.asarray(model(ids)), np.asarray(grown(ids))
    np.testing.assert_allclose(after[..., :WORDS], before, atol=1e-6)
    np.testing.assert_allclose(
        after[..., WORDS], before[..., 1:3].mean(-1), atol=1e-5
    )
    fixed = Fixed()
    fixed(ids)
    with pytest.raises(ValueError, match="must be given the size of the voc"):
        trim_vocabulary(fixed, keep=[1])


def test_trimmed_models_are_compressed(generator):
    model = varied(backbone("GPT2", 2_000), generator)
    small, _ = trim_vocabulary(model, np.arange(1_000))
    tiny = compress(small, ratio=8)
    table = tiny.token_embedding
    stored = sum(np.asarray(weight).nbytes for weight in table.weights)
    assert 15 < model.token_embedding.embeddings.numpy().nbytes / stored < 20


def test_how_many_words(generator):
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), layers.Embedding(100, 4)]
    )
    counts = np.zeros(100)
    counts[[3, 50, 99, 7]] = [1, 40, 9, 50]

    def kept(**how):
        return trim_vocabulary(model, counts=counts, **how)[1]

    assert kept().new_to_old.tolist() == [0, 3, 7, 50, 99]
    assert kept(coverage=0.9).new_to_old.tolist() == [0, 7, 50]
    assert kept(coverage=0.9).coverage == 0.9
    assert kept(size=4).new_to_old.tolist() == [0, 7, 50, 99]
    rounded = kept(coverage=0.9, multiple_of=4)
    assert rounded.new_to_old.tolist() == [0, 7, 50, 99]
    assert rounded.reasons == {
        "special": [0],
        "counted": [7, 50],
        "rounded": [99],
    }
    assert len(kept(size=100).new_to_old) == 100


def test_a_trimming_is_a_file(tmp_path, generator):
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), layers.Embedding(100, 4)]
    )
    _, trimming = trim_vocabulary(model, keep=[9, 4])
    trimming.save(tmp_path / "words.json")
    loaded = Trimming.load(tmp_path / "words.json")
    np.testing.assert_array_equal(loaded.new_to_old, [0, 4, 9])
    assert loaded.reasons == {"special": [0], "asked": [9, 4]}
    assert loaded.renumbered([[9, 0]]).tolist() == [[2, 0]]
    assert loaded.renumbered([9, 5], unknown=1).tolist() == [2, 1]
    with pytest.raises(ValueError, match="1 ids that are gone, such as 5"):
        loaded.renumbered([9, 5])
    with pytest.raises(ValueError, match="from 0 to 99. Received: ids from 1"):
        loaded.renumbered([100])
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ValueError, match="a file of `Trimming.save`"):
        Trimming.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "One of `keep` and `counts` must be given. Received: neither"),
        ({"keep": [1], "counts": np.ones(100)}, "Received: both"),
        ({"keep": [1, 1]}, "names each id once"),
        ({"keep": [100]}, "`keep` must hold ids from 0 to 99"),
        ({"keep": [1.5]}, "must hold integer ids"),
        ({"keep": [1], "size": 3}, "`size` and `coverage` need `counts`"),
        ({"counts": np.ones(99)}, "a count for each of 100 words"),
        ({"counts": -np.ones(100)}, "finite and not negative"),
        ({"counts": np.ones(100), "size": 101}, "must not exceed the voc"),
        ({"counts": np.ones(100), "coverage": 1.5}, "above 0 and at most 1"),
        (
            {"counts": np.ones(100), "coverage": 0.5, "size": 3},
            "`size` or `coverage` must say",
        ),
        ({"keep": [1], "multiple_of": 0}, "`multiple_of` must be a positive"),
        ({"keep": [1], "tables": ["other"]}, "must name tables of the model"),
    ],
)
def test_refuses_what_cannot_be(how, message):
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(100, 4, name="words"),
        ]
    )
    with pytest.raises(ValueError, match=message):
        trim_vocabulary(model, **how)


def test_refuses_a_tokenizer_that_does_not_fit():
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), layers.Embedding(100, 4)]
    )
    with pytest.raises(ValueError, match="not have more pieces than the tab"):
        trim_vocabulary(
            model, [1], tokenizer=keras_hub_tokenizer("BertTokenizer")
        )
    small = keras_hub_tokenizer("GPT2Tokenizer")
    wide = keras.Sequential(
        [keras.Input((4,), dtype="int32"), layers.Embedding(500, 4)]
    )
    with pytest.raises(ValueError, match="hold the words that stay in any"):
        trim_vocabulary(wide, counts=np.ones(500), size=9, tokenizer=small)
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="must have an embedding whose voc"):
        trim_vocabulary(dense, [1])
