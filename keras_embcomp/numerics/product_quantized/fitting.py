"""Fits product codes to a table.

The table is rotated to its principal directions. The directions are dealt to
parts so that all parts carry about the same variance (Ge et al. 2013,
"eigenvalue allocation"). Each part of a row is then replaced by the nearest
vector of a codebook.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import finite_table
from keras_embcomp.numerics.blocks import row_blocks, squared_norms, unit_of
from keras_embcomp.numerics.low_rank import weighted_gram
from keras_embcomp.numerics.product_quantized.codes import (
    ProductCodes,
    kept_codes,
    smallest_dtype,
)

# Wraps an iterable to show progress.
Progress: TypeAlias = Callable[[Iterable[int]], Iterable[int]]

_NARROW = 8
_REGRESSED = 4_096  # rows in float64
_NOISE = 1e-12  # of the largest variance
_LEAST_WEIGHT = 1e-6  # relative to the mean; k-means needs weights above 0


def check_rows_differ(table: ArrayLike) -> Array:
    """Returns a finite table; raises a `ValueError` if all rows are equal."""
    table = finite_table("table", table)
    if not np.any(table != table[0]):
        raise ValueError(
            "`table` must have rows that differ. "
            f"Received: {len(table)} rows that are alike"
        )
    return table


def deal_directions(variances: Array, num_parts: int, part_width: int) -> Array:
    """Returns which directions each part gets, in the order of parts.

    The next largest variance goes to the part with the least product of
    variances among the parts that have room (Ge et al. 2013, section 3.2.1).

    Args:
        variances: Array in falling order, not negative.
        num_parts: Integer.
        part_width: Integer; at most `num_parts * part_width` directions are
            dealt.

    Returns:
        Integers of shape `(num_parts * part_width,)`. If there are fewer
        directions than places, each empty place holds `len(variances)`.
    """
    # Divided by the smallest that is dealt, so that no logarithm is below 0.
    dealt = np.maximum(variances[: num_parts * part_width], 1e-30)
    logarithms = np.log(dealt / dealt[-1]) + 1e-9
    carried, counts = np.zeros(num_parts), np.zeros(num_parts, "int64")
    places = np.full((num_parts, part_width), len(variances))
    for direction, logarithm in enumerate(logarithms):
        poorest = np.argmin(carried)
        places[poorest, counts[poorest]] = direction
        carried[poorest] += logarithm
        counts[poorest] += 1
        if counts[poorest] == part_width:
            carried[poorest] = np.inf
    return places.ravel()


def product_codes(
    table: Array,
    num_parts: int,
    part_width: int,
    codebook_size: int,
    weights: Array,
    num_kept: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
    rounds: int = 25,
) -> ProductCodes:
    """Fits product codes to a table.

    Args:
        table: Array of shape `(vocabulary, width)`.
        num_parts: Integer. Number of codes of a row.
        part_width: Integer. At most `num_parts * part_width` directions are
            used. Places beyond the width are zeros.
        codebook_size: Integer, at most the vocabulary.
        weights: Array of shape `(vocabulary,)`, of mean 1.
        num_kept: Integer. Number of rows that are kept.
        seed: Integer. Seed of k-means.
        progress: A function that wraps an iterable to show progress.
        rounds: Integer. Rounds of k-means.

    Returns:
        `ProductCodes` whose projection and mean have the least weighted sum of
        squared errors for the codes and codebooks.

    Raises:
        ImportError: if faiss is not installed.
    """
    unit = unit_of(table)
    rows, weights, which = _distinct(
        table / unit if unit != 1 else table,
        np.maximum(weights, _LEAST_WEIGHT),
    )
    whole, coded = np.arange(0), rows
    rest: Any = slice(None)
    if num_kept:
        order = kept_first(rows, weights)
        most = min(num_kept, len(rows) - 1)  # k-means needs one
        whole, rest = order[:most], order[most:]
        coded = rows[rest]
    codes = np.zeros((len(rows), num_parts), smallest_dtype(codebook_size))
    codes[whole] = kept_codes(len(whole), num_parts, codebook_size)
    codes[rest], codebooks, projection, mean = _coded(
        coded,
        num_parts,
        part_width,
        codebook_size,
        num_kept > 0,
        weights[rest],
        seed,
        progress,
        rounds,
    )
    kept = None
    if num_kept:
        kept = np.zeros((num_kept, table.shape[1]), "float32")
        kept[: len(whole)] = rows[whole]
    found = ProductCodes(codes[which], codebooks, projection, mean, kept)
    if unit == 1:
        return found
    return found._replace(
        projection=projection * np.float32(unit),
        mean=mean * np.float32(unit),
        kept=None if kept is None else kept * np.float32(unit),
    )


def kept_first(table: Array, weights: Array) -> Array:
    """Returns the row numbers in the order in which rows should be kept.

    Rows with the largest weighted squared distance from the mean come first.
    """
    mean = weights @ table / weights.sum()
    mean = mean.astype(table.dtype)
    losses = np.empty(len(table))
    for part in row_blocks(len(table)):
        losses[part] = weights[part] * squared_norms(table[part] - mean)
    return np.argsort(-losses, kind="stable")


def _coded(
    rows: Array,
    num_parts: int,
    part_width: int,
    size: int,
    marks: bool,
    weights: Array,
    seed: int,
    progress: Progress | None,
    rounds: int,
) -> tuple[Array, Array, Array, Array]:
    """Returns codes, codebooks, projection and mean of distinct rows.

    With `marks`, the first part has one vector less, because the last code of
    its codebook marks the kept rows.
    """
    mean = (weights @ rows / weights.sum()).astype("float32")
    gram = weighted_gram(rows, weights, mean)
    variances, directions = np.linalg.eigh(gram)
    # Their numbers are rounding errors: nothing may be divided by them.
    directions[:, variances < _NOISE * variances[-1]] = 0
    order = deal_directions(variances[::-1], num_parts, part_width)
    directions = np.pad(directions[:, ::-1], ((0, 0), (0, 1)))
    directions = directions[:, order].astype("float32")
    turned = np.empty((len(rows), len(order)), "float32")
    for block in row_blocks(len(rows)):
        turned[block] = (rows[block] - mean) @ directions
    codes = np.empty((len(rows), num_parts), smallest_dtype(size))
    codebooks = np.zeros((num_parts, size, part_width), "float32")
    parts = range(num_parts)
    for part in parts if progress is None else progress(parts):
        columns = slice(part * part_width, (part + 1) * part_width)
        used = size - (marks and part == 0)
        codebooks[part, :used], codes[:, part] = _clustered(
            turned[:, columns], used, weights, seed + part, rounds
        )
        turned[:, columns] = codebooks[part][codes[:, part]]

    def blocks() -> Iterable[tuple[slice, Array]]:
        return ((b, turned[b]) for b in row_blocks(len(rows), _REGRESSED))

    return codes, codebooks, *regression(blocks, rows, weights)


def _clustered(
    rows: Array, size: int, weights: Array, seed: int, rounds: int
) -> tuple[Array, Array]:
    """Returns the centres of k-means, and the nearest centre of each row.

    The first centres are rows drawn by their weights.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "Codebooks are found by faiss: pip install 'keras_embcomp[codes]'"
        ) from error

    width = rows.shape[1]
    if len(rows) <= size:
        return np.resize(rows, (size, width)), np.arange(len(rows))
    # faiss takes ten times as long for narrower rows.
    narrow = max(_NARROW - width, 0)
    rows = np.ascontiguousarray(np.pad(rows, ((0, 0), (0, narrow))))
    generator = np.random.default_rng(seed)
    drawn = generator.choice(
        len(rows), size, replace=False, p=weights / weights.sum()
    )
    means: Any = faiss.Kmeans(
        rows.shape[1],
        size,
        niter=rounds,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=-(-len(rows) // size),  # all of them
    )
    means.train(
        rows, weights=weights.astype("float32"), init_centroids=rows[drawn]
    )
    _, nearest = means.index.search(rows, 1)
    return means.centroids[:, :width], nearest[:, 0]


def _distinct(table: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Returns distinct rows, their weights, and the distinct row of each row.

    Equal rows would start several centres in the same place. Rows are told
    apart by two random sums of their bits, modulo 2**64: sorting the rows
    themselves would copy the table several times.
    """
    generator = np.random.default_rng(0)
    factors = generator.integers(0, 2**64, (table.shape[1], 2), "uint64")
    keys = np.empty((len(table), 2), "uint64")
    for part in row_blocks(len(table), 1_024):
        block = np.asarray(table[part], "float32") + np.float32(0)  # -0 is 0
        bits = np.ascontiguousarray(block).view("uint32").astype("uint64")
        keys[part] = bits @ (factors | np.uint64(1))
    _, first, which = np.unique(
        keys.view("V16").ravel(), return_index=True, return_inverse=True
    )
    if len(first) == len(table):
        return table, weights, np.arange(len(table))
    place = np.argsort(np.argsort(first))  # in the order of the table
    first, which = np.sort(first), place[which]
    return table[first], np.bincount(which, weights), which


def regression(
    blocks: Callable[[], Iterable[tuple[Any, Array]]],
    table: Array,
    weights: Array,
) -> tuple[Array, Array]:
    """Returns the projection and the mean with the least weighted error.

    Args:
        blocks: Function that returns blocks of rows: which rows, and their
            features. It is called twice.
        table: Array of shape `(vocabulary, width)`.
        weights: Array of shape `(vocabulary,)`.
    """
    norms: Any = 0.0
    for rows, features in blocks():
        norms = norms + weights[rows] @ np.square(_and_one(features))
    norms = np.where(norms > 0, np.sqrt(norms), 1.0)
    gram = np.zeros((len(norms), len(norms)))
    product = np.zeros((len(norms), table.shape[1]))
    for rows, features in blocks():
        own = _and_one(features) / norms
        weighted = (own * weights[rows, None]).T
        gram += weighted @ own
        product += weighted @ table[rows]
    # Of features that depend on others, as those of few distinct rows do, the
    # smallest solution: one with large numbers would not survive rounding.
    solution = np.linalg.lstsq(gram, product, rcond=_NOISE)[0]
    solution = (solution / norms[:, None]).astype("float32")
    return solution[:-1], solution[-1]


def _and_one(features: Array) -> Array:
    """Returns features in float64, and the one that is multiplied by a mean."""
    features = features.astype("float64")
    return np.pad(features, ((0, 0), (0, 1)), constant_values=1)


def factors_in_bytes(
    codebooks: Array, projection: Array
) -> tuple[Array, Array, Array]:
    """Returns both factors as int8, and the scales of the projection's rows.

    The int8 numbers are 127 times numbers from -1 to 1. Each direction has a
    scale in both factors; only the product of the two scales is stored.

    Args:
        codebooks: Array of shape `(num_parts, codebook_size, part_width)`.
        projection: Array of shape `(num_parts * part_width, width)`.
    """
    largest = np.abs(codebooks).max(axis=1)
    largest = np.where(largest > 0, largest, 1)
    projection = projection * largest.reshape(-1, 1)
    scales = np.abs(projection).max(axis=1)
    scales = np.where(scales > 0, scales, 1)
    codebooks = np.round(127 * (codebooks / largest[:, None])).astype("int8")
    projection = np.round(127 * (projection / scales[:, None])).astype("int8")
    return codebooks, projection, scales


def rows_in_bytes(rows: Array) -> tuple[Array, Array]:
    """Returns rows as int8, and the scale of each row."""
    scales = np.abs(rows).max(axis=1) / 127
    divided = rows / np.maximum(scales, 1e-38)[:, None]
    return np.round(divided).astype("int8"), scales
