"""Naive NumPy: from a layer's weights to its table. Imports nothing of ours."""

import numpy as np


def low_rank_table(embeddings, projection):
    """Sums outer products, one for each unit of rank."""
    table = np.zeros((embeddings.shape[0], projection.shape[1]))
    for unit in range(embeddings.shape[1]):
        table += np.outer(embeddings[:, unit], projection[unit])
    return table


def cyclically_annealed_rates(upper, lower, decay, freq, step_size, epochs, n):
    """The paper's loop, to the letter: the rate of every iteration."""
    rates, bound, it = [], upper, 0
    for epoch in range(epochs):
        if epoch > 0 and epoch % freq == 0:
            bound = bound * decay
        if bound <= lower * (1 + 1e-6):
            bound = upper
        for _ in range(n):
            it += 1
            c = it % (2 * step_size)
            bump = (bound - lower) / step_size
            if c < step_size:
                rates.append(lower + c * bump)
            else:
                rates.append(bound - (c - step_size) * bump)
    return rates
