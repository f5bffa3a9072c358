"""Ids without a vocabulary: features of 64 bits, and n-grams."""

import hashlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_embcomp import (
    HashedEmbedding,
    HashedFeatures,
    NGramIds,
    export_litert,
    export_serving,
)

IDS = np.array(
    [0, 1, -1, 255, 2**31, -(2**31) - 1, 2**62 + 12345, -(2**63), 2**63 - 1]
)


def bytes_of(number):
    return [(number >> shift) & 255 for shift in range(0, 64, 8)]


def expected_rows(layer, name, ids):
    """Hashes in Python's integers, a part of a row at a time."""
    pool = ops.convert_to_numpy(layer.subvectors)
    least, more = divmod(layer.num_subvectors, layer.num_parts)
    sizes = [least + (part < more) for part in range(layer.num_parts)]
    generator = np.random.default_rng(layer.seed)
    table = generator.integers(0, sizes, (8, 256, layer.num_parts))
    salt = hashlib.sha256(f"{layer.seed}/{name}".encode()).digest()
    rows = []
    for number in ids:
        pieces = []
        for part, size in enumerate(sizes):
            numbers = [
                int(table[place, (byte + salt[place]) % 256, part])
                for place, byte in enumerate(bytes_of(int(number)))
            ]
            pieces.append(pool[sum(sizes[:part]) + sum(numbers) % size])
        rows.append(np.concatenate(pieces))
    return np.stack(rows)


def features(**kwargs):
    return HashedFeatures(["user", "item"], 12, 101, num_parts=3, **kwargs)


def takes_64_bits():
    return keras.backend.backend() != "jax"


def test_any_id_of_64_bits_has_a_row():
    layer = features(split=not takes_64_bits())
    ids = IDS if takes_64_bits() else HashedFeatures.halves(IDS)
    found = layer({"user": ids, "item": ids[:4]})
    for name, some in (("user", IDS), ("item", IDS[:4])):
        rows = ops.convert_to_numpy(found[name])
        np.testing.assert_array_equal(rows, expected_rows(layer, name, some))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32"])
def test_the_dtype_of_an_id_does_not_matter(dtype):
    layer, ids = features(), np.array([[3], [100]], dtype)
    if dtype.startswith("int"):
        ids[0] = -3
    elif dtype == "uint32":
        ids[0] = 2**32 - 5
    rows = layer({"user": ids, "item": ids})["item"]
    expected = expected_rows(layer, "item", ids.ravel())
    np.testing.assert_array_equal(ops.convert_to_numpy(rows)[:, 0], expected)


def test_halves_are_the_ids(generator):
    ids = generator.integers(-(2**63), 2**63 - 1, (4, 5))
    halves = HashedFeatures.halves(ids)
    assert halves.dtype == np.int32 and halves.shape == (4, 5, 2)
    low, high = np.moveaxis(halves.astype("int64"), -1, 0)
    np.testing.assert_array_equal((high << 32) + (low & (2**32 - 1)), ids)
    one, two = features(split=True), features()
    one({"user": halves, "item": halves})
    small = np.array([5, -7])
    two({"user": small, "item": small})
    two.set_weights(one.get_weights())
    cut = HashedFeatures.halves(small)
    found = one({"user": cut, "item": cut})["user"]
    expected = two({"user": small, "item": small})["user"]
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (found, expected)))


def test_ids_share_as_often_as_the_law_says(generator):
    layer = HashedFeatures(["a", "b"], 4, 256, num_parts=4)
    ids = np.arange(2_000, dtype="int32")
    layer({"a": ids, "b": ids})
    numbers = np.arange(256.0)[:, None]
    layer.set_weights([numbers])
    rows = layer({"a": ids, "b": ids})
    a, b = (ops.convert_to_numpy(rows[name]) for name in "ab")
    one, two = generator.integers(0, 2_000, (2, 200_000))
    apart = one != two
    pairs = ((a[one][apart], a[two][apart]), (a[one], b[two]))
    for first, second in pairs:  # of one feature, and of two
        shared = np.mean(first == second)
        assert abs(shared - 1 / 64) < 0.05 / 64
        twice = np.mean(np.sum(first == second, axis=1) >= 2)
        assert abs(twice - 6 / 64**2) < 0.3 * 6 / 64**2


