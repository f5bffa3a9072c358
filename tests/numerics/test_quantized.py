"""Numbers in bytes: made by hand, and by a loop that packs nothing."""

import numpy as np
import pytest
from keras import ops

from keras_embcomp.numerics.quantized import (
    MODES,
    Format,
    fitted_scales,
    packed,
    rounded,
    scales_of,
    unpacked,
)

LEVELS = {
    "int8": np.arange(-127, 128),
    "int4": np.arange(-8, 8),
    "int2": np.array([-1.5, -0.5, 0.5, 1.5]),
    "ternary": np.array([-1, 0, 1]),
}
every_mode = pytest.mark.parametrize("mode", MODES)


def restored(table, form):
    """Returns what is left of a table, and its bytes."""
    scales, steps = fitted_scales(table, form)
    scales = scales_of(scales, steps, form, table.shape[1])
    numbers = ops.convert_to_numpy(rounded(table, scales, form))
    codes = packed(numbers, form)
    found = unpacked(codes, form, table.shape[1]) * scales
    return ops.convert_to_numpy(found), codes


def test_every_mode_has_levels_here():
    assert set(LEVELS) == set(MODES)


@every_mode
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 6, 7, 11, 16, 129])
def test_bytes_give_back_every_number(mode, columns, generator):
    form = Format(mode, None)
    numbers = generator.choice(LEVELS[mode], (40, columns)).astype("float32")
    codes = packed(numbers, form)
    assert codes.shape == (40, form.packed_width(columns))
    assert codes.itemsize == 1
    found = unpacked(codes, form, columns)
    np.testing.assert_array_equal(found, numbers)


def test_four_numbers_and_five_are_in_a_byte():
    quarters = np.array([[0.5, -1.5, 1.5, -0.5, 1.5, 0.5, -0.5]], "float32")
    # Two columns a part: 0.5 1.5 1.5 -0.5 and -1.5 -0.5 0.5.
    expected = [[2 + 4 * 3 + 16 * 3 + 64 * 1, 0 + 4 * 1 + 16 * 2]]
    found = packed(quarters, Format("int2", None))
    np.testing.assert_array_equal(found, expected)
    fifths = np.array([[1, -1, 0, 0, 1, -1]], "float32")
    # Two columns a part: 1 0 1 and -1 0 -1.
    expected = [[2 + 3 * 1 + 9 * 2, 0 + 3 * 1 + 9 * 0]]
    found = packed(fifths, Format("ternary", None))
    np.testing.assert_array_equal(found, expected)


def test_every_byte_of_ternary_numbers_is_read_right():
    codes = np.arange(243, dtype="uint8")[:, None]
    digits = [[code // 3**k % 3 - 1 for k in range(5)] for code in range(243)]
    found = unpacked(codes, Format("ternary", None), 5)
    np.testing.assert_array_equal(found, digits)


@every_mode
def test_each_number_becomes_the_nearest_level(mode, generator):
    rows = generator.normal(size=(30, 8)).astype("float32")
    scales = np.float32(0.3)
    found = rounded(rows, scales, Format(mode, None))
    distances = np.abs(rows[..., None] / scales - LEVELS[mode])
    expected = LEVELS[mode][distances.argmin(-1)]
    np.testing.assert_array_equal(found, expected)


# Of a normal distribution, with the best scale for all of it: 0.344 and 0.436
# (Max, 1960). A scale for each block may be better or worse.
@pytest.mark.parametrize(
    "mode, block, least, most",
    [
        ("int2", 128, 0.335, 0.345),
        ("int2", 32, 0.32, 0.333),
        ("ternary", 128, 0.425, 0.437),
        ("ternary", 32, 0.415, 0.426),
    ],
)
def test_errors_are_those_of_the_best_quantizer(
    mode, block, least, most, generator
):
    table = generator.normal(size=(500, 256)).astype("float32")
    found, codes = restored(table, Format(mode, block))
    assert least < np.linalg.norm(found - table) / np.linalg.norm(table) < most
    in_byte = {"int2": 4, "ternary": 5}[mode]
    assert codes.nbytes == 500 * -(-256 // in_byte)


@every_mode
@pytest.mark.parametrize("columns", [6, 64])
def test_blocks_and_rows_of_zeros_stay_so(mode, columns, generator):
    table = generator.normal(size=(600, columns)).astype("float32")
    table[7] = 0
    table[:, 3] = 0
    table[9, 4:] = 0
    found, _ = restored(table, Format(mode, 4))
    assert np.isfinite(found).all()
    if columns > 6:  # else only columns have scales
        assert np.abs(found[7]).max() < 1e-4
        assert np.abs(found[9, 4:]).max() < 1e-4
    else:
        assert not found[:, 3].any()
