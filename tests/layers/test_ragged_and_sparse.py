"""Ragged and sparse ids: what `Embedding` takes, with its result types."""

from functools import partial

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, VOCABULARY, WIDTH
from contract import assert_close as close
from keras import ops
from random_layers import in_turn

import keras_embcomp

BACKEND = keras.backend.backend()
assert_close = partial(close, rtol=1e-4, atol=1e-6)
every_case = pytest.mark.parametrize("case", EMBEDDINGS, ids=str)
stored = in_turn(EMBEDDINGS, floats=True)
needs_sparse = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras has no sparse tensors on PyTorch"
)
IDS = np.array([[3, 0, 300], [0, 0, 0], [306, 7, 0]], "int32")
LISTS = [[3, 300, 0], [], [306]]
FLAT = [3, 300, 0, 306]


def made(case, mode=None, **kwargs):
    layer = case.layer(VOCABULARY, WIDTH, **case.structure, **kwargs)
    layer.build()
    if mode is not None:
        layer.quantize(mode)
    return layer


def ragged(lists=LISTS, dtype="int32", **kwargs):
    import tensorflow as tf

    return tf.cast(tf.ragged.constant(lists, dtype="int64", **kwargs), dtype)


def sparse(ids=IDS, dtype="int32"):
    if BACKEND == "jax":
        from jax.experimental.sparse import BCOO

        return BCOO.fromdense(ids.astype(dtype), nse=7)  # two of padding
    import tensorflow as tf

    found = tf.sparse.from_dense(ids)
    return tf.SparseTensor(
        found.indices, tf.cast(found.values, dtype), found.dense_shape
    )


def assert_like_dense(layer, found, expected):
    """The type, and the values within what the table's own lookup has."""
    import tensorflow as tf

    assert isinstance(found, tf.RaggedTensor)
    assert found.dtype == layer.compute_dtype
    assert found.shape.as_list() == [*expected.shape, WIDTH]
    for one, other in zip(
        found.nested_row_splits, expected.nested_row_splits, strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    ids = tf.cast(expected.flat_values, "int64").numpy()
    rows = layer.to_dense()[ids]
    assert_close(found.flat_values, rows)


@pytest.mark.tensorflow_only
@stored
def test_ragged_ids_give_ragged_rows(case, mode):
    layer = made(case, mode)
    assert_like_dense(layer, layer(ragged()), ragged())


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "dtype",
    "bool int8 uint8 int16 uint16 uint32 int64 uint64 float32".split(),
)
def test_ragged_ids_of_any_dtype(dtype):
    layer = made(EMBEDDINGS[0])
    ids = ragged([[1, 0], [], [100]], dtype)
    assert_like_dense(layer, layer(ids), ids)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    ("lists", "how"),
    [
        ([[[1, 2], [3]], [], [[4]]], {}),
        ([[[1, 2], [3, 4]], [], [[5, 6]]], {"ragged_rank": 1}),
        (LISTS, {"row_splits_dtype": "int32"}),
        ([[], []], {"ragged_rank": 1}),
        ([[-1, -VOCABULARY]], {}),
    ],
    ids=["two", "uniform inside", "int32 splits", "empty", "negative"],
)
@every_case
def test_ragged_ids_of_any_structure(case, lists, how):
    layer = made(case)
    ids = ragged(lists, **how)
    assert_like_dense(layer, layer(ids), ids)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("jit_compile", [False, True])
@every_case
def test_ragged_ids_in_functions(case, jit_compile):
    import tensorflow as tf

    layer = made(case)
    function = tf.function(layer, jit_compile=jit_compile)
    assert_close(function(ragged()).flat_values, layer.to_dense()[FLAT])


