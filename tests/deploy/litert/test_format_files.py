"""Files of layers whose factors have 8 bits or fewer."""

import keras
import pytest
from random_layers import BOTH_IN_TURN, made, model_of, quantize

import keras_embcomp

pytestmark = [
    pytest.mark.tensorflow_only,
    # Keras' `model.quantize` says so of each layer that has no weights.
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not"),
]


@BOTH_IN_TURN
def test_exports_equal_keras(case, mode, tmp_path):
    model = model_of(case, made(case))
    quantize(model, mode)
    written = keras_embcomp.export_litert(model, tmp_path / "model.tflite")
    # A file's products with integers round the hidden states to 8 bits, too.
    rounds = isinstance(
        model.layers[-1],
        (keras_embcomp.LowRankSoftmax, keras_embcomp.GroupReduceSoftmax),
    )
    assert written.max_difference < (0.05 if rounds else 1e-4)
    keras_embcomp.export_serving(model, tmp_path / "served")


@pytest.mark.parametrize(
    "cls, structure, numbers, fixed",
    [
        ("LowRank", {"rank": 32}, 32 * 20_000, 32 * 256),
        ("TT", {"tt_ranks": 32}, None, 0),
        ("Hashed", {"num_subvectors": 20_000}, 20_000 * 32, 0),
        (
            "ProductQuantized",
            {"num_parts": 8, "part_width": 32, "num_kept": 1_000},
            1_000 * 256,
            8 * 20_000 + 2**17,  # codes, codebooks and projection
        ),
    ],
)
@pytest.mark.parametrize(
    "mode, share",
    [("int8", 1), ("int4", 0.5), ("int2", 0.25), ("ternary", 0.2)],
)
def test_files_are_as_small_as_the_format(
    cls, structure, numbers, fixed, mode, share, tmp_path
):
    layer = getattr(keras_embcomp, f"{cls}Embedding")(20_000, 256, **structure)
    entry = keras.Input((4,), dtype="int32")
    model = keras.Model(entry, layer(entry))
    least = fixed + share * (numbers or layer.count_params())
    quantize(model, mode)
    written = keras_embcomp.export_litert(model, tmp_path / "model.tflite")
    assert least < written.bytes < 1.1 * least + 40_000
    served = keras_embcomp.export_serving(model, tmp_path / "served")
    stored = sum(p.stat().st_size for p in served.glob("variables/*"))
    assert least < stored < 1.1 * least + 40_000
