"""What is special to tensor trains."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_embcomp import TTEmbedding, TTSoftmax, export_litert


def built(*args, **kwargs):
    layer = TTEmbedding(*args, **kwargs)
    layer.build()
    return layer


@pytest.mark.parametrize("num_cores", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("rank", [1, 2, 16, 128])
def test_the_table_has_the_variance_that_was_asked_for(num_cores, rank):
    variances = []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        layer = built(
            25_000,
            64,
            tt_ranks=rank,
            num_cores=num_cores,
            embeddings_stddev=0.05,
        )
        variances.append(np.var(layer.to_dense()))
    np.testing.assert_allclose(np.mean(variances), 0.05**2, rtol=0.05)


def test_the_default_variance_is_that_of_glorot():
    table = built(5_000, 64).to_dense()
    np.testing.assert_allclose(np.var(table), 2 / 5_064, rtol=0.05)


def test_the_rows_are_those_of_t3f(generator):
    import t3f

    layer = built(307, 12, tt_ranks=4, num_cores=4)
    full = np.asarray(t3f.full(layer.tensor_train))
    ids = generator.integers(0, 307, (5, 6))
    np.testing.assert_allclose(layer(ids), full[ids], atol=1e-6)


def test_cores_come_from_t3f_and_go_back(generator):
    import t3f

    shape = ((4, 5, 6), (2, 3, 2))
    tensor_train = t3f.to_tt_matrix(
        generator.normal(size=(120, 12)).astype("float32"), shape, 5
    )
    layer = TTEmbedding.from_tensor_train(tensor_train, input_dim=113)
    full = np.asarray(t3f.full(tensor_train))
    np.testing.assert_allclose(layer.to_dense(), full[:113], atol=1e-5)
    assert layer.tt_shape == shape
    other = built(113, 12, tt_shape=shape, tt_ranks=layer.tt_ranks)
    other.tensor_train = layer.tensor_train
    np.testing.assert_array_equal(other.to_dense(), layer.to_dense())
    with pytest.raises(ValueError, match="modes of the layer, and ranks up to"):
        built(113, 12, tt_ranks=2).tensor_train = tensor_train


def test_cores_of_ranks_that_the_modes_do_not_allow_can_be_assigned():
    import t3f

    shape = ((5, 5, 5, 5, 6, 8), (2, 2, 2, 2, 4, 4))
    layer = built(25_000, 256, tt_ranks=16, tt_shape=shape)
    table = layer.to_dense()
    layer.tensor_train = layer.tensor_train
    np.testing.assert_array_equal(layer.to_dense(), table)
    layer.tensor_train = t3f.round(layer.tensor_train, max_tt_rank=16)
    np.testing.assert_allclose(layer.to_dense(), table, atol=1e-5)
    assert layer.cores[0].shape == (5, 1, 2, 16)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_cores_may_be_stored_in_any_precision(dtype):
    layer = built(113, 12, tt_ranks=3, dtype=dtype)
    assert layer.cores[0].dtype == dtype
    rounded = layer.merged(10**6).rounded(2)
    assert rounded.to_dense().shape == (113, 12)


def test_the_stddev_must_be_a_number():
    for wrong in (-0.1, 0, "0.1", float("nan"), True):
        with pytest.raises(ValueError, match="`embeddings_stddev` must be a"):
            TTSoftmax(113, embeddings_stddev=wrong)


@pytest.mark.tensorflow_only
def test_an_id_out_of_range_meets_no_padded_row_where_xla_hides():
    import tensorflow as tf

    layer = built(307, 12, tt_ranks=3, tt_shape=((18, 19), (3, 4)))
    inner = tf.function(lambda ids: layer(ids))
    inner(tf.constant([1, 2]))  # traced without XLA
    outer = tf.function(lambda ids: inner(ids), jit_compile=True)
    found = outer(tf.constant([307, 2]))
    np.testing.assert_allclose(found, layer.to_dense()[[306, 2]], atol=1e-6)


@pytest.mark.tensorflow_only
def test_a_model_of_64_bit_ids_is_exported(tmp_path):
    ids = keras.Input((None,), dtype="int64", name="ids")
    model = keras.Model(ids, TTEmbedding(307, 12, tt_ranks=3)(ids))
    written = export_litert(model, tmp_path / "model.tflite")
    assert written.max_difference < 1e-6


@pytest.mark.tensorflow_only
def test_a_riemannian_step_of_t3f_lowers_the_loss(generator):
    import t3f
    import tensorflow as tf

    layer = built(113, 12, tt_ranks=3, embeddings_stddev=1.0)
    target = layer.to_dense() + generator.normal(size=(113, 12))
    target = tf.constant(
        np.pad(target, ((0, np.prod(layer.tt_shape[0]) - 113), (0, 0))),
        tf.float32,
    )

    def loss(tensor_train):
        return tf.reduce_sum((t3f.full(tensor_train) - target) ** 2)

    before = loss(layer.tensor_train)
    step = t3f.gradients(loss, layer.tensor_train)
    moved = layer.tensor_train - 0.1 * step
    layer.tensor_train = t3f.round(moved, max_tt_rank=3)
    found = layer(np.arange(113))
    after = tf.reduce_sum((found - target[:113]) ** 2)
    assert after < 0.95 * before


@pytest.mark.tensorflow_only
def test_gradients_flow_through_the_tensor_train():
    import t3f
    import tensorflow as tf

    layer = built(20, 4, tt_ranks=2)
    with tf.GradientTape() as tape:
        loss = t3f.frobenius_norm_squared(layer.tensor_train)
    found = tape.gradient(loss, [core.value for core in layer.cores])
    assert all(np.any(gradient.numpy() != 0) for gradient in found)


def test_a_rounded_layer_is_of_lower_rank_and_near():
    layer = built(307, 12, tt_ranks=6, name="words", mask_zero=True)
    rounded = layer.rounded(max_tt_rank=3)
    assert rounded.tt_ranks == (3, 3)
    assert (rounded.name, rounded.mask_zero) == ("words", True)
    table = layer.to_dense()
    error = np.linalg.norm(rounded.to_dense() - table)
    assert 0 < error < np.linalg.norm(table)


@pytest.mark.parametrize("num_cores", [2, 3, 6])
def test_a_merged_layer_gives_the_same_rows_and_logits(num_cores, generator):
    layer = built(307, 12, tt_ranks=6, num_cores=num_cores)
    merged = layer.merged(max_bytes=10**6)
    assert merged.num_cores == 2
    ids = generator.integers(0, 307, (3, 4))
    np.testing.assert_allclose(merged(ids), layer(ids), atol=1e-5)
    hidden = generator.normal(size=(2, 12)).astype("float32")
    np.testing.assert_allclose(
        merged(hidden, reverse=True), layer(hidden, reverse=True), atol=1e-5
    )
    with pytest.raises(ValueError, match="`max_bytes` must be at least"):
        layer.merged(max_bytes=100)


def test_a_merged_softmax_keeps_its_bias(generator):
    layer = TTSoftmax(307, bias_initializer="normal", activation=None)
    hidden = generator.normal(size=(2, 12)).astype("float32")
    expected = layer(hidden)
    np.testing.assert_allclose(layer.merged(10**6)(hidden), expected, atol=1e-5)


def test_padded_rows_have_no_probability(generator):
    layer = TTSoftmax(10, tt_shape=((4, 5), (2, 3)), tt_ranks=2)
    for tokens in (1, 50):
        hidden = generator.normal(size=(tokens, 6)).astype("float32")
        probabilities = ops.convert_to_numpy(layer(hidden))
        assert probabilities.shape == (tokens, 10)
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_ranks_above_what_the_modes_allow_are_clipped_in_words():
    message = (
        "`tt_ranks` above what the modes allow are clipped. Received: "
        r"tt_ranks=\(99, 2\), tt_shape=\(\(5, 6, 7\), \(2, 3, 2\)\). "
        r"Used: tt_ranks=\(10, 2\)"
    )
    shape = ((5, 6, 7), (2, 3, 2))
    with pytest.warns(UserWarning, match=message):
        layer = built(203, 12, tt_ranks=[99, 2], tt_shape=shape)
    assert layer.cores[1].shape == (6, 10, 3, 2)
    with pytest.warns(UserWarning, match="clipped.*Used: tt_ranks=14"):
        built(203, 12, tt_ranks=10**6, tt_shape=shape)


def test_rank_or_error_must_be_given(generator):
    table = generator.normal(size=(20, 4))
    with pytest.raises(ValueError, match="One of `tt_ranks` and `max_error`"):
        TTEmbedding.from_dense(table)
    with pytest.raises(ValueError, match="`max_error` must be between 0 and 1"):
        TTEmbedding.from_dense(table, max_error=1.5)
    layer = TTEmbedding.from_dense(table, max_error=0.4)
    error = np.linalg.norm(layer.to_dense() - table) / np.linalg.norm(table)
    assert error <= 0.4


@pytest.mark.tensorflow_only
def test_the_file_is_two_hundred_times_smaller_than_dense(tmp_path):
    sizes = {}
    for layer in (
        TTEmbedding(100_000, 256, tt_ranks=16, num_cores=4),
        keras.layers.Embedding(100_000, 256),
    ):
        ids = keras.Input((None,), dtype="int32", name="ids")
        model = keras.Model(ids, layer(ids))
        path = tmp_path / f"{layer.name}.tflite"
        written = export_litert(model, path)
        sizes[type(layer).__name__] = written.bytes
        if isinstance(layer, TTEmbedding):
            assert written.max_difference < 1e-7
            # No branch for negative ids, and nothing merged beforehand.
            refused = {"SELECT", "SELECT_V2", "LESS", "WHERE"}
            assert not refused & set(written.operations)
    assert sizes["Embedding"] > 200 * sizes["TTEmbedding"]
