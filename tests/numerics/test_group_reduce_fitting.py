import numpy as np
import pytest

from keras_embcomp.budgets import (
    equal_groups,
    group_ranks_by_error,
    group_ranks_by_frequency,
    group_reduce_parameters,
    growing_groups,
)
from keras_embcomp.numerics.group_reduce.fitting import group_reduce, smoothed
from keras_embcomp.numerics.low_rank import truncated_svd

SIZES, RANKS = (60, 140, 300), (9, 6, 3)


@pytest.fixture
def table(generator):
    """Rows of two subspaces, mixed: a group has more than one."""
    parts = [
        generator.normal(size=(250, 4)) @ generator.normal(size=(4, 12))
        for _ in range(2)
    ]
    rows = np.concatenate(parts) + 0.3 * generator.normal(size=(500, 12))
    return generator.permutation(rows).astype("float32")


@pytest.fixture
def counts(generator):
    return generator.permutation(np.round(4_000 / np.arange(1, 501)))


def rebuilt(groups):
    blocks = [
        embedding if projection is None else embedding @ projection
        for embedding, projection in zip(
            groups.embeddings, groups.projections, strict=True
        )
    ]
    return np.concatenate(blocks)[groups.places()]


def weighted_error(table, groups, counts):
    weights = smoothed(counts, len(table))
    return weights @ np.sum((table - rebuilt(groups)) ** 2, axis=1)


def test_full_ranks_give_the_table_back(table, counts):
    groups = group_reduce(table, SIZES, (12, 12, 12), counts)
    np.testing.assert_allclose(rebuilt(groups), table, atol=1e-5)


def test_groups_go_by_frequency(table, counts):
    groups = group_reduce(table, SIZES, RANKS, counts)
    first, second, last = np.split(counts[groups.order], (60, 200))
    assert first.min() >= second.max() and second.min() >= last.max()
    assert groups.structure()["permuted"]
    falling = -np.sort(-counts)
    assert not group_reduce(table, SIZES, RANKS, falling).structure()[
        "permuted"
    ]


def test_each_group_has_the_best_factors_of_its_rank(table, counts):
    groups = group_reduce(table, SIZES, RANKS, counts)
    weights = smoothed(counts, 500)
    rows = groups.order[60:200]
    root = np.sqrt(weights[rows])[:, None]
    singular = np.linalg.svd(root * table[rows], compute_uv=False)
    found = weights[rows] @ np.sum((table - rebuilt(groups))[rows] ** 2, axis=1)
    np.testing.assert_allclose(found, np.sum(singular[6:] ** 2), rtol=1e-4)


def test_a_group_that_factors_would_not_shrink_is_dense(table):
    groups = group_reduce(table, (10, 490), (6, 3))
    assert groups.projections[0] is None
    np.testing.assert_array_equal(groups.embeddings[0], table[:10])


def test_the_weighted_error_is_below_that_of_the_plain_svd(table, counts):
    parameters = 6 * (500 + 12)
    ranks = group_ranks_by_frequency(SIZES, 12, parameters, counts)
    groups = group_reduce(table, SIZES, ranks, counts)
    left, right = truncated_svd(table, 6)
    plain = smoothed(counts, 500) @ np.sum((table - left @ right) ** 2, axis=1)
    assert weighted_error(table, groups, counts) < plain


def test_sweeps_never_raise_the_objective_or_the_size(table, counts):
    before = group_reduce(table, SIZES, RANKS, counts)
    size = group_reduce_parameters(SIZES, RANKS, 12)
    objectives = [before.objective]
    for sweeps in (1, 2, 4, 8, 16):
        after = group_reduce(table, SIZES, RANKS, counts, max_sweeps=sweeps)
        np.testing.assert_allclose(
            after.objective, weighted_error(table, after, counts), rtol=1e-4
        )
        objectives.append(after.objective)
        assert sorted(after.order) == list(range(500))
        assert group_reduce_parameters(after.sizes, RANKS, 12) <= size
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[-1] < 0.95 * objectives[0]


def test_a_dense_group_stays_dense_and_a_low_rank_one_does_not_become_it(
    table, counts
):
    sizes, ranks = (10, 190, 300), (6, 6, 3)
    before = group_reduce(table, sizes, ranks, counts)
    after = group_reduce(table, sizes, ranks, counts, max_sweeps=8)
    assert after.objective < before.objective
    for one, other in zip(before.projections, after.projections, strict=True):
        assert (one is None) == (other is None)


def test_a_group_keeps_as_many_rows_as_its_rank(generator):
    ranks = (1, 2, 2)
    for _ in range(200):
        table = generator.normal(size=(13, 5))
        counts = generator.permutation(13) + 1.0
        groups = group_reduce(table, (7, 2, 4), ranks, counts, max_sweeps=3)
        assert all(map(int.__ge__, groups.sizes, ranks))


@pytest.mark.parametrize("wrong", [-1, 1.5, None])
def test_refuses_wrong_numbers_of_sweeps(table, wrong):
    with pytest.raises(ValueError) as error:
        group_reduce(table, SIZES, RANKS, max_sweeps=wrong)
    assert str(error.value) == (
        "`max_sweeps` must be an integer, 0 or more. "
        f"Received: max_sweeps={wrong}"
    )


