"""The loss without logits is that of the logits, and has its gradients."""

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from gradients import MODES, value_and_gradients, values_and_gradients
from keras import ops
from random_layers import BOTH_IN_TURN, with_one_of

from keras_embcomp import (
    GroupReduceEmbedding,
    LowRankSoftmax,
    TTSoftmax,
    compressed_crossentropy,
)
from keras_embcomp.training.crossentropy import log_uniform_units

every_case = pytest.mark.parametrize("case", [*SOFTMAXES, *EMBEDDINGS], ids=str)
every_mode = pytest.mark.parametrize("mode", MODES)


def built(case, **kwargs):
    if case in SOFTMAXES:
        sizes = (VOCABULARY,)
        kwargs = {"bias_initializer": "normal", **kwargs}
    else:
        sizes = (VOCABULARY, WIDTH)
    layer = case.layer(*sizes, **{**case.structure, **kwargs})
    layer.build((None, WIDTH))
    return layer


def some_hidden(generator, *shape):
    return generator.normal(size=(*shape, WIDTH)).astype("float32")


def some_labels(generator, *shape):
    return generator.integers(0, VOCABULARY, shape).astype("int32")


def of_logits(layer, hidden, labels, label_smoothing=0.0):
    """Returns what Keras makes of the logits."""
    logits = layer._logits(hidden)
    if layer.bias is not None:
        logits = logits + layer.bias
    return keras.losses.categorical_crossentropy(
        ops.one_hot(labels, VOCABULARY),
        logits,
        from_logits=True,
        label_smoothing=label_smoothing,
    )


def check_close(found, expected, **tolerance):
    found, expected = map(ops.convert_to_numpy, (found, expected))
    np.testing.assert_allclose(found, expected, **tolerance)


@every_case
def test_is_the_loss_of_the_logits_with_its_gradients(case, generator):
    layer = built(case)
    for weight in layer.trainable_variables:
        weight.assign(0.4 * generator.normal(size=weight.shape))
    hidden, labels = some_hidden(generator, 5, 3), some_labels(generator, 5, 3)
    each = generator.normal(size=(5, 3)).astype("float32")

    def weighed(loss):
        return lambda hidden, labels, each: each * loss(hidden, labels)

    # Both sides share the loop: tied layers are compiled in one way only.
    modes = MODES if case in SOFTMAXES else MODES[-1:]
    arguments = layer.trainable_variables, hidden, (labels, each)
    expected = value_and_gradients(
        weighed(lambda *inputs: of_logits(layer, *inputs, 0.1)),
        *arguments,
        # JAX compiles each step of an eager function by itself.
        mode="jit" if "jit" in MODES else "eager",
    )
    found = values_and_gradients(
        weighed(
            lambda *inputs: compressed_crossentropy(
                layer, *inputs, label_smoothing=0.1, block_size=50
            )
        ),
        *arguments,
        modes,
    )
    for mode in modes:
        for ours, theirs in zip(found[mode], expected, strict=True):
            scale = max(1, np.max(np.abs(theirs)))
            check_close(ours, theirs, atol=1e-5 * scale, err_msg=mode)


@pytest.mark.parametrize("block_size", [None, 1, 64, VOCABULARY, 10**6])
def test_blocks_of_any_size_give_one_loss(block_size, generator):
    layer = LowRankSoftmax(VOCABULARY, 4, bias_initializer="normal")
    layer.build((None, WIDTH))
    hidden, labels = some_hidden(generator, 6), some_labels(generator, 6)
    found = compressed_crossentropy(
        layer, hidden, labels, block_size=block_size
    )
    expected = of_logits(layer, hidden, labels)
    check_close(found, expected, rtol=1e-5)


def test_groups_of_any_ids_find_their_biases(generator):
    table = generator.normal(size=(VOCABULARY, WIDTH)).astype("float32")
    case = next(c for c in SOFTMAXES if "group_sizes" in c.structure)
    layer = case.layer.from_dense(
        table,
        **case.structure,
        bias=generator.normal(size=VOCABULARY),
        frequencies=generator.random(VOCABULARY),
    )
    assert layer.permuted
    hidden, labels = some_hidden(generator, 6), some_labels(generator, 6)
    found = compressed_crossentropy(layer, hidden, labels, block_size=50)
    expected = of_logits(layer, hidden, labels)
    check_close(found, expected, rtol=1e-5)
    tied = GroupReduceEmbedding.from_dense(
        table, **case.structure, frequencies=generator.random(VOCABULARY)
    )
    found = compressed_crossentropy(tied, hidden, labels, block_size=50)
    check_close(found, of_logits(tied, hidden, labels), rtol=1e-5)


