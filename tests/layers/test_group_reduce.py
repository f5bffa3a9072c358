"""What is special to groups: words that are not sorted, and the heads."""

import keras
import numpy as np
import pytest

from keras_embcomp import (
    GroupReduceEmbedding,
    GroupReduceSoftmax,
    export_litert,
    export_serving,
)

SIZES, RANKS = (50, 100, 157), (12, 5, 2)


@pytest.fixture
def table(generator):
    return generator.normal(size=(307, 12)).astype("float32")


@pytest.fixture
def counts(generator):
    return generator.permutation(307 / np.arange(1, 308))


def test_words_keep_their_ids_whatever_their_groups(table, counts):
    layer = GroupReduceEmbedding.from_dense(
        table, SIZES, RANKS, frequencies=counts
    )
    assert layer.permuted
    frequent = np.argsort(-counts)[:50]  # the dense group
    np.testing.assert_array_equal(layer(frequent), table[frequent])
    ids = np.arange(307)
    np.testing.assert_allclose(layer(ids), layer.to_dense(), atol=1e-5)
    np.testing.assert_allclose(
        layer(table[:3], reverse=True),
        table[:3] @ layer.to_dense().T,
        atol=1e-4,
    )


@pytest.mark.parametrize("permuted", [True, False])
def test_places_are_kept_where_words_are_not_sorted(table, counts, permuted):
    layer = GroupReduceEmbedding.from_dense(
        table, SIZES, (12, 12, 12), frequencies=counts, permuted=permuted
    )
    np.testing.assert_allclose(layer.to_dense(), table, atol=1e-5)


def test_places_are_stored_and_counted(table, counts):
    sorted_layer = GroupReduceEmbedding(307, 12, SIZES, RANKS)
    sorted_layer.build()
    layer = GroupReduceEmbedding(307, 12, SIZES, RANKS, permuted=True)
    layer.build()
    assert layer.count_params() == sorted_layer.count_params() + 307
    np.testing.assert_array_equal(layer.places, np.arange(307))


def test_units_keep_their_order_whatever_their_groups(
    table, counts, generator, tmp_path
):
    bias = generator.normal(size=307).astype("float32")
    layer = GroupReduceSoftmax.from_dense(
        table, SIZES, RANKS, bias=bias, frequencies=counts, activation=None
    )
    hidden = generator.normal(size=(4, 12)).astype("float32")
    expected = hidden @ layer.to_dense().T + bias
    np.testing.assert_allclose(layer(hidden), expected, atol=1e-4)
    scores, ids = layer.top_k(hidden, 5)
    best = -np.sort(-expected, axis=-1)[:, :5]
    np.testing.assert_allclose(scores, best, atol=1e-4)
    # By their scores: two that are as good as equal may come in any order.
    found = np.take_along_axis(expected, np.array(ids), axis=-1)
    np.testing.assert_allclose(found, best, atol=1e-4)
    found = layer.log_prob(hidden, np.array([3, 300, 7, 111]))
    log_softmax = keras.ops.log_softmax(expected)
    exact = keras.ops.convert_to_numpy(log_softmax)[range(4), [3, 300, 7, 111]]
    np.testing.assert_allclose(found, exact, atol=1e-4)
    inputs = keras.Input((12,))
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(hidden), model(hidden))


def test_refined_groups_are_better_and_no_larger(table, counts):
    layers = [
        GroupReduceEmbedding.from_dense(
            table, SIZES, (3, 3, 3), frequencies=counts, max_sweeps=sweeps
        )
        for sweeps in (0, 5)
    ]
    errors = [
        counts @ np.sum((layer.to_dense() - table) ** 2, axis=1)
        for layer in layers
    ]
    assert errors[1] < 0.98 * errors[0]
    assert layers[1].count_params() <= layers[0].count_params()
    assert layers[1].group_sizes != SIZES


def test_does_not_learn_the_places(table, counts, generator):
    layer = GroupReduceEmbedding.from_dense(
        table, SIZES, RANKS, frequencies=counts
    )
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, layer(ids))
    places = np.array(layer.places)
    model.compile("adam", "mse")
    inputs = generator.integers(0, 307, (64, 3))
    before = model.evaluate(inputs, table[inputs], verbose=0)
    model.fit(inputs, table[inputs], epochs=3, verbose=0)
    np.testing.assert_array_equal(layer.places, places)
    assert model.evaluate(inputs, table[inputs], verbose=0) < before


@pytest.mark.tensorflow_only
def test_permuted_layers_export(table, counts, tmp_path):
    ids = keras.Input((4,), dtype="int32", name="ids")
    arguments = {"frequencies": counts}
    x = GroupReduceEmbedding.from_dense(table, SIZES, RANKS, **arguments)(ids)
    head = GroupReduceSoftmax.from_dense(table, SIZES, RANKS, **arguments)
    model = keras.Model(ids, head(x))
    written = export_litert(model, tmp_path / "model.tflite")
    assert written.max_difference < 1e-5
    export_serving(model, tmp_path / "served")


def test_ranks_are_checked_against_the_width_when_it_is_known():
    layer = GroupReduceSoftmax(307, SIZES, (13, 5, 2))
    with pytest.raises(ValueError) as error:
        layer.build((None, 12))
    assert str(error.value) == (
        "`group_ranks` must not exceed `width`. "
        "Received: group_ranks=(13, 5, 2), width=12"
    )
