"""What is special to trellis codes."""

import itertools

import keras
import numpy as np
import pytest
from correlated import correlated_table, relative_error
from keras import ops

from keras_embcomp import (
    ProductQuantizedEmbedding,
    TrellisCodedEmbedding,
    TrellisCodedSoftmax,
)
from keras_embcomp.numerics.trellis import strings
from keras_embcomp.numerics.trellis.search import nearest_states

GROUPED = {"group_bytes": (4, 2), "group_sizes": (100, 200), "state_bits": 6}


def weighted_loss(layer, table, weights):
    return weights @ np.square(layer.to_dense() - table).sum(axis=1)


def held(layer):
    return sum(weight.nbytes for weight in layer.get_weights())


def states_of_string(string, bits, state_bits):
    """The window after each step, as text."""
    window, states = "0" * state_bits, []
    for new in bits:
        window, string = (window + string[:new])[-state_bits:], string[new:]
        states.append(int(window, 2))
    return states


@pytest.mark.parametrize("most", [1, 8, 13])
def test_states_that_are_packed_come_back(most, generator):
    bits = generator.integers(0, most + 1, 40)
    bits[-1] += -bits.sum() % 8  # up to 20 new bits: more than a state holds
    bits[-2] += bits[-1] // 2
    bits[-1] -= bits[-1] // 2
    state_bits = max(most, int(bits.max()))
    codes = generator.integers(0, 256, (50, bits.sum() // 8)).astype("uint8")
    states = strings.unpacked_states(codes, bits, state_bits)
    np.testing.assert_array_equal(strings.packed_states(states, bits), codes)
    text = "".join(f"{byte:08b}" for byte in codes[0])
    assert states[0].tolist() == states_of_string(text, bits, state_bits)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("bits", [(1, 2, 1, 2), (2, 0, 1, 0), (0, 2, 2, 2)])
def test_the_path_is_the_best_of_all_strings(bits, width, generator):
    values = generator.normal(size=(4, 8, width)).astype("float32")
    rows = generator.normal(size=(30, 4, width)).astype("float32")
    texts = map("".join, itertools.product("01", repeat=sum(bits)))
    paths = np.array([states_of_string(text, bits, 3) for text in texts])
    parts = values[np.arange(4), paths]
    lost = np.square(rows[:, None] - parts).sum(axis=(2, 3))
    found = nearest_states(rows, np.array(bits), values)
    np.testing.assert_array_equal(found, paths[lost.argmin(axis=1)])


def test_takes_tables_of_any_float_dtype(generator):
    table = correlated_table(generator, 300, 8)
    found = [
        TrellisCodedEmbedding.from_dense(
            table.astype(dtype), 4, state_bits=6
        ).to_dense()
        for dtype in ("float32", "float64")
    ]
    np.testing.assert_allclose(*found, atol=0.05)
    with pytest.raises(ValueError, match="finite"):
        TrellisCodedEmbedding.from_dense(np.full((9, 4), np.nan), 4)


def test_more_bytes_lose_less(generator):
    table = correlated_table(generator, 500, 16)
    errors = [
        relative_error(
            TrellisCodedEmbedding.from_dense(table, size, state_bits=6), table
        )
        for size in (1, 2, 4, 8)
    ]
    for more, fewer in itertools.pairwise(errors):
        assert fewer < 0.8 * more


def test_rows_of_no_bytes_are_the_mean(generator):
    table = generator.normal(size=(300, 8)).astype("float32")
    table[::3] *= 1e-3
    layer = TrellisCodedEmbedding.from_dense(
        table + 5, (4, 0), (200, 100), state_bits=6
    )
    rows = layer.to_dense()[::3]
    np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape))
    np.testing.assert_allclose(layer(np.arange(0, 300, 3)), rows, rtol=1e-5)
    assert np.abs(rows[0] - 5).max() < 0.3


def test_steps_of_a_byte_lose_less_than_product_codes(generator):
    table = correlated_table(generator, 1_200, 12)
    codes = ProductQuantizedEmbedding.from_dense(table, 3, 4)
    layer = TrellisCodedEmbedding.from_dense(
        table, 3, num_parts=3, part_width=4, step_bits=8
    )
    assert layer.codes.shape == (np.prod(codes.codes.shape),)
    assert relative_error(layer, table) < 0.95 * relative_error(codes, table)


def test_long_rows_get_groups_of_more_bytes(generator):
    table = generator.normal(size=(600, 12)).astype("float32")
    table[::4] *= 8
    one = TrellisCodedEmbedding.from_dense(table, 6, state_bits=6)
    two = TrellisCodedEmbedding.from_dense(
        table, (9, 5), (150, 450), state_bits=6
    )
    assert two.codes.shape == one.codes.shape
    assert relative_error(two, table) < 0.7 * relative_error(one, table)
    squares = np.square(two.to_dense() - table).sum(axis=1)
    np.testing.assert_allclose(
        np.log2(squares[::4].mean() / squares[1::4].mean()), 0, atol=4
    )


