"""Sizes of product codes for a budget of bytes."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_embcomp._types import Array
from keras_embcomp.numerics.blocks import squared_norms
from keras_embcomp.numerics.low_rank import weighted_gram
from keras_embcomp.numerics.product_quantized.codes import (
    decoded_rows,
    most_kept,
    smallest_dtype,
)
from keras_embcomp.numerics.product_quantized.fitting import (
    factors_in_bytes,
    kept_first,
    product_codes,
    rows_in_bytes,
)

_SAMPLE, _ROUNDS = 16_384, 8
_KEPT_SHARES = (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)  # of the bytes


def code_sizes(
    table: Array,
    max_bytes: float,
    weights: Array,
    codebook_size: int = 256,
    factor_bytes: int = 4,
) -> dict[str, int]:
    """Returns the sizes of product codes that fit a budget of bytes.

    Several numbers of kept rows and all widths are tried, with as many parts as
    fit. The sizes with the least expected error win. For the directions that
    are used, this is the least error of Gaussian columns for the bits of a row
    (`water_filled`); for the other directions, it is their variance. A part has
    at most twice as many columns as its code has bits.

    Args:
        table: Array of shape `(vocabulary, width)`.
        max_bytes: Number. The budget for codes, codebooks, projection, mean
            and, with factors of one byte, scales.
        weights: Array of shape `(vocabulary,)`, of mean 1.
        codebook_size: Integer. Number of vectors in a codebook.
        factor_bytes: Bytes of an entry of the factors: 4 for float32, 1 for
            int8.

    Returns:
        The arguments `num_parts`, `part_width` and `num_kept`.

    Raises:
        ValueError: if even one part exceeds the budget.
    """
    vocabulary, width = table.shape
    order = kept_first(table, weights)
    whole_row = factor_bytes * width + (4 if factor_bytes == 1 else 0)
    sizes = []
    for share in _KEPT_SHARES:
        num_kept = int(share * max_bytes / whole_row)
        if num_kept >= vocabulary:
            continue
        rest = weights.copy()
        rest[order[:num_kept]] = 0
        if not rest.any():
            continue
        variances = principal_variances(table, rest) * rest.sum()
        left = max_bytes - num_kept * whole_row
        for parts, part_width in _shapes(
            vocabulary, width, left, codebook_size, factor_bytes
        ):
            if num_kept > most_kept(parts, codebook_size):
                continue
            used = parts * part_width
            error = water_filled(
                variances[:used], parts * np.log2(codebook_size)
            ).sum()
            error += variances[used:].sum()
            sizes.append((error, num_kept, parts, part_width))
    if not sizes:
        code = np.dtype(smallest_dtype(codebook_size)).itemsize
        least = vocabulary * code + factor_bytes * (codebook_size + width)
        least += 4 * width + (4 if factor_bytes == 1 else 0)
        raise ValueError(
            f"`max_bytes` must be at least {least}, which is one code a row. "
            f"Received: max_bytes={max_bytes}"
        )
    _, num_kept, parts, part_width = min(sizes)
    return {
        "num_parts": parts,
        "part_width": part_width,
        "num_kept": num_kept,
    }


def _shapes(
    vocabulary: int,
    width: int,
    max_bytes: float,
    codebook_size: int,
    factor_bytes: int,
) -> Iterator[tuple[int, int]]:
    """Yields for each width of a part the number of parts that fit, and it."""
    code = np.dtype(smallest_dtype(codebook_size)).itemsize
    widest = min(width, int(2 * np.log2(codebook_size)))
    for part_width in range(1, widest + 1):
        scales = 4 * part_width if factor_bytes == 1 else 0
        numbers = part_width * (codebook_size + width)
        one = vocabulary * code + factor_bytes * numbers + scales
        parts = min(int((max_bytes - 4 * width) / one), width)
        if parts * (part_width - 1) >= width:  # narrower ones would do
            parts = (width - 1) // (part_width - 1)
        if parts >= 1:
            yield parts, part_width


def principal_variances(table: Array, weights: Array) -> Array:
    """Returns the variances along the principal directions, falling.

    Args:
        table: Array of shape `(vocabulary, width)`.
        weights: Array of shape `(vocabulary,)`.
    """
    mean = weights @ table / weights.sum()
    gram = weighted_gram(table - mean, weights) / weights.sum()
    return np.maximum(np.linalg.eigvalsh(gram)[::-1], 1e-30)


def water_filled(variances: Array, bits: float) -> Array:
    """Returns the least squared errors of Gaussian columns for `bits` a row.

    They are the variances, cut off at a level (reverse water-filling, Cover and
    Thomas 2006, Theorem 10.3.3).
    """
    low, high = 0.0, variances.max()
    for _ in range(60):
        level = (low + high) / 2
        used = 0.5 * np.log2(variances / np.minimum(variances, level)).sum()
        low, high = (level, high) if used > bits else (low, level)
    return np.minimum(variances, high)


def sampled_loss(
    table: Array,
    weights: Array,
    num_parts: int,
    part_width: int,
    codebook_size: int,
    num_kept: int = 0,
    factors_dtype: str = "float32",
    **others: Any,
) -> float:
    """Returns an estimate of the weighted squared error of product codes.

    If many rows are not kept, codes are fitted to a sample of them.

    Args:
        table: Array of shape `(vocabulary, width)`.
        weights: Array of shape `(vocabulary,)`.
        num_parts, part_width, codebook_size, num_kept: Sizes of the codes.
        factors_dtype: `"float32"` or `"int8"`.
        **others: Other arguments of the layer. They are ignored.
    """
    order = kept_first(table, weights)
    kept, rest = order[:num_kept], order[num_kept:]
    lost = 0.0
    if factors_dtype == "int8":
        codes, scales = rows_in_bytes(table[kept])
        squares = squared_norms(codes * scales[:, None] - table[kept])
        lost = weights[kept] @ squares
    own = weights[rest]
    total = own.sum()
    if not total:
        return lost
    if len(rest) > _SAMPLE:
        # Half of the draws go by weight, half are uniform. A heavy row that is
        # left out would spoil the estimate, and so would a heavy row that has
        # a vector of the small sample's codebooks to itself.
        share = 0.5 / len(rest) + 0.5 * own / total
        chance = np.minimum(1, _SAMPLE * share)
        drawn = np.random.default_rng(0).random(len(rest)) < chance
        rest, own = rest[drawn], own[drawn] / chance[drawn]
    rows = table[rest]
    codebook_size = min(codebook_size, len(rows))
    found = product_codes(
        rows, num_parts, part_width, codebook_size, own, rounds=_ROUNDS
    )
    if factors_dtype == "int8":
        codebooks, projection, scales = factors_in_bytes(
            found.codebooks, found.projection
        )
        found = found._replace(
            codebooks=codebooks / 127,
            projection=projection * scales[:, None] / 127,
        )
    squares = squared_norms(decoded_rows(found) - rows)
    return lost + own @ squares * total / own.sum()
