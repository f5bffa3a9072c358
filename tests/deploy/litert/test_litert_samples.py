"""Files that compute in 8 bits, by the ranges of representative data."""

import keras
import numpy as np
import pytest

from keras_embcomp import LowRankEmbedding, export_litert

pytestmark = pytest.mark.tensorflow_only


def classifier():
    ids = keras.Input((None,), dtype="int32", name="ids")
    bias = keras.Input((4,), name="bias")
    words = LowRankEmbedding(2_000, 32, 16)(ids)
    pooled = keras.layers.GlobalAveragePooling1D()(words)
    scores = keras.layers.Dense(4)(pooled)
    return keras.Model(
        [ids, bias], keras.layers.Add(name="sum")([scores, bias])
    )


def samples(count=8):
    generator = np.random.default_rng(0)
    return [
        (
            generator.integers(0, 2_000, (2, 24)),
            generator.normal(size=(2, 4)),
        )
        for _ in range(count)
    ]


def export(data, path, table_format="int8", **kwargs):
    return export_litert(
        classifier(), path, table_format, representative_data=data, **kwargs
    )


def test_computes_in_8_bits_near_the_model(tmp_path):
    path = tmp_path / "a.tflite"
    by_order = export(samples(), path)
    assert 1e-4 < by_order.error < 0.1
    assert by_order.bytes < 2_000 * 16 + 12_000
    assert "QUANTIZE" in by_order.operations
    by_name = export(
        ({"ids": ids, "bias": bias} for ids, bias in samples()), path
    )
    assert by_name.bytes == by_order.bytes


@pytest.mark.parametrize(
    "data, message",
    [
        (7, "must be an iterable of samples. Received: .*=7"),
        ([], "must have samples. Received: none"),
        ([np.zeros((2, 24), "int32")], "be samples of 2 inputs, ids, bias"),
        ([{"words": 1}], "have the names of the inputs, ids, bias. .* words"),
        ([(np.zeros((2, 3)), np.zeros((2, 4)))], "integers for ids. .* float"),
        (
            [(np.zeros((2, 3), int), np.zeros((2, 5)))],
            r"have the shape \(None, 4\) for bias. Received: shape \(2, 5\)",
        ),
        ([("text", np.zeros((2, 4)))], "must have .* for ids"),
        ([([[1], [1, 2]], np.zeros((2, 4)))], "arrays of int32 for ids"),
    ],
)
def test_other_data_are_refused(data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(data, tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())


def test_other_formats_and_signatures_are_refused(tmp_path):
    path = tmp_path / "a.tflite"
    message = "must come with table_format='int8' and without `signatures`"
    with pytest.raises(ValueError, match=message):
        export(samples(), path, "int4")
    with pytest.raises(ValueError, match=message):
        export(samples(), path, signatures={"again": classifier()})