@pytest.mark.tensorflow_only
@every_case
def test_a_row_has_the_gradient_that_dense_ids_give_it(case):
    import tensorflow as tf

    layer = made(case)
    if not layer.trainable_variables:
        pytest.skip("nothing trains")
    found = []
    for ids in (ragged(), tf.constant(FLAT)):
        with tf.GradientTape() as tape:
            rows = layer(ids)
            loss = tf.reduce_sum(getattr(rows, "flat_values", rows) ** 2)
        found.append(tape.gradient(loss, layer.trainable_variables))
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


@pytest.mark.tensorflow_only
@every_case
def test_ragged_hidden_states_go_back(case):
    layer = made(case)
    rows = layer(ragged())
    logits = layer(rows, reverse=True)
    assert logits.shape.as_list() == [3, None, VOCABULARY]
    expected = layer.to_dense()[FLAT] @ layer.to_dense().T
    assert_close(logits.flat_values, expected)


@pytest.mark.tensorflow_only
def test_ragged_ids_have_a_ragged_mask_as_in_keras():
    layer = made(EMBEDDINGS[0], mask_zero=True)
    dense = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)
    for found in (layer, dense):
        mask = found(ragged())._keras_mask
        assert mask.to_list() == [[True, True, False], [], [True]]


@pytest.mark.tensorflow_only
@every_case
def test_a_ragged_id_out_of_range_is_named(case):
    with pytest.raises(Exception, match=f"id {VOCABULARY} at .1, 0. in layer"):
        made(case)(ragged([[1, 2], [VOCABULARY]]))


@pytest.mark.tensorflow_only
def test_half_precision():
    layer = made(EMBEDDINGS[0], dtype="mixed_float16")
    assert layer(ragged()).dtype == "float16"
    assert layer(sparse()).dtype == "float16"


@needs_sparse
@stored
def test_sparse_ids_give_dense_rows(case, mode):
    layer = made(case, mode)
    found = layer(sparse())
    assert ops.is_tensor(found) and found.shape == (*IDS.shape, WIDTH)
    assert_close(found, layer.to_dense()[IDS])
    assert_close(layer.rows(sparse()), found)


@needs_sparse
@pytest.mark.parametrize("dtype", "int8 uint16 int64 float32".split())
def test_sparse_ids_of_any_dtype(dtype):
    layer = made(EMBEDDINGS[0])
    ids = IDS % 100
    found = layer(sparse(ids, dtype))
    assert_close(found, layer.to_dense()[ids])


@needs_sparse
def test_an_absent_id_is_padding():
    layer = made(EMBEDDINGS[0], mask_zero=True)
    np.testing.assert_array_equal(layer(sparse())._keras_mask, IDS != 0)
    entry = keras.Input((3,), dtype="int32", sparse=True)
    model = keras.Model(entry, layer(entry))
    np.testing.assert_array_equal(model(sparse())._keras_mask, IDS != 0)


@needs_sparse
@every_case
def test_sparse_ids_in_functions(case, compiled):
    layer = made(case)
    found = compiled(layer)(sparse())
    assert_close(found, layer.to_dense()[IDS])


@needs_sparse
def test_sparse_hidden_states_go_back():
    layer = made(EMBEDDINGS[0])
    hidden = np.eye(3, WIDTH, dtype="float32")
    entry = sparse(hidden, "float32")
    expected = hidden @ layer.to_dense().T
    assert_close(layer(entry, reverse=True), expected)


@pytest.mark.skipif(BACKEND != "jax", reason="JAX has it")
@every_case
def test_compressed_rows_of_jax(case):
    from jax.experimental.sparse import BCSR

    layer = made(case)
    found = layer(BCSR.fromdense(IDS))
    assert_close(found, layer.to_dense()[IDS])


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch has it")
@every_case
def test_jagged_tensors_of_torch(case):
    import torch

    lists = [torch.tensor(ids, dtype=torch.int64) for ids in LISTS]
    ids = torch.nested.nested_tensor(lists, layout=torch.jagged)
    dense = keras.layers.Embedding(VOCABULARY, WIDTH)
    layer = made(case)
    found = layer(ids)
    assert type(found) is type(dense(ids)) and found.is_nested
    for row, one in zip(found.unbind(), LISTS, strict=True):
        expected = layer.to_dense()[np.array(one, int)]
        assert_close(row, expected)


