"""What users' models have that the model of test_compress.py has not."""

import keras
import numpy as np
import pytest
from contract import assert_close
from keras import layers, ops

from keras_embcomp import (
    CompressionPlan,
    LowRankEmbedding,
    ProductQuantizedEmbedding,
    compress,
    plan_compression,
    report,
    resize_vocabulary,
    sweep,
    to_keras,
)
from keras_embcomp.compression.candidates import arguments_for, fitted
from keras_embcomp.layers.base import weight_bytes
from keras_embcomp.layers.group_reduce.method import GROUP_REDUCE

WORDS, WIDTH = 600, 16


def model_of(*more, table=None, dtype=None, **arguments):
    generator = np.random.default_rng(0)
    words = layers.Embedding(
        WORDS, WIDTH, name="words", dtype=dtype, **arguments
    )
    model = keras.Sequential([keras.Input((4,), dtype="int32"), words, *more])
    if table is None:
        table = generator.normal(size=(WORDS, WIDTH)) / np.arange(1, WIDTH + 1)
    words.set_weights([table])
    return model


def test_copies_what_preprocessing_layers_have_learned(generator):
    entry = keras.Input((3,))
    scaled = layers.Normalization(name="scaled")
    scaled.adapt(generator.normal(5, 2, size=(100, 3)))
    model = keras.Model(entry, layers.Dense(1_200)(scaled(entry)))
    small = compress(model, ratio=2, method="low_rank")
    x = generator.normal(5, 2, size=(4, 3)).astype("float32")
    np.testing.assert_allclose(
        small.get_layer("scaled")(x), scaled(x), rtol=1e-6
    )
    np.testing.assert_allclose(to_keras(small)(x), small(x), atol=1e-4)


def test_activity_regularizers_stay():
    model = model_of(layers.Dense(1_000, activity_regularizer="l2"))
    small = compress(model, ratio=2, method="low_rank")
    for copy in (small, to_keras(small)):
        outputs = keras.ops.convert_to_numpy(copy(np.array([[1, 2, 3, 4]])))
        (loss,) = copy.losses  # of a batch of one
        np.testing.assert_allclose(
            loss, 0.01 * np.sum(np.square(outputs)), rtol=1e-4
        )


