"""Tables of low rank, of few distinct rows, huge and tiny: every method."""

import contract
import keras
import numpy as np
import pytest
from keras import ops

from keras_embcomp import LowRankSoftmax, ProductQuantizedEmbedding
from keras_embcomp.layers.methods import METHODS

ROWS, WIDTH = 600, 32
STRUCTURES = {
    "trellis_codes": {
        "group_bytes": (24, 16),
        "group_sizes": (100, 500),
        "state_bits": 8,
    },
    "product_codes": {"num_parts": 8, "part_width": 4, "codebook_size": 32},
    "low_rank": {"rank": 24},
    "group_reduce": {"group_sizes": (100, 500), "group_ranks": (24, 20)},
    "distilled": {"rank": 24},
    "tensor_train": {"tt_ranks": 8},
    "hashed": {"num_subvectors": 300, "num_parts": 8},
}


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


# At most, besides what the fit loses. In 2 bits there is no 0: cores that are
# mostly zeros, of a table of equal rows, lose nearly all.
LOST = {"int8": 0.05, "int4": 0.3, "int2": 1.0, "ternary": 1.1}
TABLES = {
    "rank 1": np.outer(normal(ROWS), normal(WIDTH)),
    "rank 12": normal(ROWS, 12) @ normal(12, WIDTH),
    "20 rows, 30 times each": np.repeat(normal(20, WIDTH), 30, axis=0),
    "each column twice": np.repeat(normal(ROWS, WIDTH // 2), 2, axis=1),
    "dead columns": normal(ROWS, WIDTH) * (np.arange(WIDTH) >= 8),
    "equal rows": np.full((ROWS, WIDTH), 0.3),
    "zeros": np.zeros((ROWS, WIDTH)),
    "around 1e20": 1e20 * normal(ROWS, WIDTH),
    "around 1e-30": 1e-30 * normal(ROWS, WIDTH),
}
TABLES = {name: table.astype("float32") for name, table in TABLES.items()}
REFUSING = [m for m in METHODS if m.name.endswith("_codes")]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def error(layer, table):
    table = table.astype("float64")
    lost = np.linalg.norm(layer.to_dense() - table)
    return lost / (np.linalg.norm(table) or 1)


def fitted(method, table, **kwargs):
    return method.embedding.from_dense(
        table, **STRUCTURES[method.name], **kwargs
    )


def copy_of(layer, **changes):
    """Returns what another fit would give: fits take far longer."""
    copy = type(layer).from_config({**layer.get_config(), **changes})
    copy.build((None, WIDTH))
    copy.set_weights(layer.get_weights())
    return copy


def step(layer, table, rate):
    ids = np.arange(len(table), dtype="int32")
    entry = keras.Input((), dtype="int32")
    model = keras.Model(entry, layer(entry))
    model.compile(keras.optimizers.Adam(rate), "mse")
    model.fit(ids, table, len(ids), verbose=0)


@every_method
@pytest.mark.parametrize("name", TABLES)
def test_what_is_fitted_survives_rounding_and_a_step(method, name):
    table = TABLES[name]
    if method in REFUSING and name in ("equal rows", "zeros"):
        with pytest.raises(ValueError, match="must have rows that differ"):
            fitted(method, table)
        return
    layer = fitted(method, table)
    lost = error(layer, table)
    assert np.isfinite(lost)
    assert lost < 1.05
    largest = float(np.abs(table).max())
    for weight in layer.trainable_weights:
        # No factor is far larger than the table and its inverse scale.
        numbers = np.abs(ops.convert_to_numpy(weight)).max()
        assert numbers <= 200 * max(largest, 1), weight.path
    for mode, most in LOST.items():
        quantized = copy_of(layer)
        quantized.quantize(mode)
        assert error(quantized, table) <= lost + most, mode
    if 1e-4 < largest < 1e4:
        half = copy_of(layer, dtype="mixed_float16")
        rows = ops.convert_to_numpy(half(np.arange(ROWS)))
        assert np.isfinite(rows).all()
        # Adam moves each weight by the rate; a row sums up some of them.
        step(layer, table, rate=1e-4)
        assert error(layer, table) <= lost + 0.05


@pytest.mark.parametrize("name", ["rank 12", "dead columns"])
@pytest.mark.parametrize("method", REFUSING, ids=lambda m: m.name)
def test_what_trains_beside_integers_survives_a_step(method, name):
    table = TABLES[name]
    layer = fitted(method, table, factors_dtype="int8")
    lost = error(layer, table)
    if layer.trainable_weights:
        step(layer, table, rate=1e-4)
        assert error(layer, table) <= lost + 0.05


@every_method
def test_a_table_of_one_row(method):
    table = normal(1, WIDTH).astype("float32")
    structure = {
        "trellis_codes": None,  # has rows that are alike
        "product_codes": None,
        "group_reduce": {"group_sizes": (1,), "group_ranks": (1,)},
        "hashed": {"num_subvectors": 8, "num_parts": 8},
        "tensor_train": {"tt_ranks": 8},
    }.get(method.name, {"rank": 1})
    if structure is None:
        return
    layer = method.embedding.from_dense(table, **structure)
    assert error(layer, table) < 1e-5
    np.testing.assert_allclose(layer(np.array([0])), table, atol=1e-5)


def test_a_rank_deficient_table_in_product_codes(generator):
    table = generator.normal(size=(2_000, 40)) @ generator.normal(size=(40, 64))
    table = table.astype("float32")
    layer = ProductQuantizedEmbedding.from_dense(table, 16, 4, codebook_size=64)
    assert np.abs(layer.projection).max() < 1
    assert error(layer, table) < 0.21
    step(layer, table, rate=1e-3)
    assert error(layer, table) < 0.21


def test_few_distinct_rows_in_product_codes_are_exact_and_stay_near(generator):
    table = np.repeat(generator.normal(size=(40, 64)), 50, axis=0)
    layer = ProductQuantizedEmbedding.from_dense(
        table.astype("float32"), 16, 4, codebook_size=64
    )
    assert error(layer, table) < 1e-5
    layer.quantize("int8")
    assert error(layer, table) < 0.02


@pytest.mark.parametrize("k", [1, 3])
def test_no_tokens_among_many_units(k, compiled):
    """5,000 units are searched run by run, few at once."""
    layer = LowRankSoftmax(5_000, 3)
    layer.build((None, WIDTH))
    contract.finds_nothing_for_no_tokens(layer, k, WIDTH, compiled)
