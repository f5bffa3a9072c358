"""`compress`, its plans and the way back."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_embcomp
from keras_embcomp import (
    CompressionPlan,
    LowRankEmbedding,
    TrellisCodedSoftmax,
    compress,
    plan_compression,
    to_keras,
)
from keras_embcomp.compression import choose

WORDS, WIDTH, UNITS = 600, 24, 1_200


def correlated(generator, rows, width=WIDTH):
    scales = 1 / np.arange(1, width + 1)
    return (generator.normal(size=(rows, width)) * scales).astype("float32")


def made(generator):
    """Two inputs, a tied table, a table in a nested model and an output."""
    words = keras.Input((5,), dtype="int32", name="words")
    other = keras.Input((3,), name="other")
    tied = layers.ReversibleEmbedding(WORDS, WIDTH, name="tied")
    inner_words = keras.Input((5,), dtype="int32")
    inner = keras.Model(
        inner_words,
        layers.Embedding(WORDS, 8, name="table")(inner_words),
        name="inner",
    )
    nested = layers.Dense(WIDTH, activation="tanh")(inner(words))
    hidden = layers.LayerNormalization()(tied(words) + nested)
    pooled = layers.GlobalAveragePooling1D()(hidden) + layers.Dense(WIDTH)(
        other
    )
    logits = tied(hidden, reverse=True)
    label = layers.Dense(UNITS, activation="softmax", name="label")(pooled)
    built = keras.Model([words, other], [logits, label])
    tied.set_weights([correlated(generator, WORDS)])
    inner.get_layer("table").set_weights([correlated(generator, WORDS, 8)])
    bias = generator.normal(size=UNITS)
    built.get_layer("label").set_weights(
        [correlated(generator, UNITS).T, bias.astype("float32")]
    )
    return built


@pytest.fixture
def model(generator):
    return made(generator)


@pytest.fixture(scope="module")
def planned():
    """A plan takes seconds, and is the same each time for the same model."""
    keras.utils.set_random_seed(0)
    return plan_compression(made(np.random.default_rng(0)), ratio=4).to_json()


@pytest.fixture
def plan(planned):
    return CompressionPlan.from_json(planned)


@pytest.fixture
def inputs(generator):
    return [
        generator.integers(0, WORDS, (4, 5)).astype("int32"),
        generator.normal(size=(4, 3)).astype("float32"),
    ]


def held_bytes(model):
    found = {}
    for layer in model._flatten_layers():
        if isinstance(layer, keras_embcomp.layers.base.Compressed):
            found[layer.name] = sum(w.nbytes for w in layer.get_weights())
    return found


def outputs(model, inputs):
    return [ops.convert_to_numpy(found) for found in model(inputs)]


def test_plans_every_table_once_within_the_budget(plan):
    assert [entry.layer for entry in plan.tables] == [
        "inner/table",
        "tied",
        "label",
    ]
    assert plan.bytes_before == 4 * (WORDS * (WIDTH + 8) + UNITS * WIDTH)
    assert plan.bytes_after <= plan.bytes_before / 4
    assert plan.bytes_after > 0.7 * plan.bytes_before / 4


def test_compresses_a_copy_to_the_bytes_of_the_plan(model, plan, inputs):
    before = model.get_weights()
    small = compress(model, plan)
    held = held_bytes(small)
    held["label"] -= 4 * UNITS  # the bias, which is not of the table
    expected = {e.layer.split("/")[-1]: e.bytes_after for e in plan.tables}
    assert held == expected
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [x.name for x in small.inputs] == [x.name for x in model.inputs]
    norm = "layer_normalization"
    for layer in model.layers:
        if layer.name.startswith(("dense", norm)):
            for old, new in zip(
                layer.get_weights(),
                small.get_layer(layer.name).get_weights(),
                strict=True,
            ):
                np.testing.assert_array_equal(old, new)
    for entry in plan.tables:
        error = table_error(model, small, entry.layer)
        np.testing.assert_allclose(error, entry.error, rtol=0.1, atol=0.01)
    for full, found in zip(
        outputs(model, inputs), outputs(small, inputs), strict=True
    ):
        assert not np.array_equal(full, found)
        np.testing.assert_allclose(found, full, atol=0.5 * np.abs(full).max())


def table_error(model, small, path):
    tables = []
    for owner in (model, small):
        layer = owner
        for name in path.split("/"):
            layer = layer.get_layer(name)
        if hasattr(layer, "to_dense"):
            tables.append(layer.to_dense())
        else:
            (table, *_) = layer.get_weights()
            tables.append(table.T if isinstance(layer, layers.Dense) else table)
    return np.linalg.norm(tables[1] - tables[0]) / np.linalg.norm(tables[0])


def test_compressing_twice_gives_the_same_bytes(model, tmp_path):
    weights = [
        compress(model, ratio=6, method="product_codes").get_weights()
        for _ in range(2)
    ]
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_copy_trains_saves_and_keeps_its_settings(model, inputs, tmp_path):
    model.compile(keras.optimizers.Adam(0.002), loss=["mse", "mse"])
    model.get_layer("inner").trainable = False
    small = compress(model, ratio=3, method="low_rank")
    assert float(small.optimizer.learning_rate) == pytest.approx(0.002)
    assert not small.get_layer("inner").trainable
    targets = outputs(model, inputs)
    first = small.evaluate(inputs, targets, verbose=0)[0]
    small.fit(inputs, targets, epochs=20, verbose=0)
    assert small.evaluate(inputs, targets, verbose=0)[0] < first
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    for found, expected in zip(
        outputs(loaded, inputs), outputs(small, inputs), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_returns_to_keras(model, plan, inputs):
    small = compress(model, plan)
    plain = to_keras(small)
    kinds = {layer.name: type(layer) for layer in plain.layers}
    assert kinds["tied"] is layers.ReversibleEmbedding
    assert kinds["label"] is layers.Dense
    assert type(plain.get_layer("inner").get_layer("table")) is layers.Embedding
    for found, expected in zip(
        outputs(plain, inputs), outputs(small, inputs), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_sequential_models_and_errors_as_a_goal(generator):
    model = keras.Sequential(
        [layers.Embedding(WORDS, WIDTH, mask_zero=True), layers.Dense(2)]
    )
    ids = generator.integers(0, WORDS, (2, 3))
    model(ids)
    model.layers[0].set_weights([correlated(generator, WORDS)])
    loose, tight = (
        plan_compression(model, max_error=error) for error in (0.5, 0.1)
    )
    assert loose.tables[0].error <= 0.5
    assert tight.tables[0].error <= 0.1
    assert loose.bytes_after < tight.bytes_after
    small = compress(model, tight)
    assert small.layers[0].mask_zero
    assert table_error(model, small, small.layers[0].name) < 0.11
    (kept,) = plan_compression(model, max_error=1e-9).tables
    assert kept.method == "keep"
    same = compress(model, CompressionPlan([kept]))
    np.testing.assert_array_equal(same(ids), model(ids))


def test_counts_decide_what_is_kept(model, generator):
    counts = 1 / (1 + generator.permutation(WORDS)) ** 1.5
    plans = {
        name: plan_compression(
            model, ratio=8, frequencies=given, method="product_codes"
        )
        for name, given in (("plain", None), ("counted", {"tied": counts}))
    }
    small = {
        name: compress(
            model, plan, frequencies=None if name == "plain" else counts
        )
        for name, plan in plans.items()
    }
    (table,) = model.get_layer("tied").get_weights()
    lost = {
        name: counts
        @ np.square(copy.get_layer("tied").to_dense() - table).sum(axis=1)
        for name, copy in small.items()
    }
    assert lost["counted"] < 0.5 * lost["plain"]


def test_plans_are_printed_edited_and_kept(model, plan, tmp_path):
    text = str(plan)
    for entry in plan.tables:
        assert entry.layer in text
    assert f"{plan.bytes_after:,}" in text
    plan.save(tmp_path / "plan.json")
    assert CompressionPlan.load(tmp_path / "plan.json") == plan
    assert json.loads((tmp_path / "plan.json").read_text())["tables"]
    plan.tables = plan.tables[-1:]
    entry = plan.tables[0]
    entry.arguments = {**entry.arguments, "seed": 2}
    small = compress(model, plan)
    assert isinstance(small.get_layer("label"), TrellisCodedSoftmax)
    assert small.get_layer("label").seed == 2
    assert isinstance(small.get_layer("tied"), layers.ReversibleEmbedding)
    with pytest.raises(ValueError, match="as `to_json` writes it"):
        CompressionPlan.from_json('{"tables": [{"layer": 1}')


def test_a_small_table_costs_no_more_plans(generator, monkeypatch):
    """A table of two rows is kept, and the other is fitted to one budget."""
    ids, kinds = (keras.Input((5,), dtype="int32") for _ in range(2))
    words = layers.Embedding(6_000, WIDTH)
    rows = words(ids) + layers.Embedding(2, WIDTH)(kinds)
    model = keras.Model([ids, kinds], rows)
    words.set_weights([correlated(generator, 6_000)])
    budgets = []
    best = choose._best

    def counted(table, max_bytes, tries):
        budgets.append(max_bytes)
        return best(table, max_bytes, tries)

    monkeypatch.setattr(choose, "_best", counted)
    large, small = plan_compression(model, max_bytes=200_000).tables
    assert budgets == [200_000 - 4 * 2 * WIDTH]
    assert small.method == "keep"
    assert 150_000 < large.bytes_after <= budgets[0]


def test_an_error_out_of_reach_costs_one_plan(generator, monkeypatch):
    words = layers.Embedding(6_000, WIDTH)
    model = keras.Sequential([keras.Input((5,), dtype="int32"), words])
    words.set_weights([correlated(generator, 6_000)])
    budgets = []
    best = choose._best

    def counted(table, max_bytes, tries):
        budgets.append(max_bytes)
        return best(table, max_bytes, tries)

    monkeypatch.setattr(choose, "_best", counted)
    (plan,) = plan_compression(model, max_error=1e-300).tables
    assert plan.method == "keep"
    assert budgets == [4 * 6_000 * WIDTH / 2]


def test_the_method_can_be_chosen(model):
    small = compress(model, ratio=3, method="low_rank")
    assert isinstance(small.get_layer("tied"), LowRankEmbedding)


@pytest.mark.parametrize(
    "goal, message",
    [
        ({}, "Received: none of them"),
        ({"ratio": 2, "max_error": 0.1}, "Received: ratio, max_error"),
        ({"ratio": 1}, "`ratio` must be above 1. Received: ratio=1"),
        ({"max_error": 1.0}, "`max_error` must be below 1"),
        ({"ratio": "2"}, "`ratio` must be a finite number above 0"),
        ({"ratio": 2, "method": "svd"}, "`method` must be one of auto, trel"),
        ({"max_bytes": 100}, "the smallest reachable are"),
        (
            {"ratio": 2, "frequencies": np.ones(7)},
            r"inner/table: 600, tied: 600, label: 1200\). Received: freq",
        ),
        (
            {"ratio": 2, "frequencies": {"words": np.ones(600)}},
            "inner/table: 600, tied: 600, label: 1200. Received: words",
        ),
        (
            {"ratio": 2, "frequencies": {"tied": -np.ones(600)}},
            "must be finite and not negative",
        ),
    ],
)
def test_refuses_goals(model, goal, message):
    with pytest.raises(ValueError, match=message):
        plan_compression(model, **goal)


def test_says_what_can_be_reached(model):
    with pytest.raises(ValueError, match="reachable are") as refusals:
        plan_compression(model, max_bytes=100)
    least = int(
        str(refusals.value).split("are ")[1].split(". R")[0].replace(",", "")
    )
    assert plan_compression(model, max_bytes=4 * least).bytes_after <= 4 * least


def test_refuses_models(model, plan):
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="call it on data.*model 'own'"):
        compress(Own(), ratio=2)
    with pytest.raises(ValueError, match="must be a Keras model"):
        compress(layers.Embedding(9, 2), ratio=2)
    with pytest.raises(ValueError, match="must be built"):
        compress(keras.Sequential([layers.Embedding(9, 2)]), ratio=2)
    narrow = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="few")])
    with pytest.raises(ValueError, match=r"Received: few \(Dense\)"):
        compress(narrow, ratio=2)
    with pytest.raises(ValueError, match="must come without a goal"):
        compress(model, plan, ratio=2)
    plan.tables[0].layer = "another"
    with pytest.raises(ValueError, match="Received: layer='another'"):
        compress(model, plan)


def test_effort_is_for_codes_that_are_nearer(generator):
    words = layers.Embedding(60_000, 96, name="words")
    model = keras.Sequential([keras.Input((4,), dtype="int32"), words])
    words.set_weights([correlated(generator, 60_000, 96)])
    low, high = (
        plan_compression(
            model, ratio=6, method="trellis_codes", effort=effort
        ).tables[0]
        for effort in ("low", "high")
    )
    states = low.arguments["state_bits"], high.arguments["state_bits"]
    assert states == (10, 12)
    assert high.error < low.error
    with pytest.raises(ValueError) as refusal:
        plan_compression(model, ratio=6, effort="most")
    assert str(refusal.value) == (
        "`effort` must be one of low, high. Received: effort=most"
    )