def test_other_features_change_nothing():
    few, more = features(), HashedFeatures(list("zyx") + ["item"], 12, 101, 3)
    ids = np.array([4, 5])
    few({"user": ids, "item": ids})
    more({"x": ids, "y": ids, "z": ids, "item": ids})
    more.set_weights(few.get_weights())
    pairs = (
        few({"user": ids, "item": ids})["item"],
        more({"x": ids, "y": ids, "z": ids, "item": ids})["item"],
    )
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, pairs))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"features": "user"}, "`features` must be a sequence of names"),
        ({"features": ["a", "a"]}, "`features` must be a sequence of names"),
        ({"num_parts": 5}, "`num_parts` must divide `output_dim`"),
        ({"num_subvectors": 2}, "`num_parts` must not exceed `num_subvector"),
        ({"num_subvectors": 2**31}, "`num_subvectors` must be below 2..31 / 8"),
        ({"num_subvectors": 0}, "`num_subvectors` must be a positive integer"),
    ],
)
def test_refuses_wrong_arguments(arguments, message):
    right = {"features": ["a"], "output_dim": 12, "num_subvectors": 101}
    with pytest.raises(ValueError, match=message):
        HashedFeatures(**{**right, "num_parts": 3, **arguments})


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"user": IDS[:2]}, "the features user, item. Received: \\['user'\\]"),
        (
            {"user": IDS[:2], "item": IDS[:2], "shop": IDS[:2]},
            "Received: \\['item', 'shop', 'user'\\]",
        ),
        (IDS[:2], "must be a dictionary with the features user, item"),
        (
            {"user": np.ones(2), "item": IDS[:2]},
            "Ids must be integers. Received: ids of dtype float",
        ),
    ],
)
def test_refuses_wrong_inputs(inputs, message):
    with pytest.raises(ValueError, match=message):
        features()(inputs)


def test_refuses_ids_that_are_not_halves():
    ids = np.ones((2, 3), "int32")
    with pytest.raises(ValueError, match="a last axis of 2"):
        features(split=True)({"user": ids, "item": ids})
    with pytest.raises(ValueError, match="Ids must be integers"):
        HashedFeatures.halves([1.5])


@pytest.mark.skipif(takes_64_bits(), reason="has integers of 64 bits")
def test_says_that_jax_would_cut_ids():
    ids = np.array([2**40])
    with pytest.raises(ValueError, match="must be split: use"):
        features()({"user": ids, "item": ids})


def recommender(names, split=False):
    shape = (2,) if split else ()
    dtype = "int32" if split else "int64"
    inputs = {
        name: keras.Input(shape, dtype=dtype, name=name) for name in names
    }
    layer = HashedFeatures(names, 8, 1_000, 4, split=split)
    rows = layer(inputs)
    joined = keras.layers.Concatenate()([rows[name] for name in names])
    hidden = keras.layers.Dense(16, "relu")(joined)
    return keras.Model(inputs, keras.layers.Dense(1)(hidden))