def test_groups_as_they_come_have_their_ranks(table, counts):
    groups = group_reduce(table, SIZES, RANKS, counts, sort=False)
    np.testing.assert_array_equal(groups.order, np.arange(500))
    for size, embeddings, rank in zip(
        SIZES, groups.embeddings, RANKS, strict=True
    ):
        assert embeddings.shape == (size, rank)
    rising = np.arange(1.0, 501.0)
    ranks = group_ranks_by_frequency(SIZES, 12, 1_500, rising, sort=False)
    assert list(ranks) == sorted(ranks) and ranks[0] < ranks[-1]


@pytest.mark.parametrize(
    "sizes", [(1,), (1, 1), (60, 140, 300), (7, 12, 1, 480), (3, 20_000)]
)
def test_without_counts_words_have_those_of_zipf(sizes):
    counts = 1 / np.arange(1, sum(sizes) + 1)
    for parameters in (11 * sum(sizes), 3 * sum(sizes) + 40):
        if parameters >= group_reduce_parameters(sizes, [1] * len(sizes), 12):
            assert group_ranks_by_frequency(
                sizes, 12, parameters
            ) == group_ranks_by_frequency(sizes, 12, parameters, counts)


def test_a_billion_words_need_no_count_each():
    sizes = growing_groups(10**9, 4)
    ranks = group_ranks_by_frequency(sizes, 64, 2 * 10**9)
    assert list(ranks) == sorted(ranks, reverse=True) and ranks[0] > ranks[-1]


def test_is_the_same_each_time(table, counts):
    first, second = (
        group_reduce(table, SIZES, RANKS, counts, max_sweeps=3)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.order, second.order)
    np.testing.assert_array_equal(rebuilt(first), rebuilt(second))


def test_words_that_were_not_counted_are_smoothed(table):
    counts = np.zeros(500)
    counts[:100] = np.arange(101, 1, -1)
    weights = smoothed(counts, 500)
    np.testing.assert_allclose(weights[100:], weights[99] / 2)
    groups = group_reduce(table, SIZES, RANKS, counts)
    assert np.isfinite(rebuilt(groups)).all()


def test_groups_share_the_vocabulary_out():
    assert equal_groups(10, 3) == (4, 3, 3)
    assert growing_groups(13, 3, growth=3) == (1, 3, 9)
    assert growing_groups(5, 5, growth=10) == (1, 1, 1, 1, 1)
    for vocabulary in (20, 60, 300, 3_001, 100_003, 400_000):
        for num_groups in (1, 2, 5, 17, 20):
            sizes = growing_groups(vocabulary, num_groups)
            assert sum(sizes) == vocabulary and min(sizes) > 0
            assert list(sizes) == sorted(sizes)
    with pytest.raises(ValueError, match="`num_groups` must not exceed"):
        equal_groups(3, 4)
    with pytest.raises(ValueError, match="`num_groups` must be a positive"):
        growing_groups(3, 0)
    with pytest.raises(ValueError, match="`growth` must be a finite number"):
        growing_groups(30, 3, growth=0)


def test_ranks_by_frequency_are_in_proportion_to_it():
    """The ratios of Zipf's law for 10,000 words in 5 groups."""
    counts = 1 / np.arange(1, 10_001)
    sizes = equal_groups(10_000, 5)
    ranks = group_ranks_by_frequency(sizes, 200, 1_000_000, counts)
    means = counts.reshape(5, -1).mean(axis=1)
    ratios = np.round(means / means[-1], 1)
    np.testing.assert_array_equal(ratios, [36.7, 3.1, 1.8, 1.3, 1])
    # Some `r` times the ratios, rounded down; at most the width.
    least = np.array(ranks[1:]) * means[-1] / means[1:]
    most = (np.array(ranks[1:]) + 1) * means[-1] / means[1:]
    assert ranks[0] == 200 and least.max() < most.min()


@pytest.mark.parametrize("parameters", [800, 1_500, 3_000, 5_000, 10**6])
def test_ranks_use_the_budget_and_no_more(table, counts, parameters):
    by_frequency = group_ranks_by_frequency(SIZES, 12, parameters, counts)
    by_error = group_ranks_by_error(table, SIZES, parameters, counts)
    errors = []
    for ranks in (by_frequency, by_error):
        used = group_reduce_parameters(SIZES, ranks, 12)
        assert used <= parameters
        assert used >= min(parameters, 500 * 12) - (300 + 12)
        groups = group_reduce(table, SIZES, ranks, counts)
        errors.append(weighted_error(table, groups, counts))
    assert errors[1] <= 1.001 * errors[0] + 1e-6


def test_ranks_are_for_groups_that_sum_to_the_vocabulary(table, counts):
    for ranks in (
        lambda: group_ranks_by_frequency((9, 9), 12, 535, counts),
        lambda: group_ranks_by_error(table, (9, 9), 535),
    ):
        with pytest.raises(ValueError, match="`group_sizes` must sum to"):
            ranks()


def test_a_budget_below_rank_one_names_the_least(table):
    for rank in (
        lambda: group_ranks_by_frequency(SIZES, 12, 535, np.ones(500)),
        lambda: group_ranks_by_error(table, SIZES, 535),
    ):
        with pytest.raises(ValueError) as error:
            rank()
        assert str(error.value) == (
            "`parameters` must be at least 536, which is rank 1 in each of "
            "the 3 groups. Received: parameters=535"
        )
