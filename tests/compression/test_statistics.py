"""What data do to tables: counts, hidden states, and plans by them."""

import keras
import numpy as np
import pytest
from contract import assert_close, assert_equal
from hub_models import small_gpt2
from keras import layers, ops

from keras_embcomp import compress, plan_compression, table_statistics
from keras_embcomp.compression.table_sums import with_unseen
from keras_embcomp.models.batches import Batch
from keras_embcomp.models.recorded import Recording, records_of

WORDS, WIDTH, LENGTH = 1_200, 12, 6


def language_model(words=WORDS, mask=True):
    ids = keras.Input((LENGTH,), dtype="int32")
    words = layers.Embedding(words, WIDTH, mask_zero=mask, name="words")
    states = layers.GRU(WIDTH, return_sequences=True)(words(ids))
    head = layers.Dense(WORDS, name="next")
    return keras.Model(ids, head(states)), keras.Model(ids, states)


@pytest.fixture
def ids(generator):
    found = generator.zipf(1.4, (50, LENGTH)) % WORDS
    found[:, -2:] = 0
    return found.astype("int32")


@pytest.mark.parametrize("mask", [True, False])
def test_counts_and_moments_are_those_of_the_data(ids, mask):
    model, hidden = language_model(mask=mask)
    states = hidden.predict(ids, verbose=0)
    there = ids != 0 if mask else np.ones_like(ids, bool)
    states = states[there].astype("float64")
    logits = states @ ops.convert_to_numpy(model.get_layer("next").kernel)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = table_statistics(model, ids, batch_size=8).tables
    counts = np.bincount(ids[there], minlength=WORDS)
    assert_equal(found["words"].counts, with_unseen(counts))
    assert found["words"].covariance is None
    moments = states.T @ states / len(states)
    assert_close(found["next"].covariance, moments, rtol=1e-4, atol=1e-7)
    assert_close(found["next"].mean, states.mean(axis=0), rtol=1e-3, atol=1e-6)
    weights = (shares * (1 - shares)).sum(axis=0)
    own = found["next"].counts
    assert_close(own / own.sum(), weights / weights.sum(), rtol=1e-3)
    assert found["next"].positions == len(states)


def test_rows_that_were_not_seen_share_what_is_expected():
    """Three ids came once: the next id is new about three times as often."""
    counts = with_unseen(np.array([5.0, 1, 0, 1, 0, 0, 0, 0, 0, 1]))
    assert_close(counts, [5, 1, 0.5, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 1])
    assert with_unseen(np.array([9.0, 0, 2])).tolist() == [9, 0, 2]
    assert with_unseen(np.array([1.0, 1, 0])).tolist() == [1, 1, 1]


def test_data_may_come_in_any_form(ids):
    model, _ = language_model()
    whole = table_statistics(model, ids).tables["next"]
    forms = {
        "targets": (ids, ids),
        "weights": (ids, ids, np.ones(len(ids))),
        "generator": (ids[i : i + 10] for i in range(0, 50, 10)),
        "batches with targets": (
            (ids[i : i + 10], ids[i : i + 10]) for i in range(0, 50, 10)
        ),
    }
    for name, data in forms.items():
        found = table_statistics(model, data).tables["next"]
        assert_close(found.covariance, whole.covariance, rtol=1e-4, atol=1e-7)
        assert found.positions == whole.positions, name
    some = table_statistics(model, ids, batch_size=5, steps=2).tables["next"]
    assert some.positions == 10 * (LENGTH - 2)


def test_a_stateful_model_is_as_it_was(ids):
    words = keras.Input(batch_shape=(10, LENGTH), dtype="int32")
    states = layers.Embedding(WORDS, WIDTH)(words)
    lstm = layers.LSTM(WIDTH, return_sequences=True, stateful=True)
    model = keras.Model(words, layers.Dense(WORDS)(lstm(states)))
    model.predict(ids[:10], verbose=0)
    before = [np.array(x) for x in map(ops.convert_to_numpy, lstm.states)]
    weights = [np.array(weight) for weight in model.get_weights()]
    found = table_statistics(model, ids, batch_size=10)
    for state, kept in zip(lstm.states, before, strict=True):
        assert_equal(ops.convert_to_numpy(state), kept)
    for weight, kept in zip(model.get_weights(), weights, strict=True):
        assert_equal(weight, kept)
    # What a batch leaves behind reaches the next.
    fresh = table_statistics(model, ids[:10], batch_size=10)
    paths = [p for p, t in found.tables.items() if t.covariance is not None]
    one, other = (x.tables[paths[0]].covariance for x in (found, fresh))
    assert np.abs(one - other).max() > 1e-4 * np.abs(one).max()