def test_a_recommender_of_26_features_learns_and_comes_back(
    tmp_path, generator
):
    split = not takes_64_bits()
    names = [f"c{number}" for number in range(26)]
    model = recommender(names, split)
    users = generator.integers(-(2**63), 2**63 - 1, (20, 26))
    rows = users[generator.integers(0, 20, 400)]
    likes = (rows[:, :1] % 2).astype("float32")
    ids = HashedFeatures.halves(rows) if split else rows
    inputs = {name: ids[:, place] for place, name in enumerate(names)}
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    history = model.fit(inputs, likes, epochs=20, batch_size=50, verbose=0)
    assert history.history["loss"][-1] < 0.3
    expected = model.predict(inputs, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "inputs.npz", **inputs)
    program = (
        "import sys, keras, keras_embcomp, numpy as np\n"
        "folder = sys.argv[1]\n"
        "model = keras.models.load_model(folder + '/model.keras')\n"
        "inputs = dict(np.load(folder + '/inputs.npz'))\n"
        "np.save(folder + '/found.npy', model.predict(inputs, verbose=0))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), expected)


@pytest.mark.tensorflow_only
def test_features_are_the_same_in_files(tmp_path, generator):
    model = recommender(["user", "item"])
    ids = {
        name: generator.integers(-(2**63), 2**63 - 1, 50)
        for name in ("user", "item")
    }
    expected = model.predict(ids, verbose=0)
    written = export_litert(model, tmp_path / "a.tflite", samples=ids)
    assert written.max_difference < 1e-6
    import tensorflow as tf

    served = export_serving(model, tmp_path / "served")
    found = tf.saved_model.load(str(served)).signatures["serving_default"](
        **{name: tf.constant(one) for name, one in ids.items()}
    )
    np.testing.assert_allclose(
        next(iter(found.values())), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.tensorflow_only
def test_strings_are_hashed_first():
    import tensorflow as tf

    layer = features()
    words = tf.constant([["ann"], ["bob"]])
    numbers = tf.strings.to_hash_bucket_fast(words, 2**63 - 1)
    found = layer({"user": words, "item": numbers})
    expected = layer({"user": numbers, "item": words})
    for name in ("user", "item"):
        np.testing.assert_array_equal(found[name], expected[name])


def ngram_ids(layer, row):
    """Hashes in Python's integers."""
    longest = max(layer.orders)
    generator = np.random.default_rng(layer.seed)
    table = generator.integers(
        0, layer.num_ids, (longest, 8, 256, len(layer.orders))
    )
    padded = [-1] * (longest - 1) + [int(number) for number in row]
    found = []
    for place in range(longest - 1, len(padded)):
        hashed = []
        for column, order in enumerate(layer.orders):
            total = sum(
                int(table[back, number, byte, column])
                for back in range(order)
                for number, byte in enumerate(bytes_of(padded[place - back]))
            )
            hashed.append(total % layer.num_ids)
        found.append(hashed)
    return np.array(found)


@pytest.mark.parametrize("orders", [(2, 3), (4,), (2,)])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_n_grams_are_hashed(orders, length, generator):
    layer = NGramIds(1_000, orders)
    ids = generator.integers(0, 70_000, (3, length)).astype("int32")
    found = ops.convert_to_numpy(layer(ids))
    assert found.dtype == np.int32
    for row, own in zip(ids, found, strict=True):
        np.testing.assert_array_equal(own, ngram_ids(layer, row))


def test_n_grams_share_as_often_as_the_law_says(generator):
    layer = NGramIds(500, (2,))
    ids = generator.choice(4_000_000, 40_000, replace=False).astype("int32")
    found = ops.convert_to_numpy(layer(ids.reshape(-1, 2)))[:, 1, 0]
    counts = np.bincount(found, minlength=500)
    pairs = np.sum(counts * (counts - 1)) / (20_000 * 19_999)
    assert abs(pairs - 1 / 500) < 0.02 / 500


def test_a_model_with_n_grams_knows_what_came_before(generator, tmp_path):
    """The next word is a function of the last two that no unigram shows."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    found = NGramIds(400, (2,))(ids)
    rows = HashedEmbedding(400, 8, 300, num_parts=2)(found)
    logits = keras.layers.Dense(7)(keras.ops.sum(rows, axis=2))
    model = keras.Model(ids, logits)
    words = generator.integers(0, 7, (300, 12)).astype("int32")
    following = (words + np.roll(words, 1, axis=1)) % 7
    following[:, 0] = 0
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss)
    model.fit(words, following, epochs=15, verbose=0)
    assert model.evaluate(words, following, verbose=0) < 0.5
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    pair = (model.predict(one, verbose=0) for one in (words[:2], words[:2]))
    np.testing.assert_array_equal(*pair)
    np.testing.assert_array_equal(
        again.predict(words[:2], verbose=0), model.predict(words[:2], verbose=0)
    )


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("length", [None, 6])
def test_n_grams_are_the_same_in_files(length, tmp_path):
    ids = keras.Input((length,), dtype="int32", name="ids")
    rows = HashedEmbedding(400, 8, 300, num_parts=2)(NGramIds(400)(ids))
    written = export_litert(keras.Model(ids, rows), tmp_path / "a.tflite")
    assert written.max_difference == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"orders": ()}, "`orders` must be integers above 1"),
        ({"orders": (1, 2)}, "`orders` must be integers above 1"),
        ({"orders": (2.5,)}, "`orders` must be a positive integer"),
        ({"num_ids": 0}, "`num_ids` must be a positive integer"),
        ({"num_ids": 2**30}, "`num_ids` must be below 2..31 / 24"),
    ],
)
def test_n_grams_refuse_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        NGramIds(**{"num_ids": 100, **arguments})
    with pytest.raises(ValueError, match="Ids must be integers"):
        NGramIds(100)(np.ones((2, 3), "float32"))