def test_tables_inside_time_distributed(generator):
    entry = keras.Input((None, 3), dtype="int32")
    masked = layers.Masking()(keras.Input((None, 3), name="other"))
    inner = layers.Embedding(WORDS, WIDTH, mask_zero=True)
    words = layers.TimeDistributed(inner, name="words")
    pooled = layers.TimeDistributed(layers.GlobalAveragePooling1D())
    labels = layers.TimeDistributed(
        layers.Dense(1_100, activation="softmax"),
        name="labels",
        activity_regularizer="l2",
    )
    states = layers.Concatenate()([pooled(words(entry)), masked])
    other = masked._keras_history[0].input
    model = keras.Model([entry, other], labels(layers.Dense(WIDTH)(states)))
    ids = generator.integers(0, WORDS, (2, 5, 3))
    inputs = [ids, generator.normal(size=(2, 5, 3)) * (ids[..., :1] > 200)]

    plan = plan_compression(model, max_error=1e-5, method="low_rank")
    assert [entry.layer for entry in plan.tables] == ["words", "labels"]
    for entry in plan.tables:
        entry.method, entry.arguments = "low_rank", {"rank": WIDTH}
    small = compress(model, plan)
    for copy in (small, to_keras(small)):
        np.testing.assert_allclose(copy(inputs), model(inputs), atol=1e-5)
        np.testing.assert_allclose(copy.losses, model.losses, rtol=1e-4)
        copy.compile("sgd", "sparse_categorical_crossentropy")
        model.compile("sgd", "sparse_categorical_crossentropy")
        found, expected = (
            each.test_on_batch(inputs, ids[..., 0]) for each in (copy, model)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    held = plan.bytes_after + 4 * 1_100  # and the bias
    assert sum(t.bytes for t in report(small).tables) == held


@pytest.mark.parametrize("kept", [False, True])
def test_a_table_in_a_wrapper_and_outside_stays_one(kept, generator):
    table = layers.Embedding(WORDS, WIDTH)
    first, second = keras.Input((4,)), keras.Input((3, 4))
    outputs = [
        layers.TimeDistributed(table, name="first")(second),
        table(first),
        layers.TimeDistributed(table, name="second")(second),
    ]
    model = keras.Model([first, second], outputs)
    plan = plan_compression(model, ratio=2, method="low_rank")
    if kept:
        plan.tables[0].method = "keep"
    copy = compress(model, plan)
    assert copy.output_names == model.output_names
    held = 4 * WORDS * WIDTH if kept else plan.bytes_after
    assert weight_bytes(copy.weights) == held
    ids = generator.integers(0, WORDS, (2, 3, 4))
    found = copy([ids[:, 0], ids])
    np.testing.assert_allclose(found[0][:, 0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)


def test_says_that_a_model_is_compressed_already():
    small = compress(model_of(), ratio=2, method="low_rank")
    with pytest.raises(ValueError, match="compressed already: `to_keras`"):
        compress(small, ratio=2)


def test_tables_of_a_model_in_a_wrapper(generator):
    entry = keras.Input((3, 4), dtype="int32")
    model = keras.Model(entry, layers.TimeDistributed(model_of())(entry))
    small = compress(model, ratio=2, method="low_rank")
    ids = generator.integers(0, WORDS, (2, 3, 4)).astype("int32")
    assert_close(small(ids), to_keras(small)(ids), rtol=1e-5, atol=1e-6)
    assert weight_bytes(small.weights) < 0.6 * weight_bytes(model.weights)


@pytest.mark.tensorflow_only
def test_copies_vocabularies(generator):
    entry = keras.Input((2,), dtype="string")
    lookup = layers.StringLookup(name="lookup")
    lookup.adapt(np.array(["one", "two", "two"]))
    model = keras.Model(entry, layers.Embedding(WORDS, 8)(lookup(entry)))
    small = compress(model, ratio=2, method="low_rank")
    words = np.array([["two", "one"]])
    found = small.get_layer("lookup")(words)
    np.testing.assert_array_equal(found, lookup(words))


def test_leaves_a_subclass_that_computes_something_else():
    class Scaled(layers.Embedding):
        def call(self, inputs):
            return 100 * super().call(inputs)

    class Same(layers.Embedding):
        pass

    for cls, refused in ((Scaled, True), (Same, False)):
        model = keras.Sequential(
            [keras.Input((2,), dtype="int32"), cls(WORDS, 8, name="own")]
        )
        if refused:
            with pytest.raises(ValueError, match=r"Received: own \(Scaled\)"):
                plan_compression(model, ratio=2)
        else:
            assert plan_compression(model, ratio=2, method="low_rank")


def test_keeps_a_small_table_beside_a_large_one():
    ids = keras.Input((4,), dtype="int32")
    words = layers.Embedding(3_000, 32, name="words")(ids)
    segments = layers.Embedding(2, 32, name="segments")(ids)
    model = keras.Model(ids, words + segments)
    plan = plan_compression(model, ratio=16)
    assert plan.bytes_after <= plan.bytes_before / 16
    by_layer = {entry.layer: entry for entry in plan.tables}
    assert by_layer["segments"].method == "keep"
    assert by_layer["words"].method != "keep"
    compress(model, plan)


def test_says_what_cannot_be_copied_before_it_fits():
    def loss(labels, outputs):
        return ops.mean(ops.square(labels - outputs))

    model = model_of()
    model.compile("adam", loss)
    with pytest.warns(UserWarning, match="is not compiled"):
        small = compress(model, ratio=2, method="low_rank")
    assert not small.compiled
    assert model.compiled
    other = model_of(layers.Lambda(lambda x: x + 1, name="plus"))
    with pytest.raises(ValueError, match="Received: layer 'plus'"):
        compress(other, ratio=2, method="low_rank")


@pytest.mark.parametrize("rows", ["zero", "equal"])
def test_tables_without_differences(rows):
    table = (
        np.zeros((WORDS, WIDTH)) if rows == "zero" else np.ones((WORDS, WIDTH))
    )
    model = model_of(table=table)
    (entry,) = plan_compression(model, ratio=4).tables
    assert entry.error < 1e-2
    small = compress(model, CompressionPlan([entry]))
    np.testing.assert_allclose(small.layers[0].to_dense(), table, atol=0.02)


def test_names_the_table_that_is_not_finite():
    table = np.ones((WORDS, WIDTH))
    table[3, 4] = np.nan
    with pytest.raises(ValueError, match="the table of words` must hold fin"):
        plan_compression(model_of(table=table), ratio=4)


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16", "bfloat16"])
def test_plans_suit_the_dtype(dtype):
    model = model_of(dtype=dtype)
    small = compress(model, ratio=4, method="low_rank")
    assert small.layers[0].compute_dtype == model.layers[0].compute_dtype
    assert report(small).tables[0].microseconds > 0


def test_one_part_and_rows_that_are_kept(generator):
    table = generator.normal(size=(WORDS, 8)).astype("float32")
    layer = ProductQuantizedEmbedding.from_dense(
        table, 1, 8, codebook_size=60, num_kept=1
    )
    lost = np.square(layer.to_dense() - table).sum(axis=1)
    assert lost.min() == 0
    assert lost.mean() < np.square(table).sum(axis=1).mean()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": "lowrank"}, "must be one of keep, trellis_codes"),
        ({"number_format": "int3"}, "Received: number_format='int3'"),
        ({"shape": (5, 2)}, r"for a table of shape \(5, 2\)"),
        (
            {"shape": (5, 2), "arguments": {"rank": 1}},
            r"\(600, 16\). Received: shape=\(5, 2\)",
        ),
        ({"arguments": {"ranks": 3}}, "which is rank for `LowRankEmbedding`"),
        ({"arguments": {"rank": 99}}, "`rank` must not exceed"),
    ],
)
def test_refuses_wrong_entries(change, message):
    model = model_of()
    plan = plan_compression(model, ratio=4, method="low_rank")
    for name, value in change.items():
        setattr(plan.tables[0], name, value)
    with pytest.raises(ValueError, match=message):
        compress(model, plan)


