import numpy as np
import oracles
import pytest

from keras_embcomp.training.schedules import (
    annealed_upper_bound,
    triangular_rate,
)


@pytest.mark.parametrize(
    ("lower", "expected"),
    [
        # The released settings, before and after compression.
        (1e-8, [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-3, 1e-4]),
        (1e-6, [1e-3, 1e-4, 1e-5, 1e-3, 1e-4, 1e-5, 1e-3]),
    ],
)
def test_the_bound_restarts_where_the_paper_restarts_it(lower, expected):
    bounds = [annealed_upper_bound(e, 1e-3, lower, 0.1, 1) for e in range(7)]
    np.testing.assert_allclose(bounds, expected, rtol=1e-9)


@pytest.mark.parametrize("decay", [0.1, 0.3, 0.5, 0.7, 0.99, 1.0])
@pytest.mark.parametrize("freq", [1, 3])
def test_equals_the_papers_loop(decay, freq):
    rates = oracles.cyclically_annealed_rates(1.0, 0.027, decay, freq, 7, 12, 5)
    found = [
        triangular_rate(
            np.int64(i + 1),
            annealed_upper_bound(i // 5, 1.0, 0.027, decay, freq),
            0.027,
            7,
        )
        for i in range(60)
    ]
    np.testing.assert_allclose(found, rates, rtol=1e-9)


def test_starts_one_step_up_and_peaks_at_the_bound():
    rates = triangular_rate(np.arange(1, 21), 1.0, 0.5, 10)
    assert rates[0] == 0.55
    assert rates[9] == 1.0
    assert rates[19] == 0.5
