"""`resize_vocabulary` on every method."""

import keras
import numpy as np
import pytest
from contract import assert_equal
from keras import ops

from keras_embcomp import (
    DistilledEmbedding,
    GroupReduceEmbedding,
    GroupReduceSoftmax,
    HashedEmbedding,
    HashedSoftmax,
    LowRankEmbedding,
    LowRankSoftmax,
    ProductQuantizedEmbedding,
    ProductQuantizedSoftmax,
    TrellisCodedEmbedding,
    TrellisCodedSoftmax,
    TTEmbedding,
    TTSoftmax,
    resize_vocabulary,
)

WORDS, WIDTH = 60, 8
EMBEDDINGS = {
    "low rank": LowRankEmbedding(WORDS, WIDTH, 3, name="words"),
    "distilled": DistilledEmbedding(WORDS, WIDTH, 3, hidden_dim=5),
    "codes": ProductQuantizedEmbedding(
        WORDS, WIDTH, 3, 2, codebook_size=20, num_kept=7
    ),
    "codes, int8": ProductQuantizedEmbedding(
        WORDS, WIDTH, 3, 2, codebook_size=20, factors_dtype="int8"
    ),
    "low rank, int4": LowRankEmbedding(WORDS, WIDTH, 3),
    "strings": TrellisCodedEmbedding(WORDS, WIDTH, 3, state_bits=6),
    "strings, int8": TrellisCodedEmbedding(
        WORDS, WIDTH, (4, 2, 0), (20, 30, 10), factors_dtype="int8"
    ),
}
# What a table may lose if its factors get other scales.
RESIZED = {"int8": 0.02, "int4": 0.2, "int2": 0.5, "ternary": 0.5}
SOFTMAXES = {
    "low rank softmax": LowRankSoftmax(WORDS, 3),
    "codes softmax": ProductQuantizedSoftmax(WORDS, 3, 2, codebook_size=20),
    "strings softmax": TrellisCodedSoftmax(WORDS, (4, 2), (20, 40)),
}


@pytest.fixture(params=[*EMBEDDINGS, *SOFTMAXES])
def layer(request, generator):
    name = request.param
    source = {**SOFTMAXES, **EMBEDDINGS}[name]
    layer = source.__class__.from_config(source.get_config())
    layer.build((None, WIDTH))
    for weight in layer.trainable_weights:
        weight.assign(generator.normal(size=weight.shape))
    if "int4" in name:
        layer.quantize("int4")
    return layer


@pytest.mark.parametrize("size", [25, 60, 83])
def test_known_words_keep_their_rows_and_new_ones_are_like_others(layer, size):
    table = layer.to_dense()
    like = np.arange(size - WORDS) % 5 if size > WORDS else None
    new = resize_vocabulary(layer, size, like=like)
    assert new.dense_shape == (size, WIDTH)
    assert new.name == layer.name
    kept = min(size, WORDS)
    found = new.to_dense()
    np.testing.assert_allclose(found[:kept], table[:kept], atol=1e-5)
    if like is not None:
        np.testing.assert_allclose(found[kept:], table[like], atol=1e-5)
    if getattr(layer, "use_bias", False):
        bias = ops.convert_to_numpy(new.bias)[:kept]
        assert_equal(bias, layer.bias[:kept])


def test_new_words_start_near_the_mean(layer):
    table = layer.to_dense()
    new = resize_vocabulary(layer, WORDS + 2).to_dense()
    distances = np.linalg.norm(table - table.mean(axis=0), axis=1)
    for row in new[WORDS:]:
        np.testing.assert_allclose(row, table[np.argmin(distances)], atol=1e-5)


@pytest.mark.parametrize("size", [20, 61, 64, 90])
@pytest.mark.parametrize("layer_class", [TTEmbedding, TTSoftmax])
def test_tensor_trains_grow_by_slices(layer_class, size, tmp_path):
    shape = ((4, 4, 4), (2, 2, 2))  # room for 64 words
    if layer_class is TTEmbedding:
        layer = TTEmbedding(WORDS, WIDTH, tt_ranks=8, tt_shape=shape)
    else:
        layer = TTSoftmax(WORDS, tt_ranks=(3, 2), tt_shape=shape)
    layer.build((None, WIDTH))
    table = layer.to_dense()
    new = resize_vocabulary(layer, size, like=17)
    assert new.dense_shape == (size, WIDTH)
    kept, found = min(size, WORDS), new.to_dense()
    np.testing.assert_allclose(found[:kept], table[:kept], atol=1e-5)
    if size > 64:  # 17 is the second of the second slice of 16
        np.testing.assert_allclose(found[64:80], table[16:32], atol=1e-5)