def test_frequent_rows_get_groups_of_more_bytes(generator):
    table = generator.normal(size=(600, 12)).astype("float32")
    counts = np.ones(600)
    frequent = generator.choice(600, 60, replace=False)
    counts[frequent] = 1_000
    weights = counts / counts.mean()
    structure = {
        "group_bytes": (9, 3),
        "group_sizes": (60, 540),
        "state_bits": 6,
    }
    layer, even = (
        TrellisCodedEmbedding.from_dense(table, **structure, frequencies=given)
        for given in (counts, None)
    )
    squares = np.square(layer.to_dense() - table).sum(axis=1)
    rest = np.delete(squares, frequent)
    assert squares[frequent].max() < 0.2 * rest.mean()
    lost = weighted_loss(layer, table, weights)
    assert lost < 0.2 * weighted_loss(even, table, weights)


@pytest.mark.parametrize(
    "name, wrong, message",
    [
        ("bits", lambda x: x[:, ::-1] + 1, "bits in a file must sum"),
        ("groups", lambda x: x[::-1] * 0, "groups in a file must have as many"),
        ("groups", lambda x: x[::-1], "starts in a file must follow"),
        ("starts", lambda x: x + 1, "starts in a file must follow"),
    ],
)
def test_refuses_files_that_no_layer_wrote(name, wrong, message, tmp_path):
    layer = TrellisCodedEmbedding(320, 8, (4, 2), (96, 224), state_bits=6)
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layer])
    weight = getattr(layer, name)
    weight.assign(wrong(ops.convert_to_numpy(weight)))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=message):
        keras.saving.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("size", [2, 7])
def test_strings_of_a_new_layer_differ(size):
    found = strings.random_strings(5_000, size, 3)
    assert len(np.unique(found, axis=0)) == 5_000
    again = strings.random_strings(5_000, size, 3)
    np.testing.assert_array_equal(found, again)
    assert not np.array_equal(found, strings.random_strings(5_000, size, 4))
    table = TrellisCodedEmbedding(500, 16, 2)
    table.build()
    assert len(np.unique(table.to_dense(), axis=0)) == 500


@pytest.mark.parametrize("grouped", [False, True])
def test_integers_lose_little_more_than_floats(grouped, generator):
    table = correlated_table(generator, 300, 16)
    structure = GROUPED if grouped else {"group_bytes": 4, "state_bits": 6}
    full, small = (
        TrellisCodedEmbedding.from_dense(
            table, **structure, factors_dtype=dtype
        )
        for dtype in ("float32", "int8")
    )
    assert relative_error(small, table) < 1.01 * relative_error(full, table)
    assert held(small) < held(full)
    ids = np.array([0, 7, 299])
    np.testing.assert_allclose(small(ids), small.to_dense()[ids], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.parametrize("factors_dtype", ["float32", "int8"])
def test_any_scale_is_fitted_alike(scale, factors_dtype, generator):
    table = correlated_table(generator, 300, 16)
    errors = [
        relative_error(
            TrellisCodedEmbedding.from_dense(
                rows, **GROUPED, factors_dtype=factors_dtype
            ),
            rows.astype("float64"),
        )
        for rows in (table, table * np.float32(scale))
    ]
    np.testing.assert_allclose(errors[1], errors[0], rtol=0.05)


@pytest.mark.parametrize("shape", [(2, 5), (9, 1), (2, 1)])
def test_the_smallest_tables(shape, generator):
    table = generator.normal(size=shape).astype("float32")
    layer = TrellisCodedEmbedding.from_dense(table, 1, state_bits=8)
    lost = relative_error(layer, table)
    assert lost < 0.1
    np.testing.assert_allclose(layer(np.arange(len(table))), layer.to_dense())
    softmax = TrellisCodedSoftmax.from_dense(
        table, 1, state_bits=8, activation=None
    )
    hidden = generator.normal(size=(3, shape[1])).astype("float32")
    expected = hidden @ softmax.to_dense().T
    np.testing.assert_allclose(softmax(hidden), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factors_dtype", ["float32", "int8"])
def test_one_row_that_differs(factors_dtype):
    for rest in (0, 1):
        table = np.full((300, 16), rest, "float32")
        table[7] = np.arange(16)
        layer = TrellisCodedEmbedding.from_dense(
            table, 2, state_bits=6, factors_dtype=factors_dtype
        )
        assert np.isfinite(layer.to_dense()).all()
        assert relative_error(layer, table) < 0.3