def test_only_what_is_recorded_is_seen(ids):
    model, _ = language_model()
    layer = model.get_layer("words")
    found = list(
        records_of(
            Recording(model, {"words": layer}, lambda _, c: {"ids": c.inputs}),
            [Batch(ids)],
        )
    )
    assert_equal(found[0]["words"][0]["ids"], ids)
    assert "call" not in vars(layer)


def test_an_output_that_is_no_softmax_has_no_counts(ids):
    words = keras.Input((LENGTH,), dtype="int32")
    mean = layers.GlobalAveragePooling1D()(layers.Embedding(50, WIDTH)(words))
    head = layers.Dense(WORDS, activation="tanh", name="next")
    model = keras.Model(words, head(mean))
    data = np.minimum(ids, 49)
    assert table_statistics(model, data).tables["next"].counts is None
    compress(model, ratio=6, method="low_rank", data=data)


def test_a_tied_table_has_both(generator):
    model = small_gpt2(WORDS, WIDTH)
    tokens = generator.integers(1, WORDS, (4, 8)).astype("int32")
    data = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    found = table_statistics(model, data).tables
    tied = next(t for p, t in found.items() if p.endswith("token_embedding"))
    assert tied.covariance is not None
    assert tied.positions == 2 * tokens.size


def test_plans_lose_less_of_the_logits(ids, generator):
    model, _ = language_model(words=50)
    ids = np.minimum(ids, 49)
    scale = np.float32(0.75) ** np.arange(WIDTH)
    rows = generator.normal(size=(WORDS, WIDTH)) * scale
    model.get_layer("next").set_weights([rows.T, generator.normal(size=WORDS)])
    logits = model.predict(ids, verbose=0)[ids != 0]

    plan = plan_compression(model, ratio=6, method="low_rank")
    plan.tables = [entry for entry in plan.tables if entry.layer == "next"]
    plan.tables[0].number_format, plan.tables[0].arguments = None, {"rank": 4}

    def lost(data):
        small = compress(model, plan, data=data)
        return np.mean((small.predict(ids, verbose=0)[ids != 0] - logits) ** 2)

    assert lost(table_statistics(model, ids)) < 0.5 * lost(None)


def test_a_bias_takes_the_mean_error(ids):
    """Logits of the mean hidden state stay, whatever the table loses."""
    model, hidden = language_model(mask=False)
    small = compress(model, ratio=8, method="low_rank", data=ids)
    mean = hidden.predict(ids, verbose=0).reshape(-1, WIDTH).mean(axis=0)
    before, after = (m.get_layer("next")(mean[None]) for m in (model, small))
    before, after = map(ops.convert_to_numpy, (before, after))
    assert_close(after, before, rtol=1e-3, atol=2e-3)


def classifier(generator, **compiled):
    ids = keras.Input((LENGTH,), dtype="int32")
    words = layers.Embedding(WORDS, WIDTH, mask_zero=True, name="words")
    mean = layers.GlobalAveragePooling1D()(words(ids))
    model = keras.Model(ids, layers.Dense(1, name="score")(mean))
    words.set_weights([generator.normal(size=(WORDS, WIDTH))])
    model.compile(**compiled)
    return model


@pytest.mark.parametrize("loss", [None, "mean_squared_error"])
def test_gradients_are_those_of_the_loss(ids, generator, loss):
    """The mean of rows times a vector: all gradients point along it."""
    model = classifier(generator, loss=None if loss else "mse")
    targets = generator.normal(size=(len(ids), 1)).astype("float32")
    found = table_statistics(model, (ids, targets), batch_size=7, loss=loss)
    covariance = found.tables["words"].covariance
    (direction, _) = model.get_layer("score").get_weights()
    expected = direction @ direction.T
    assert_close(
        covariance / np.trace(covariance),
        expected / np.trace(expected),
        rtol=1e-3,
        atol=1e-5,
    )
    plain = table_statistics(model, ids).tables["words"]
    assert plain.covariance is None
    assert_equal(plain.counts, found.tables["words"].counts)
    none = table_statistics(model, (ids, targets), loss=False)
    assert none.tables["words"].covariance is None