def test_a_resized_layer_goes_on_training(tmp_path):
    layer = LowRankEmbedding(WORDS, WIDTH, 3)
    layer.build()
    new = resize_vocabulary(layer, WORDS + 5)
    ids = keras.Input((4,), dtype="int32")
    model = keras.Model(ids, new(ids))
    model.compile("adam", "mse")
    x = np.full((8, 4), WORDS + 4)
    before = new.to_dense()
    model.fit(x, np.ones((8, 4, WIDTH)), verbose=0)
    assert not np.array_equal(new.to_dense()[-1], before[-1])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal(loaded(x), model(x))


@pytest.mark.parametrize("mode", ["int8", "int4", "int2", "ternary"])
@pytest.mark.parametrize("sizes", [(60, 300), (300, 60), (300, 310)])
@pytest.mark.parametrize("name", ["low rank", "distilled", "tensor train"])
def test_a_quantized_layer_can_be_resized(name, sizes, mode, generator):
    """Also where scales of columns begin to be worth their bytes, or cease."""
    words, size = sizes
    layer = {
        "low rank": lambda: LowRankEmbedding(words, WIDTH, 3),
        "distilled": lambda: DistilledEmbedding(words, WIDTH, 3, hidden_dim=5),
        "tensor train": lambda: TTEmbedding(
            words, WIDTH, tt_ranks=3, num_cores=2
        ),
    }[name]()
    layer.build()
    for weight in layer.trainable_weights:
        weight.assign(generator.normal(size=weight.shape))
    layer.quantize(mode)
    table = layer.to_dense()
    new = resize_vocabulary(layer, size, like=5)
    assert new.quantization_mode == mode
    assert new.dtype_policy == layer.dtype_policy
    kept = min(words, size)
    lost = np.linalg.norm(new.to_dense()[:kept] - table[:kept])
    share = lost / np.linalg.norm(table[:kept])
    if sizes == (300, 310):
        np.testing.assert_allclose(share, 0, atol=1e-6)
    # A factor is rounded once more, at most; there are up to three.
    assert share < RESIZED[mode]
    if name != "tensor train" and mode in ("int8", "int4"):
        row = np.broadcast_to(table[5], new.to_dense()[kept:].shape)
        error = np.linalg.norm(new.to_dense()[kept:] - row)
        assert error <= 0.3 * np.linalg.norm(row)


def test_a_layer_that_is_trained_as_if_quantized_can_be_resized(generator):
    layer = LowRankEmbedding(WORDS, WIDTH, 3)
    layer.build()
    layer.fake_quantize("int4")
    new = resize_vocabulary(layer, 400, like=3)
    assert new.fake_quantization == layer.fake_quantization
    new.quantize("int4")
    assert new.to_dense().shape == (400, WIDTH)


@pytest.mark.parametrize("side", ["embedding", "softmax"])
@pytest.mark.parametrize("size", [20, WORDS, 90])
def test_words_stay_in_their_groups(size, side, generator):
    sizes, ranks = (20, 30, 10), (6, 2, 3)
    if side == "embedding":
        layer = GroupReduceEmbedding(WORDS, WIDTH, sizes, ranks, permuted=True)
    else:
        layer = GroupReduceSoftmax(WORDS, sizes, ranks, permuted=True)
    layer.build((None, WIDTH))
    for weight in layer.trainable_weights:
        weight.assign(generator.normal(size=weight.shape))
    layer.places.assign(generator.permutation(WORDS))
    new = resize_vocabulary(layer, size, like=7)
    rows = np.arange(size)
    rows[WORDS:] = 7
    table = layer.to_dense()[rows]
    np.testing.assert_allclose(new.to_dense(), table, atol=1e-5)
    if side == "softmax":
        np.testing.assert_array_equal(new.bias, np.asarray(layer.bias)[rows])
    again = type(new).from_config(new.get_config())
    again.build((None, WIDTH))
    again.set_weights(new.get_weights())
    np.testing.assert_array_equal(again.to_dense(), new.to_dense())