def test_refuses_what_is_no_plan():
    with pytest.raises(ValueError, match="must be a `CompressionPlan`"):
        compress(model_of(), 8)


def test_resizes_quantized_layers_and_says_what_codes_need():
    layer = LowRankEmbedding(WORDS, WIDTH, 8)
    layer.build()
    layer.quantize("int8")
    table = layer.to_dense()
    larger = resize_vocabulary(layer, 700).to_dense()
    np.testing.assert_allclose(larger[:WORDS], table, atol=1e-6)
    for size in (1, 40):  # scales of rows, in the place of those of columns
        found = resize_vocabulary(layer, size).to_dense()
        np.testing.assert_allclose(
            found, table[:size], atol=0.02 * np.abs(table).max()
        )
    codes = ProductQuantizedEmbedding(WORDS, 8, 2, 4)
    codes.build()
    with pytest.raises(ValueError, match="codebook_size=256, new_size=50"):
        resize_vocabulary(codes, 50)


def test_sweeps_say_when_nothing_is_reached():
    with pytest.raises(ValueError, match="one that a method reaches"):
        sweep(model_of(), ratios=(1e5,), methods=("low_rank",))
    for wrong, message in (
        ({"ratios": 4}, "`ratios` must be a list or tuple. Received: ratios=4"),
        ({"ratios": ("4",)}, "`ratios` must be finite numbers above 1"),
        ({"methods": "auto"}, "`methods` must be a list or tuple. Received"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep(model_of(), **wrong)


@pytest.mark.parametrize("number_format", [None, "int8"])
def test_places_of_groups_count(number_format, generator):
    table = generator.normal(size=(WORDS, 24)).astype("float32")
    counts = 1 / (1 + generator.permutation(WORDS))
    weights = counts / counts.mean()
    arguments, held = arguments_for(
        GROUP_REDUCE, number_format, table, 20_000, weights
    )
    layer = fitted(GROUP_REDUCE, number_format, arguments, table, counts)
    assert weight_bytes(layer.weights) == held <= 20_000
