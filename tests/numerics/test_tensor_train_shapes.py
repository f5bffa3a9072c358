"""Modes and ranks: small cases by hand, properties over many sizes."""

import math

import pytest

from keras_embcomp import TTEmbedding
from keras_embcomp.budgets import tensor_train_rank
from keras_embcomp.numerics.tensor_train.shapes import (
    attainable_ranks,
    column_modes,
    core_shapes,
    cut_ranks,
    resolve_shape,
    row_modes,
)


def parameters(vocabulary, num_cores, width=256, rank=16):
    shape = resolve_shape("input_dim", vocabulary, width, num_cores, None)
    ranks = cut_ranks(shape, rank)
    return sum(math.prod(core) for core in core_shapes(shape, ranks))


@pytest.mark.parametrize("num_cores", [2, 3, 4])
def test_row_modes_have_the_least_sum(num_cores):
    for vocabulary in range(1, 300):
        modes = row_modes(vocabulary, num_cores)
        assert math.prod(modes) >= vocabulary
        assert list(modes) == sorted(modes)
        smaller = sum(modes) - 1
        # The largest product of integers of a sum is that of nearly equal ones.
        base, extra = divmod(smaller, num_cores)
        largest = (base + 1) ** extra * base ** (num_cores - extra)
        assert largest < vocabulary


@pytest.mark.parametrize("num_cores", [2, 3, 4, 5, 6])
@pytest.mark.parametrize(
    ("vocabulary", "round_size"),
    [(50_021, 50_000), (30_522, 30_000), (50_257, 50_000), (799_999, 800_000)],
)
def test_no_vocabulary_is_compressed_poorly(vocabulary, round_size, num_cores):
    ratio = vocabulary / parameters(vocabulary, num_cores)
    round_ratio = round_size / parameters(round_size, num_cores)
    assert ratio > 0.9 * round_ratio


def test_the_largest_vocabulary_is_quick_to_shape():
    assert row_modes(2**31 - 1, 4) == (209, 209, 211, 233)


def test_column_modes_are_balanced_and_exact():
    assert column_modes(256, 3) == (4, 8, 8)
    assert column_modes(256, 6) == (2, 2, 2, 2, 4, 4)
    assert column_modes(1024, 3) == (8, 8, 16)
    assert column_modes(300, 3) == (5, 6, 10)
    assert column_modes(127, 3) == (1, 1, 127)
    for width in range(1, 200):
        assert math.prod(column_modes(width, 4)) == width


def test_ranks_are_those_that_the_modes_allow():
    shape = ((5, 5, 5, 5, 6, 8), (2, 2, 2, 2, 4, 4))
    assert attainable_ranks(shape) == (10, 100, 1000, 768, 32)
    # The paper's TT3: an integer is the rank of every cut.
    assert cut_ranks(shape, 16) == (16,) * 5
    assert cut_ranks(shape, 5_000) == (1_000,) * 5
    assert cut_ranks(shape, (16,) * 5) == (10, 16, 16, 16, 16)


# Khrulkov et al. 2019: vocabulary, width, shape, rank, compression. Its tied
# models have two tensor trains for one dense table.
PAPER = [
    (25_000, 256, ((25, 30, 40), (4, 8, 8)), 16, 93.9),
    (25_000, 256, ((10, 10, 15, 20), (4, 4, 4, 4)), 16, 232.6),
    (25_000, 256, ((5, 5, 5, 5, 6, 8), (2, 2, 2, 2, 4, 4)), 16, 441.5),
    (17_200, 256, ((24, 25, 30), (4, 8, 8)), 16, 77.8),
    (17_200, 256, ((10, 10, 12, 15), (4, 4, 4, 4)), 16, 182.5),
    (17_200, 256, ((4, 5, 5, 5, 6, 6), (2, 2, 2, 2, 4, 4)), 16, 307.1),
    (32_768, 1024, ((32, 32, 32), (8, 8, 16)), 64, 15.28),
    (32_768, 1024, ((32, 32, 32), (8, 8, 16)), 48, 26.77),
    (32_768, 1024, ((32, 32, 32), (8, 8, 16)), 32, 58.51),
    (267_735, 512, ((60, 60, 75), (8, 8, 8)), 192, 3.83),
    (267_735, 512, ((60, 60, 75), (8, 8, 8)), 128, 8.56),
    (267_735, 512, ((60, 60, 75), (8, 8, 8)), 96, 15.14),
]


@pytest.mark.parametrize("num_cores", [2, 3, 4])
def test_the_rank_is_the_largest_within_the_budget(num_cores):
    for parameters in (1, 5_000, 20_000.5):
        rank = tensor_train_rank(2_000, 48, parameters, num_cores)
        sizes = []
        for wanted in (rank, rank + 1):
            layer = TTEmbedding(2_000, 48, wanted, num_cores)
            layer.build()
            sizes.append(layer.count_params())
        assert sizes[0] <= parameters or rank == 1
        assert sizes[1] > parameters
    most = tensor_train_rank(2_000, 48, 10**9, num_cores)
    shape = TTEmbedding(2_000, 48, 1, num_cores).tt_shape
    assert most == max(attainable_ranks(shape))


@pytest.mark.parametrize(
    ("vocabulary", "width", "shape", "rank", "ratio"), PAPER
)
def test_the_compression_is_that_of_the_paper(
    vocabulary, width, shape, rank, ratio
):
    layer = TTEmbedding(vocabulary, width, tt_ranks=rank, tt_shape=shape)
    layer.build()
    tables = 2 if vocabulary > 25_000 else 1
    assert abs(layer.compression_ratio / tables - ratio) < 0.06
