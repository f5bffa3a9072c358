"""A table that codes suit, and what they lose of it."""

import numpy as np


def correlated_table(generator, vocabulary=2_000, width=24):
    scales = 1 / np.arange(1, width + 1)
    mixed = generator.normal(size=(vocabulary, width)) * scales
    turned = np.linalg.qr(generator.normal(size=(width, width)))[0]
    return (mixed @ turned + 0.3).astype("float32")


def relative_error(layer, table):
    return np.linalg.norm(layer.to_dense() - table) / np.linalg.norm(table)