@pytest.mark.parametrize("layer_class", [HashedEmbedding, HashedSoftmax])
def test_a_hashed_table_is_fitted_again(layer_class, generator):
    """Its rows follow from the vocabulary: it says how far it is."""
    shape = (WORDS, WIDTH) if layer_class is HashedEmbedding else (WORDS,)
    layer = layer_class(*shape, 200, num_parts=4)
    layer.build((None, WIDTH))
    layer.subvectors.assign(generator.normal(size=layer.subvectors.shape))
    like = {WORDS: {3: 0.25, 4: 0.75}}
    with pytest.warns(UserWarning, match="was fitted again. Its relative err"):
        new = resize_vocabulary(layer, WORDS + 1, like=like)
    wanted = layer.to_dense()
    wanted = np.vstack([wanted, 0.25 * wanted[3] + 0.75 * wanted[4]])
    lost = np.linalg.norm(new.to_dense() - wanted) / np.linalg.norm(wanted)
    assert lost < 0.8  # 200 of 240 sub-vectors, which are noise here


@pytest.mark.parametrize("mode", [None, "int8"])
@pytest.mark.parametrize(
    "name",
    [
        "low rank",
        "low rank softmax",
        "codes",
        "strings",
        "grouped",
        "distilled",
    ],
)
def test_new_words_start_as_weighted_neighbours(name, mode, generator):
    layers = {
        **EMBEDDINGS,
        "low rank softmax": SOFTMAXES["low rank softmax"],
        "grouped": GroupReduceEmbedding(WORDS, WIDTH, (20, 40), (8, 4)),
    }
    source = layers[name]
    layer = type(source).from_config(source.get_config())
    layer.build((None, WIDTH))
    for weight in layer.trainable_weights:
        weight.assign(generator.normal(size=weight.shape))
    if mode and name not in ("codes", "strings"):
        layer.quantize(mode)
    table = layer.to_dense()
    like = {WORDS: {30: 0.7, 41: 0.3}, WORDS + 2: 33}
    new = resize_vocabulary(layer, WORDS + 3, like=like).to_dense()
    np.testing.assert_allclose(new[:WORDS], table, atol=1e-6)
    np.testing.assert_allclose(new[WORDS + 2], table[33], atol=1e-6)
    wanted = 0.7 * table[30] + 0.3 * table[41]
    lost = np.linalg.norm(new[WORDS] - wanted) / np.linalg.norm(wanted)
    if name in ("low rank", "low rank softmax", "grouped"):
        assert lost < (0.03 if mode else 1e-5)
    else:  # the nearest that codes or a decoder can say
        assert lost < np.linalg.norm(table[30] - wanted) / np.linalg.norm(
            wanted
        )
    if name == "low rank softmax":
        model_bias = resize_vocabulary(layer, WORDS + 3, like=like).bias
        bias = np.asarray(layer.bias)
        np.testing.assert_allclose(
            np.asarray(model_bias)[WORDS], 0.7 * bias[30] + 0.3 * bias[41]
        )


def test_refuses_what_cannot_be():
    layer = LowRankEmbedding(WORDS, WIDTH, 3)
    with pytest.raises(
        ValueError, match="must be a built compressed layer, or a"
    ):
        resize_vocabulary(layer, 70)
    layer.build()
    for like, message in (
        ([1, 2], "one for each of the 10 new words"),
        (1.5, "one for each of the 10 new words"),
        (60, "ids below 60. Received: ids from 60 to 60"),
    ):
        with pytest.raises(ValueError, match=message):
            resize_vocabulary(layer, 70, like=like)
    with pytest.raises(ValueError, match="`new_size` must be a positive"):
        resize_vocabulary(layer, 0)
    for like, message in (
        ({59: 3}, "new ids from 60 to 69. Received: 59"),
        ({60: {}}, "known ids with weights"),
        ({60: {1.5: 1.0}}, "known ids with weights"),
        ({60: {60: 1.0}}, "ids below 60. Received: ids from 60 to 60"),
        ({60: {6: float("nan")}}, "finite weights"),
    ):
        with pytest.raises(ValueError, match=message):
            resize_vocabulary(layer, 70, like=like)
    train = TTEmbedding(WORDS, WIDTH, tt_ranks=3, num_cores=2)
    train.build()
    with pytest.raises(ValueError, match="starts as one known word"):
        resize_vocabulary(train, 70, like={61: {3: 0.5, 4: 0.5}})
