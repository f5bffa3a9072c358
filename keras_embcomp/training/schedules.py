"""Learning-rate schedules as pure functions of epoch and iteration."""

import numpy as np
from keras import ops

# A bound that decayed to the lower bound in exact arithmetic may miss it by
# rounding: the restart must not come an epoch late.
_TOLERANCE = 1e-6


def annealed_upper_bound(
    epoch: int,
    max_learning_rate: float,
    min_learning_rate: float,
    decay_rate: float,
    decay_epochs: int,
) -> float:
    """Returns the upper bound of the cycle in an epoch, counted from 0.

    The bound starts at the maximum, is multiplied by `decay_rate` every
    `decay_epochs` epochs, and goes back to the maximum in the epoch in which
    it would fall to the minimum (Acharya et al. 2019, Algorithm 1).
    """
    bound = max_learning_rate
    for _ in range(epoch // decay_epochs):
        bound *= decay_rate
        if bound <= min_learning_rate * (1 + _TOLERANCE):
            bound = max_learning_rate
    return bound


def triangular_rate(iteration, upper_bound, lower_bound, step_size):
    """Returns the rate of a triangular cycle at an iteration.

    The rate rises from the lower to the upper bound in `step_size` iterations
    and falls back in as many. Works on arrays and on tensors alike.

    Args:
        iteration: Integer. The number of iterations done so far, this one
            included.
        upper_bound: Rate at the peak.
        lower_bound: Rate at the foot.
        step_size: Integer. Iterations in half a cycle.
    """
    phase = iteration % (2 * step_size)
    # Whole numbers up to here: a triangle of height `step_size`.
    height = step_size - abs(phase - step_size)
    if not isinstance(height, np.ndarray | np.generic):
        height = ops.cast(height, upper_bound.dtype)
    return lower_bound + height * ((upper_bound - lower_bound) / step_size)
