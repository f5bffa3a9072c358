"""Least errors of tables for a number of bits, whatever the code."""

import numpy as np

from keras_embcomp._types import Array
from keras_embcomp.numerics.blocks import squared_norms, unit_of
from keras_embcomp.numerics.trellis.allocation import (
    above_zero,
    rotation_of,
    row_gains,
    water_level,
)

_PARTS = 512  # rows of about equal scale


def gaussian_limit(table: Array, weights: Array, bits: float) -> float:
    """Returns the least relative error of Gaussian rows of one covariance.

    It is that of the table (reverse water-filling, Cover and Thomas 2006,
    Theorem 10.3.3). Real rows are of unlike lengths, and a code may lose less.

    Args:
        table: Array of shape `(vocabulary, width)`.
        weights: Array of shape `(vocabulary,)`.
        bits: Number. Bits of a row.
    """
    return _limit(table, weights, bits, parts=1)


def scaled_limit(table: Array, weights: Array, bits: float) -> float:
    """Returns the least relative error of Gaussian rows of unlike scales.

    A row's scale is the most likely one for its whitened energy. Bits go to
    rows by scale and weight.

    Args:
        table, weights, bits: As for `gaussian_limit`.
    """
    return _limit(table, weights, bits, _PARTS)


def _limit(table: Array, weights: Array, bits: float, parts: int) -> float:
    unit = unit_of(table)
    table, weights = table / unit, above_zero(weights)
    rotation = rotation_of(table, weights)
    scales = np.ones(len(table))
    keys = np.full(len(table), weights.mean())
    if parts > 1:
        scales = row_gains(table, rotation, rotation.variances > 0)
        keys = scales * weights
    # Variances of a row of scale 1, so that those of all rows sum to the whole.
    own = rotation.variances * weights.sum() / (weights @ scales)
    pieces = np.array_split(np.sort(keys), min(parts, len(keys)))
    variances = np.multiply.outer([piece.mean() for piece in pieces], own)
    counts = np.array([[len(piece)] for piece in pieces])
    level = water_level(variances, counts, bits * len(table))
    lost = (counts * np.minimum(variances, level)).sum()
    whole = weights @ squared_norms(table)
    return float(np.sqrt(lost / whole)) if whole else 0.0
