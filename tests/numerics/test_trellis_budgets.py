"""Sizes of trellis codes for a budget of bytes."""

import numpy as np
import pytest
from correlated import correlated_table

from keras_embcomp import TrellisCodedEmbedding
from keras_embcomp.compression.candidates import structure_bytes
from keras_embcomp.layers.trellis.method import TRELLIS
from keras_embcomp.numerics.trellis import budgets
from keras_embcomp.numerics.trellis.fitting import Structure

STEPS = {
    "bits": {},
    "half bytes": {"step_bits": 4, "part_width": 2},
    "bytes": {"step_bits": 8, "part_width": 4},
}


def structure_of(arguments, vocabulary):
    sizes = arguments["group_sizes"] or (vocabulary,)
    return Structure(**{**arguments, "group_sizes": sizes})


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shape", [(300, 1), (300, 8), (1_000, 24), (90, 100)])
@pytest.mark.parametrize("even", [True, False])
def test_sizes_keep_to_their_bytes(steps, shape, even, generator):
    if STEPS[steps].get("part_width", 1) > shape[1]:
        pytest.skip("a step has more numbers than a row")
    table = correlated_table(generator, *shape)
    weights = np.ones(len(table))
    if not even:
        weights = generator.exponential(size=len(table)) ** 2
        weights /= weights.mean()
    whole = 4 * table.size
    reached = 0
    for budget in np.geomspace(whole / 40, 2 * whole, 9):
        try:
            found = budgets.trellis_sizes(
                table, budget, weights, **STEPS[steps]
            )
        except ValueError as error:
            assert "`max_bytes` must be at least" in str(error)
            continue
        structure = structure_of(found, len(table))
        held = budgets.trellis_bytes(structure, shape)
        assert structure_bytes(TRELLIS, None, found, shape) == held
        assert held <= budget
        reached += 1
    assert reached >= 1


@pytest.mark.parametrize("shape", [(2, 1), (7, 3), (300, 8)])
def test_the_smallest_structure_can_be_built(shape):
    structure = budgets.smallest_structure(*shape)
    arguments = TRELLIS.smallest(shape)
    held = structure_bytes(TRELLIS, None, arguments, shape)
    assert held == budgets.trellis_bytes(structure, shape)


@pytest.mark.parametrize("counted", [False, True])
def test_losses_are_as_expected(counted, generator):
    table = correlated_table(generator, 1_500, 48)
    counts = np.ones(len(table))
    if counted:
        counts = 1 / (1 + generator.permutation(len(table))) ** 0.7
    weights = counts / counts.mean()
    errors = []
    for ratio in (24, 12, 7):
        found = budgets.trellis_sizes(
            table, table.nbytes / ratio, weights, state_bits=8
        )
        layer = TrellisCodedEmbedding.from_dense(
            table, **found, frequencies=counts
        )
        squares = np.square(layer.to_dense() - table).sum(axis=1)
        errors.append(np.sqrt(weights @ squares))
        structure = structure_of(found, len(table))
        expected = budgets.expected_loss(structure, table, weights)
        np.testing.assert_allclose(np.sqrt(expected), errors[-1], rtol=0.05)
    assert errors == sorted(errors, reverse=True)
