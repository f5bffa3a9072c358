"""Sizes of shared sub-vectors and low ranks are the largest of a budget."""

import pytest

from keras_embcomp import HashedEmbedding, LowRankEmbedding
from keras_embcomp.budgets import hashed_sizes, low_rank_from_parameters


def parameters_of(layer):
    layer.build()
    return layer.count_params()


@pytest.mark.parametrize("num_private", [0, 1, 90])
@pytest.mark.parametrize("num_parts", [None, 1, 3, 12])
@pytest.mark.parametrize("parameters", [1_200, 2_345.5, 3_000])
def test_the_pool_is_the_largest_within_the_budget(
    num_private, num_parts, parameters
):
    sizes = hashed_sizes(307, 12, parameters, num_private, num_parts)
    assert parameters_of(HashedEmbedding(307, 12, **sizes)) <= parameters
    sizes["num_subvectors"] += 1
    assert parameters_of(HashedEmbedding(307, 12, **sizes)) > parameters


def test_a_pool_has_a_sub_vector_for_each_part_and_none_for_nobody():
    sizes = hashed_sizes(307, 12, 1, num_parts=4)
    assert sizes["num_subvectors"] == 4
    sizes = hashed_sizes(307, 12, 10**9, num_private=7, num_parts=4)
    assert sizes["num_subvectors"] == 300 * 4
    assert parameters_of(HashedEmbedding(307, 12, **sizes)) == 307 * 12
    assert hashed_sizes(2, 1, 1) == {
        "num_subvectors": 1,
        "num_parts": 1,
        "num_private": 0,
    }


@pytest.mark.parametrize(
    ("width", "parts"), [(64, 8), (300, 10), (12, 6), (35, 5), (127, 1)]
)
def test_the_parts_divide_the_width(width, parts):
    assert hashed_sizes(1_000, width, 5_000)["num_parts"] == parts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 9), "`vocabulary` must be a positive integer"),
        ((9, 4, 9, 9), "`num_private` must be below `vocabulary`"),
        ((9, 4, 9, -1), "`num_private` must be an integer, 0 or more"),
        ((9, 4, 9, 0, 3), "`num_parts` must divide `width`"),
        ((9, 4, 9, 0, 0), "`num_parts` must be a positive integer"),
    ],
)
def test_sizes_of_no_pool_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        hashed_sizes(*arguments)


@pytest.mark.parametrize("parameters", [320, 1_000, 2_000.5])
def test_the_low_rank_is_the_largest_within_the_budget(parameters):
    rank = low_rank_from_parameters(307, 12, parameters)
    assert parameters_of(LowRankEmbedding(307, 12, rank)) <= parameters
    assert parameters_of(LowRankEmbedding(307, 12, rank + 1)) > parameters
    assert low_rank_from_parameters(307, 12, 10**9) == 12
    assert low_rank_from_parameters(307, 12, 5) == 1
