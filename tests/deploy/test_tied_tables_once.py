"""A table on both sides of a model is in every file once, in every format."""

import io
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import ops
from random_layers import FORMATS

from keras_embcomp import export_litert, export_serving
from keras_embcomp.layers.methods import METHODS

pytestmark = pytest.mark.tensorflow_only
ROWS, WIDTH = 6_000, 64
STRUCTURES = {
    "product_codes": {"num_parts": 32, "part_width": 2, "codebook_size": 64},
    "low_rank": {"rank": 64},
    "group_reduce": {"group_sizes": (2_000, 4_000), "group_ranks": (64, 64)},
    "distilled": {"rank": 64},
    "tensor_train": {"tt_ranks": 256, "num_cores": 2},
    "hashed": {"num_subvectors": 40_000, "num_parts": 8},
    "trellis_codes": {"group_bytes": 16},
}
SIDES = {method.name: method.embedding for method in METHODS}
# What is small beside the table may be in two orders: a core that the file
# gathers from and its transpose, and a projection and its transpose.
IN_TWO_ORDERS = {
    "tensor_train": 4 * 80 * 256 * 8,
    "product_codes": 4 * 64 * 64,
    "trellis_codes": 4 * 64 * 64,
}
# A block's scales of products, names, and what a file computes with.
MORE = 2 * ROWS + 20_000


def tied(layer):
    ids = keras.Input((2,), dtype="int32", name="ids")
    return keras.Model(ids, layer(layer(ids), reverse=True))


def bytes_of(layer):
    return sum(ops.convert_to_numpy(w).nbytes for w in layer.weights)


def bytes_in_keras_file(path):
    """Returns the bytes of all arrays in a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        content = archive.read("model.weights.h5")
    sizes = []

    def add(_, item):
        if isinstance(item, h5py.Dataset):
            sizes.append(item.size * item.dtype.itemsize)

    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(add)
    return sum(sizes)


def bytes_of_variables(folder):
    return sum(path.stat().st_size for path in folder.glob("variables/*.data*"))


@pytest.mark.parametrize("mode", [None, "int4", "ternary"])
@pytest.mark.parametrize("name", SIDES)
def test_a_compressed_table(name, mode, tmp_path):
    layer = SIDES[name](ROWS, WIDTH, **STRUCTURES[name])
    model = tied(layer)
    if mode is not None:
        layer.quantize(mode)
    held = bytes_of(layer)
    assert held > 2 * MORE
    model.save(tmp_path / "a.keras")
    assert bytes_in_keras_file(tmp_path / "a.keras") == held
    served = export_serving(model, tmp_path / "served")
    assert held <= bytes_of_variables(served) < held + 10_000
    written = export_litert(model, tmp_path / "a.tflite")
    # Ternary numbers that are multiplied are four a byte.
    most = 1.25 * held if mode == "ternary" else held
    if mode is None:
        most += IN_TWO_ORDERS.get(name, 0)
    assert 0.9 * held < written.bytes < most + MORE


@pytest.mark.parametrize("table_format", ["float32", "float16", *FORMATS])
def test_a_dense_table(table_format, tmp_path):
    layer = keras.layers.ReversibleEmbedding(ROWS, WIDTH)
    model = tied(layer)
    layer.set_weights([np.random.default_rng(0).normal(size=(ROWS, WIDTH))])
    model.save(tmp_path / "a.keras")
    assert bytes_in_keras_file(tmp_path / "a.keras") == 4 * ROWS * WIDTH
    served = export_serving(model, tmp_path / "served")
    assert bytes_of_variables(served) < 4 * ROWS * WIDTH + 10_000
    written = export_litert(model, tmp_path / "a.tflite", table_format)
    bits = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}
    held = bits.get(table_format, 2) * ROWS * WIDTH // 8
    assert held < written.bytes < held + 3 * ROWS + 12_000