@pytest.mark.parametrize(
    "tt_shape", [((4, 90), (3, 4)), ((2, 2, 2, 40), (2, 1, 2, 3))]
)
def test_tensor_trains_of_other_shapes(tt_shape, generator, monkeypatch):
    monkeypatch.setattr(
        "keras_embcomp.numerics.tensor_train.lookups._BLOCK", 50
    )
    layer = TTSoftmax(VOCABULARY, tt_ranks=2, tt_shape=tt_shape)
    layer.build((None, WIDTH))
    hidden, labels = some_hidden(generator, 6), some_labels(generator, 6)
    found = compressed_crossentropy(layer, hidden, labels, block_size=60)
    expected = of_logits(layer, hidden, labels)
    check_close(found, expected, rtol=1e-5)


@BOTH_IN_TURN
def test_quantized_layers_have_a_loss(case, mode, generator):
    layer = built(case)
    layer.quantize(mode)
    hidden, labels = some_hidden(generator, 6), some_labels(generator, 6)
    found = compressed_crossentropy(layer, hidden, labels, block_size=50)
    expected = of_logits(layer, hidden, labels)
    check_close(found, expected, rtol=1e-4)


def test_rounding_passes_gradients_to_the_blocks(generator):
    layer = LowRankSoftmax(VOCABULARY, 4)
    layer.build((None, WIDTH))
    layer.fake_quantize("int8")
    hidden, labels = some_hidden(generator, 6), some_labels(generator, 6)
    arguments = layer.trainable_variables, hidden, (labels,)
    expected, found = (
        value_and_gradients(lambda *x, f=f: f(layer, *x), *arguments)
        for f in (of_logits, compressed_crossentropy)
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_half_precision_is_summed_in_float32(generator):
    layer = LowRankSoftmax(60_000, 4, dtype="float16")
    layer.build((None, WIDTH))
    hidden = np.zeros((2, WIDTH), "float32")
    found = compressed_crossentropy(layer, hidden, np.array([3, 59_999]))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    check_close(found, np.log(60_000), rtol=1e-5)


@every_case
def test_samples_estimate_the_loss(case, generator):
    layer = built(case)
    hidden, labels = some_hidden(generator, 6), some_labels(generator, 6)
    found = compressed_crossentropy(
        layer, hidden, labels, num_sampled=20_000, seed=1
    )
    expected = of_logits(layer, hidden, labels)
    check_close(found, expected, atol=0.06)
    few = [
        ops.convert_to_numpy(
            compressed_crossentropy(
                layer, hidden, labels, num_sampled=8, seed=seed
            )
        )
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(few[0], few[1])
    assert not np.array_equal(few[0], few[2])


def test_units_are_drawn_as_often_as_it_is_said():
    drawn, log_counts = log_uniform_units(9, 300_000, 0)
    drawn, log_counts = map(ops.convert_to_numpy, (drawn, log_counts))
    counts = np.bincount(drawn, minlength=9)
    said = dict(zip(drawn, np.exp(log_counts), strict=True))
    np.testing.assert_allclose(counts, [said[i] for i in range(9)], rtol=0.02)


@every_mode
def test_a_label_out_of_range_is_refused_or_nan(mode, generator):
    layer = LowRankSoftmax(VOCABULARY, 4)
    layer.build((None, WIDTH))
    hidden = some_hidden(generator, 3)
    labels = np.array([-1, 5, VOCABULARY], "int32")

    def losses():
        return value_and_gradients(
            lambda *inputs: compressed_crossentropy(layer, *inputs),
            layer.trainable_variables,
            hidden,
            (labels,),
            mode,
        )[0]

    if mode == "eager":
        with pytest.raises(ValueError) as error:
            losses()
        assert str(error.value) == (
            "`labels` must be from 0 to 306. Received: labels from -1 to 307"
        )
    else:
        np.testing.assert_array_equal(np.isnan(losses()), [True, False, True])


def test_says_what_is_wrong(generator):
    layer = LowRankSoftmax(VOCABULARY, 4)
    hidden, labels = some_hidden(generator, 3), some_labels(generator, 3)
    with pytest.raises(ValueError, match="`head` must be built"):
        compressed_crossentropy(layer, hidden, labels)
    layer.build((None, WIDTH))
    for wrong in (
        (hidden[:, 1:], labels),
        (hidden, labels[:2]),
        (hidden, labels[:, None]),
    ):
        with pytest.raises(ValueError, match="`hidden` must have the width"):
            compressed_crossentropy(layer, *wrong)
    with pytest.raises(ValueError, match="`labels` must be integers"):
        compressed_crossentropy(layer, hidden, labels.astype("float32"))
    with pytest.raises(ValueError, match="`hidden` must be a tensor with"):
        compressed_crossentropy(layer, keras.Input((WIDTH,)), labels)
    for options, message in (
        ({"label_smoothing": 1}, "`label_smoothing` must be from 0, and below"),
        ({"num_sampled": 0}, "`num_sampled` must be a positive integer"),
        ({"block_size": 0}, "`block_size` must be a positive integer"),
        (
            {"label_smoothing": 0.1, "num_sampled": 5},
            "`label_smoothing` must be 0 with `num_sampled`",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            compressed_crossentropy(layer, hidden, labels, **options)


DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")


@pytest.mark.parametrize("dtype", [*DTYPES, "uint64"])
@pytest.mark.parametrize("units", [256, 307, 70_000])
def test_labels_of_every_integer_type_have_the_loss_of_keras(
    units, dtype, generator
):
    """The bound is not a number of the labels' own type: 256 is not a uint8."""
    head = LowRankSoftmax(units, 3, activation=None)
    head.build((None, WIDTH))
    most = min(units - 1, np.iinfo(dtype).max)
    labels = np.array([0, most // 2, most], dtype)
    hidden = some_hidden(generator, 3)
    expected = keras.losses.sparse_categorical_crossentropy(
        labels.astype("int32"), head(hidden), from_logits=True
    )
    for found in (
        compressed_crossentropy(head, hidden, labels),
        -head.log_prob(hidden, labels),
    ):
        check_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_narrow_labels_have_the_loss_of_keras_when_compiled(
    dtype, compiled, generator
):
    head = LowRankSoftmax(307, 3, activation=None)
    head.build((None, WIDTH))
    labels = np.array([0, 51, 100], dtype)
    hidden = some_hidden(generator, 3)
    expected = compressed_crossentropy(head, hidden, labels.astype("int32"))
    function = compiled(
        lambda hidden, labels: compressed_crossentropy(head, hidden, labels)
    )
    check_close(function(hidden, labels), expected, rtol=1e-5)


# What is ignored is masked before a layer sees it: each has one of three.
@with_one_of([*SOFTMAXES, *EMBEDDINGS], "ignored", [-1, 7, VOCABULARY + 5])
def test_a_class_that_is_ignored_has_no_loss(case, ignored, generator):
    layer, hidden = built(case), some_hidden(generator, 4, 3)
    labels = some_labels(generator, 4, 3)
    labels[labels == ignored] += 1
    plain = compressed_crossentropy(layer, hidden, labels)
    left = labels.copy()
    left[1:3, 0] = ignored
    found = compressed_crossentropy(layer, hidden, left, ignore_class=ignored)
    expected = ops.convert_to_numpy(plain).copy()
    expected[1:3, 0] = 0
    check_close(found, expected, rtol=1e-6)
    mask = ops.convert_to_numpy(found._keras_mask)
    np.testing.assert_array_equal(mask, left != ignored)


def test_labels_and_the_class_to_ignore_are_checked(generator):
    head = LowRankSoftmax(9, 3)
    head.build((None, WIDTH))
    hidden = some_hidden(generator, 2)
    with pytest.raises(ValueError, match="Received: labels from -1 to 3"):
        compressed_crossentropy(head, hidden, np.array([-1, 3]))
    with pytest.raises(ValueError, match="Received: labels from 0 to 9"):
        compressed_crossentropy(
            head, hidden, np.array([-1, 9]), ignore_class=-1
        )
    with pytest.raises(ValueError, match="`ignore_class` must be an integer"):
        compressed_crossentropy(
            head, hidden, np.array([1, 2]), ignore_class=0.5
        )
