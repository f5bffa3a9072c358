"""What is special to shared sub-vectors."""

import keras
import numpy as np
import pytest
from oracles import hashed_table

from keras_embcomp import (
    HashedEmbedding,
    HashedSoftmax,
    export_litert,
    resize_vocabulary,
)


@pytest.mark.parametrize(
    ("vocabulary", "width", "kept", "ratio"),
    [
        (10_000, 300, 20_000, 5),
        (10_000, 300, 5_000, 20),
        (793_471, 2_048, 0, 32),
    ],
)
def test_the_size_is_that_of_the_paper(vocabulary, width, kept, ratio):
    parts = 10 if width == 300 else 8
    size = kept or vocabulary * parts // ratio
    layer = HashedEmbedding(vocabulary, width, size, num_parts=parts)
    layer.build()
    assert layer.count_params() == size * width // parts
    assert round(layer.compression_ratio, 1) == ratio


@pytest.mark.parametrize(
    ("lstms", "output", "total"), [(2, 8, 322), (3, 16, 254)]
)
def test_the_totals_of_billion_words_are_those_of_the_paper(
    lstms, output, total
):
    """Its 2- and 3-layer models with 1/32 of the input: millions."""
    vocabulary, width = 793_471, 2_048
    layers = (
        HashedEmbedding(vocabulary, width, vocabulary * 8 // 32),
        HashedSoftmax(vocabulary, vocabulary * 8 // output),
    )
    layers[0].build()
    layers[1].build((None, width))
    recurrent = lstms * 4 * width * (2 * width + 1)
    found = recurrent + sum(layer.count_params() for layer in layers)
    assert round(found / 1e6) == total


@pytest.mark.parametrize("shared_pool", [True, False])
@pytest.mark.parametrize("tokens", [1, 40])
def test_tied_logits_are_those_of_the_table(shared_pool, tokens, generator):
    layer = HashedEmbedding(307, 12, 100, num_parts=3, shared_pool=shared_pool)
    layer.build()
    hidden = generator.normal(size=(tokens, 12)).astype("float32")
    np.testing.assert_allclose(
        layer(hidden, reverse=True), hidden @ layer.to_dense().T, atol=1e-5
    )


def test_private_units_have_rows_of_their_own(generator):
    softmax = HashedSoftmax(307, 100, 3, activation=None, num_private=20)
    softmax.build((None, 12))
    hidden = generator.normal(size=(2, 12)).astype("float32")
    table = softmax.to_dense()
    np.testing.assert_allclose(softmax(hidden), hidden @ table.T, atol=1e-5)
    pieces = softmax.get_weights()[0]
    np.testing.assert_array_equal(table[:20].ravel(), pieces[100:].ravel())
    oracle = hashed_table(287, 3, False, pieces[:100])
    np.testing.assert_array_equal(table[20:], oracle)


def test_words_keep_private_rows_when_others_go():
    layer = HashedEmbedding(50, 4, 20, num_parts=2, num_private=10)
    layer.build()
    for size, private in ((7, 6), (30, 10), (90, 10)):
        with pytest.warns(UserWarning, match="was fitted again"):
            small = resize_vocabulary(layer, size)
        assert small.num_private == private
        rows = layer.to_dense()[:private]
        np.testing.assert_allclose(small.to_dense()[:private], rows, rtol=1e-6)


def test_the_pool_is_the_mean_of_its_users(generator):
    table = generator.normal(size=(50, 4)).astype("float32")
    counts = generator.integers(1, 9, 50)
    layer = HashedEmbedding.from_dense(table, 5, 2, frequencies=counts)
    moved = layer.get_weights()[0]
    errors = []
    for step in (0, 0.05, -0.05):
        layer.set_weights([moved + step])
        rows = np.sum((layer.to_dense() - table) ** 2, axis=1)
        errors.append(np.sum(counts * rows))
    assert errors[0] == min(errors)


def test_a_pool_of_the_wrong_size_is_refused_in_words(tmp_path):
    layer = HashedEmbedding(50, 4, 20, num_parts=2)
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layer])
    model.save_weights(tmp_path / "model.weights.h5")
    other = HashedEmbedding(50, 4, 21, num_parts=2)
    model = keras.Sequential([keras.Input((2,), dtype="int32"), other])
    with pytest.raises(ValueError, match="20"):
        model.load_weights(tmp_path / "model.weights.h5")


@pytest.mark.tensorflow_only
def test_the_assignment_takes_no_space_in_a_file(tmp_path):
    hidden = keras.Input((16,), name="hidden")
    softmax = HashedSoftmax(20_000, 500, num_parts=4, use_bias=False)
    model = keras.Model(hidden, softmax(hidden))
    written = export_litert(model, tmp_path / "softmax.tflite")
    assert written.bytes < 4 * softmax.count_params() + 30_000
    ids = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(ids, HashedEmbedding(20_000, 16, 500, 4)(ids))
    written = export_litert(model, tmp_path / "embedding.tflite")
    assert written.bytes < 4 * 500 * 4 + 20_000
    assert written.max_difference == 0