def test_gradients_keep_the_outputs(ids, generator):
    model = classifier(generator, loss="mse")
    targets = generator.normal(size=(len(ids), 1)).astype("float32")
    outputs = model.predict(ids, verbose=0)

    def lost(data):
        small = compress(model, ratio=8, method="low_rank", data=data)
        return np.sqrt(np.mean((small.predict(ids, verbose=0) - outputs) ** 2))

    assert lost((ids, targets)) < 0.2 * lost(ids)


def test_what_the_loss_does_not_feel_is_not_counted(ids, generator):
    """Padding that the model itself masks, where the layer does not know."""
    words = keras.Input((LENGTH,), dtype="int32")
    rows = layers.Embedding(WORDS, WIDTH, name="words")(words)
    known = ops.cast(ops.not_equal(words, 0), "float32")
    total = ops.sum(rows * ops.expand_dims(known, -1), axis=1)
    model = keras.Model(words, layers.Dense(1)(total))
    targets = generator.normal(size=(len(ids), 1)).astype("float32")
    found = table_statistics(model, (ids, targets), loss="mse")
    counts = np.bincount(ids[ids != 0], minlength=WORDS)
    assert_equal(found.tables["words"].counts, with_unseen(counts))


def test_takes_a_loss_for_each_output(ids, generator):
    inner = classifier(generator, loss="mse")
    words = inner.get_layer("words").output
    mean = layers.GlobalAveragePooling1D()(words)
    other = layers.Dense(2, name="kind")(mean)
    outputs = {"score": inner.output, "kind": other}
    model = keras.Model(inner.input, outputs)
    targets = {
        "score": generator.normal(size=(len(ids), 1)).astype("float32"),
        "kind": generator.integers(0, 2, len(ids)),
    }
    kind = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = {"score": "mse", "kind": kind}
    found = table_statistics(model, (ids, targets), loss=losses)
    rank = np.linalg.matrix_rank(found.tables["words"].covariance, tol=1e-5)
    assert rank == 2
    with pytest.raises(ValueError, match="`loss` must be a loss of Keras"):
        table_statistics(model, (ids, targets), loss=3)
    with pytest.raises(ValueError, match="must have targets for a `loss`"):
        table_statistics(model, ids, loss="mse")


def test_one_id_that_is_most_of_the_data_is_told():
    model, _ = language_model(mask=False)
    padded = np.zeros((10, LENGTH), "int32")
    padded[:, 0] = 5
    with pytest.warns(UserWarning, match="Id 0 of 'words' has 83%"):
        table_statistics(model, padded)


def test_few_hidden_states_are_told(ids):
    model, _ = language_model()
    with pytest.warns(UserWarning, match="12 columns, and `data` 4 hidden"):
        table_statistics(model, ids[:1])


def test_refuses_data_that_say_nothing(ids):
    model, _ = language_model()
    with pytest.raises(ValueError, match="must have batches. Received: none"):
        table_statistics(model, iter([]))
    with pytest.raises(ValueError, match="arrays of one length"):
        table_statistics(model, (ids, ids[:3]))
    with pytest.raises(ValueError, match="must be arrays"):
        table_statistics(model, 3)
    with pytest.raises(ValueError, match="`steps` must be a positive integer"):
        table_statistics(model, ids, steps=0)
    with pytest.raises(ValueError, match="without an id"):
        table_statistics(model, np.zeros((2, LENGTH), "int32"))
    layer = model.get_layer("words")
    layer.set_weights([np.full((WORDS, WIDTH), 1e38, "float32")])
    gru = model.layers[2]
    gru.set_weights([np.full(w.shape, np.nan) for w in gru.get_weights()])
    with pytest.raises(ValueError, match="infinity at .next"):
        table_statistics(model, ids)
    other, _ = language_model()
    other.get_layer("words").name = "others"
    with pytest.raises(ValueError, match="statistics of all tables"):
        wrong = table_statistics(other, ids)
        wrong.tables.pop("next")
        compress(other, ratio=4, data=wrong)


def test_a_task_takes_text():
    pytest.importorskip("keras_hub")
    from vocabulary_models import task

    model = task("Bert TextClassifier")
    texts, labels = ["the cat sat", "a dog on the mat"], np.array([0, 1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = table_statistics(model, (texts, labels), loss=loss).tables
    path = next(path for path in found if path.endswith("token_embedding"))
    ids = model.preprocessor(texts)["token_ids"]
    counts = np.bincount(np.ravel(ids)[np.ravel(ids) != 0], minlength=2)
    assert found[path].counts[1:].round().sum() >= counts.sum()
    assert found[path].covariance is not None