@keras.saving.register_keras_serializable("tests")
class MeanOfWords(keras.layers.Layer):
    """What Keras has no layer for: a mean over ragged words."""

    def call(self, inputs):
        return ops.mean(inputs, axis=1)

    def compute_output_spec(self, inputs):
        shape = (inputs.shape[0], inputs.shape[-1])
        return keras.KerasTensor(shape, dtype=inputs.dtype)


def model_of(kind):
    """Returns a dense model and what it takes, once as dense ids."""
    entry = keras.Input(
        () if kind == "text" else (3,) if kind == "sparse" else (None,),
        dtype="string" if kind == "text" else "int32",
        name="ids",
        ragged=kind == "ragged",
        sparse=kind == "sparse",
    )
    ids = entry
    if kind == "text":
        words = [f"w{number}" for number in range(VOCABULARY - 2)]
        ids = keras.layers.TextVectorization(ragged=True, vocabulary=words)(ids)
    rows = keras.layers.Embedding(VOCABULARY, WIDTH)(ids)
    outputs = keras.layers.Dense(2)(MeanOfWords()(rows))
    return keras.Model(entry, outputs)


def inputs_of(kind):
    """Returns inputs, and such as an exported signature takes."""
    import tensorflow as tf

    if kind == "text":
        return 2 * [tf.constant(["w1 w2 w3", "w5", "w9 w9"])]
    dense = tf.constant(IDS)
    return (ragged([[3], [1, 2], [7]]) if kind == "ragged" else sparse()), dense


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("kind", ["ragged", "sparse", "text"])
def test_models_with_such_inputs_are_compressed(kind, tmp_path):
    import tensorflow as tf

    model = model_of(kind)
    inputs, dense = inputs_of(kind)
    # One method: whatever replaces the table, its inputs are as they were.
    compressed = keras_embcomp.compress(model, ratio=3, method="low_rank")
    found = compressed(inputs)
    expected = keras_embcomp.to_keras(compressed)(inputs)
    assert_close(found, expected)
    assert_close(compressed.predict(inputs, verbose=0), found)
    compressed.compile("adam", "mse")
    compressed.fit(inputs, np.ones((3, 2)), verbose=0)
    found = compressed(inputs)
    compressed.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_close(loaded(inputs), found)
    # Keras gives a saved model dense signatures, whatever the inputs are.
    compressed.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    assert_close(served.serve(dense), compressed(dense))


@pytest.mark.tensorflow_only
@every_case
def test_ragged_inputs_stay_ragged_symbolically(case):
    entry = keras.Input((None,), dtype="int32", ragged=True)
    layer = case.layer(VOCABULARY, WIDTH, **case.structure)
    rows = layer(entry)
    dense = keras.layers.Embedding(VOCABULARY, WIDTH)(entry)
    assert (rows.ragged, rows.shape) == (dense.ragged, dense.shape)
    model = keras.Model(entry, [rows, layer(rows, reverse=True)])
    assert_like_dense(layer, model.predict(ragged(), verbose=0)[0], ragged())


@pytest.mark.tensorflow_only
@every_case
def test_ragged_words_of_text(case):
    """A vocabulary's lookup does not say how many dimensions its ids have."""
    entry = keras.Input((), dtype="string")
    words = [f"w{number}" for number in range(VOCABULARY - 2)]
    vectors = keras.layers.TextVectorization(ragged=True, vocabulary=words)
    layer = made(case)
    model = keras.Model(entry, layer(vectors(entry)))
    found = model.predict(np.array(["w1 w2", "", "w7"], object), verbose=0)
    assert_close(found.flat_values, layer.to_dense()[[3, 4, 9]])
