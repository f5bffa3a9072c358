"""Bags of ids: against NumPy, and against keras-rs where it is installed."""

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, VOCABULARY, WIDTH
from contract import assert_close
from keras import ops
from random_layers import in_turn

import keras_embcomp
from keras_embcomp import EmbedReduce

BACKEND = keras.backend.backend()
COMBINERS = ("mean", "sum", "sqrtn")
KINDS = {
    "tensorflow": ("padded", "ragged", "sparse"),
    "jax": ("padded", "sparse"),
    "torch": ("padded",),
}[BACKEND]
BAGS = [[3, 300, 3], [306], [], [7, 8]]
WEIGHTS = [[1.0, 2.0, 0.5], [-3.0], [], [0.0, 0.0]]
every_case = pytest.mark.parametrize("case", EMBEDDINGS, ids=str)
every_combiner = pytest.mark.parametrize("combiner", COMBINERS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def embedding_of(case, **kwargs):
    layer = case.layer(VOCABULARY, WIDTH, **case.structure, **kwargs)
    layer.build()
    return layer


def padded(lists, dtype):
    found = np.zeros((len(lists), 3), dtype)
    for row, values in zip(found, lists, strict=True):
        row[: len(values)] = values
    return found


def as_kind(kind, lists, dtype):
    """Returns lists as what `kind` says; a weight of 0 stays in its place."""
    if kind == "padded":
        return padded(lists, dtype)
    if kind == "ragged":
        import tensorflow as tf

        return tf.ragged.constant(lists, dtype=dtype)
    places = [(i, j) for i, row in enumerate(lists) for j in range(len(row))]
    values = np.concatenate(lists).astype(dtype)
    if BACKEND == "jax":
        from jax.experimental.sparse import BCOO

        # Two entries of padding, as JAX has them.
        indices = np.array([*places, (4, 3), (4, 3)])
        values = np.append(values, np.zeros(2, dtype))
        arrays = ops.array(values), ops.array(indices)
        return BCOO(arrays, shape=(4, 3))
    import tensorflow as tf

    return tf.SparseTensor(places, values, (4, 3))


def expected_of(table, combiner, weighted):
    rows = []
    for bag, weights in zip(BAGS, WEIGHTS, strict=True):
        weights = np.array(weights if weighted else [1.0] * len(bag))
        row = weights @ table[np.array(bag, int)].astype("float64")
        by = {
            "mean": weights.sum(),
            "sum": 1.0,
            "sqrtn": np.sqrt(np.square(weights).sum()),
        }[combiner]
        rows.append(row / by if by else np.zeros(WIDTH))
    return np.array(rows)


@pytest.mark.parametrize("weighted", [False, True])
@every_kind
@every_combiner
@every_case
def test_combines_rows_of_the_table(case, combiner, kind, weighted):
    embedding = embedding_of(case, mask_zero=kind == "padded")
    layer = EmbedReduce(embedding, combiner)
    ids = as_kind(kind, BAGS, "int32")
    weights = as_kind(kind, WEIGHTS, "float32") if weighted else None
    found = layer(ids, weights=weights)
    expected = expected_of(embedding.to_dense(), combiner, weighted)
    assert found.shape == (4, WIDTH)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


@every_kind
@in_turn(EMBEDDINGS)
def test_quantized_tables(case, kind, mode):
    embedding = embedding_of(case, mask_zero=kind == "padded")
    embedding.quantize(mode)
    found = EmbedReduce(embedding)(as_kind(kind, BAGS, "int32"))
    expected = expected_of(embedding.to_dense(), "mean", False)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


@every_kind
@every_combiner
def test_compiles(combiner, kind, compiled):
    embedding = embedding_of(EMBEDDINGS[0], mask_zero=kind == "padded")
    layer = EmbedReduce(embedding, combiner)
    ids, weights = (
        as_kind(kind, lists, dtype)
        for lists, dtype in ((BAGS, "int32"), (WEIGHTS, "float32"))
    )
    layer(ids)
    found = compiled(lambda ids, w: layer(ids, weights=w))(ids, weights)
    expected = expected_of(embedding.to_dense(), combiner, True)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


@every_combiner
@every_kind
def test_is_what_keras_rs_has(combiner, kind):
    keras_rs = pytest.importorskip("keras_rs")
    theirs = keras_rs.layers.EmbedReduce(VOCABULARY, WIDTH, combiner=combiner)
    ids = as_kind(kind, BAGS, "int32")
    weights = as_kind(kind, WEIGHTS, "float32")
    table = theirs(ids) is not None and theirs.get_weights()
    dense = keras.layers.Embedding(VOCABULARY, WIDTH)
    dense.build()
    dense.set_weights(table)
    ours = EmbedReduce(dense, combiner)
    for w in (None, weights):
        assert_close(
            ours(ids, weights=w), theirs(ids, weights=w), rtol=1e-5, atol=1e-6
        )


@every_combiner
def test_other_numbers_of_dimensions(combiner):
    embedding = embedding_of(EMBEDDINGS[0])
    layer = EmbedReduce(embedding, combiner)
    ids = np.array([[3, 300, 3], [306, 7, 8]])
    flat = layer(ids)
    assert_close(layer(ids[None, :, None])[0, :, 0], flat, rtol=1e-5)
    rows = embedding.to_dense()[ids[0]]
    assert_close(layer(ids[0]), rows, rtol=1e-5)
    weights = np.array([2.0, 0.0, 1.0], "float32")
    kept = weights[:, None] if combiner == "sum" else 1
    assert_close(layer(ids[0], weights=weights), rows * kept, rtol=1e-5)
    assert layer(ids[:, :0]).shape == (2, WIDTH)
    assert not np.any(ops.convert_to_numpy(layer(ids[:, :0])))
    assert layer(ids[:0]).shape == (0, WIDTH)


@pytest.mark.tensorflow_only
def test_a_bag_inside_a_ragged_dimension_is_ragged():
    import tensorflow as tf

    embedding = embedding_of(EMBEDDINGS[0])
    ids = tf.ragged.constant([[[1, 2], [3]], [], [[4, 5, 6]]])
    found = EmbedReduce(embedding, "sum")(ids)
    table = embedding.to_dense()
    expected = [table[row].sum(axis=0) for row in ([1, 2], [3], [4, 5, 6])]
    assert found.row_lengths().numpy().tolist() == [2, 0, 1]
    assert_close(found.flat_values, np.array(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.tensorflow_only
@every_combiner
@every_kind
def test_weights_learn_and_empty_bags_do_not_break_it(combiner, kind):
    import tensorflow as tf

    embedding = embedding_of(EMBEDDINGS[0], mask_zero=kind == "padded")
    layer = EmbedReduce(embedding, combiner)
    ids = as_kind(kind, BAGS, "int32")
    values = tf.Variable(np.concatenate(WEIGHTS).astype("float32"))

    def loss():
        weights = ids
        if kind == "ragged":
            weights = ids.with_flat_values(values)
        elif kind == "sparse":
            weights = tf.SparseTensor(ids.indices, values, ids.dense_shape)
        else:
            weights = tf.scatter_nd(tf.where(ids != 0), values, ids.shape)
        return tf.reduce_sum(layer(ids, weights=weights) ** 2)

    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, [values, *layer.trainable_variables])
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
    step = 1e-3
    values.assign_add([step, 0, 0, 0, 0, 0])
    above = loss()
    values.assign_sub([2 * step, 0, 0, 0, 0, 0])
    slope = (above - loss()) / (2 * step)
    assert_close(gradients[0][0], slope, rtol=0.05, atol=1e-4)


def test_half_precision_is_the_embeddings():
    layer = EmbedReduce(embedding_of(EMBEDDINGS[0], dtype="mixed_float16"))
    ids = np.full((1, 2_100), 300)
    found = layer(ids, weights=np.ones(ids.shape, "float32"))
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    expected = layer.layer.to_dense()[300]
    assert_close(found[0], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (keras.layers.Dense(3, name="d"),),
            "`layer` must be an `Embedding` of Keras or a compressed one. "
            "Received: layer=<Dense",
        ),
        (
            (keras.layers.Embedding(3, 2), "max"),
            "`combiner` must be one of mean, sum, sqrtn. "
            "Received: combiner=max",
        ),
    ],
)
def test_refuses_in_words(arguments, message):
    with pytest.raises(ValueError) as error:
        EmbedReduce(*arguments)
    assert str(error.value).startswith(message)


def test_refuses_weights_of_another_shape():
    layer = EmbedReduce(embedding_of(EMBEDDINGS[0]))
    with pytest.raises(ValueError, match="must have the shape of `inputs`"):
        layer(np.zeros((2, 3), int), weights=np.ones((2,), "float32"))


def bag_model(kind):
    how = {} if kind == "padded" else {kind: True}
    length = None if kind == "ragged" else 3
    ids = keras.Input((length,), dtype="int32", name="ids", **how)
    weights = keras.Input((length,), name="weights", **how)
    dense = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)
    bags = EmbedReduce(dense, "sqrtn", name="bags")(ids, weights=weights)
    return keras.Model([ids, weights], keras.layers.Dense(2)(bags))


@every_kind
def test_models_are_compressed_trained_saved_and_made_dense(kind, tmp_path):
    model = bag_model(kind)
    compressed = keras_embcomp.compress(model, ratio=3)
    layer = compressed.get_layer("bags")
    assert type(layer) is EmbedReduce and layer.combiner == "sqrtn"
    assert type(layer.layer).__module__.startswith("keras_embcomp.layers")
    inputs = [
        as_kind(kind, BAGS, "int32"),
        as_kind(kind, WEIGHTS, "float32"),
    ]
    dense = keras_embcomp.to_keras(compressed)
    assert type(dense.get_layer("bags").layer) is keras.layers.Embedding
    assert_close(compressed(inputs), dense(inputs), rtol=1e-4, atol=1e-5)
    if kind == "padded":
        compressed.compile("adam", "mse")
        compressed.fit(inputs, np.ones((4, 2)), verbose=0)
    found = compressed(inputs)
    compressed.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_close(loaded(inputs), found)


@pytest.mark.tensorflow_only
@every_kind
def test_fits_and_exports(kind, tmp_path):
    import tensorflow as tf

    model = keras_embcomp.compress(bag_model(kind), ratio=3)
    inputs = tuple(
        as_kind(kind, lists, dtype)
        for lists, dtype in ((BAGS, "int32"), (WEIGHTS, "float32"))
    )
    model.compile("adam", "mse")
    data = tf.data.Dataset.from_tensors((inputs, np.ones((4, 2), "float32")))
    before = model.get_weights()
    model.fit(data, shuffle=False, verbose=0)
    assert any(
        np.any(one != other)
        for one, other in zip(before, model.get_weights(), strict=True)
    )
    dense = padded(BAGS, "int32"), padded(WEIGHTS, "float32")
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    assert_close(
        served.serve(list(dense)), model(list(inputs)), rtol=1e-4, atol=1e-5
    )
    found = keras_embcomp.export_litert(model, tmp_path / "model.tflite")
    assert found.max_difference < 1e-5
