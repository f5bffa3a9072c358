"""Fits product codes to a table.

The table is turned to its principal directions; these are dealt to parts so
that each carries as much (Ge et al. 2013, "eigenvalue allocation"), and each
part of a row is replaced by the nearest of a few vectors, its codebook.
"""

import numpy as np

from keras_embcomp.numerics.low_rank import weighted_gram
from keras_embcomp.numerics.product_codes import ProductCodes, smallest_dtype

_NARROW = 8
_LEAST_WEIGHT = 1e-6  # of the mean; a codebook needs some weight everywhere


def deal_directions(variances, num_parts, part_width):
    """Returns which directions each part gets, in the order of parts.

    The largest next variance goes to the part with the least product of
    variances that has room (Ge et al. 2013, section 3.2.1).

    Args:
        variances: Falling, not negative.
        num_parts: Integer.
        part_width: Integer; at most `num_parts * part_width` directions are
            dealt.

    Returns:
        Integers of shape `(num_parts * part_width,)`. Where there are fewer
        directions than places, an empty place has the number of directions.
    """
    # Of the smallest dealt, so that no logarithm is below 0.
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


def part_sizes(table, max_bytes, weights, codebook_size=256, factor_bytes=4):
    """Returns the number of parts and their width for a budget of bytes.

    Of all widths with as many parts as fit, the one with the least error that
    Gaussian columns allow for the bits of a row: that of reverse water-filling
    of the directions that are kept, and all of the others. A part has at most
    twice as many columns as its code has bits.

    Args:
        table: Array of shape `(vocabulary, width)`.
        max_bytes: Number. Codes, codebooks, projection, mean and, for factors
            of one byte, scales take at most so many.
        weights: Array of shape `(vocabulary,)`, of mean 1.
        codebook_size: Integer.
        factor_bytes: 4 or 1, as `factors_dtype`.

    Raises:
        ValueError: if one part is too much; says how much it takes.
    """
    vocabulary, width = table.shape
    variances = principal_variances(table, weights)
    code = np.dtype(smallest_dtype(codebook_size)).itemsize
    sizes = []
    bits = np.log2(codebook_size)
    for part_width in range(1, min(width, int(2 * bits)) + 1):
        scales = 4 * part_width if factor_bytes == 1 else 0
        numbers = part_width * (codebook_size + width)
        one = vocabulary * code + factor_bytes * numbers + scales
        parts = min(int((max_bytes - 4 * width) / one), width)
        if parts * (part_width - 1) >= width:  # narrower ones would do
            parts = (width - 1) // (part_width - 1)
        if parts < 1:
            if part_width == 1:
                raise ValueError(
                    f"`max_bytes` must be at least {one + 4 * width}, which is "
                    f"one code a row. Received: max_bytes={max_bytes}"
                )
            break
        kept = min(parts * part_width, width)
        error = water_filled(variances[:kept], parts * bits).sum()
        error += variances[kept:].sum()
        sizes.append((error, parts, part_width))
    _, parts, part_width = min(sizes)
    return parts, part_width


def principal_variances(table, weights):
    """Returns the variances of a table along its directions, falling.

    Args:
        table: Array of shape `(vocabulary, width)`.
        weights: Array of shape `(vocabulary,)`.
    """
    mean = weights @ table / weights.sum()
    gram = weighted_gram(table - mean, weights) / weights.sum()
    return np.maximum(np.linalg.eigvalsh(gram)[::-1], 1e-30)


def water_filled(variances, bits):
    """Returns the least errors of Gaussian columns at so many bits a row.

    They are the variances, none of them above a level (reverse water-filling,
    Cover and Thomas 2006, Theorem 10.3.3).
    """
    low, high = 0.0, variances.max()
    for _ in range(60):
        level = (low + high) / 2
        used = 0.5 * np.log2(variances / np.minimum(variances, level)).sum()
        low, high = (level, high) if used > bits else (low, level)
    return np.minimum(variances, high)


def product_codes(
    table, num_parts, part_width, codebook_size, weights, seed=0, progress=None
):
    """Fits product codes to a table.

    Args:
        table: Array of shape `(vocabulary, width)`.
        num_parts: Integer. Codes of a row.
        part_width: Integer. At most `num_parts * part_width` directions are
            kept; places beyond the width are zeros.
        codebook_size: Integer, at most the vocabulary.
        weights: Array of shape `(vocabulary,)`, of mean 1.
        seed: Integer. Seed of k-means.
        progress: A function of an iterable, such as `tqdm`.

    Returns:
        `ProductCodes` whose projection and mean have the least weighted sum of
        squared errors for the codes and codebooks.
    """
    rows, weights, which = _distinct(table, np.maximum(weights, _LEAST_WEIGHT))
    mean = (weights @ rows / weights.sum()).astype("float32")
    centred = rows - mean
    variances, directions = np.linalg.eigh(weighted_gram(centred, weights))
    order = deal_directions(variances[::-1], num_parts, part_width)
    directions = np.pad(directions[:, ::-1], ((0, 0), (0, 1)))
    turned = centred @ directions[:, order].astype("float32")
    codes = np.empty((len(rows), num_parts), smallest_dtype(codebook_size))
    codebooks = np.empty((num_parts, codebook_size, part_width), "float32")
    parts = range(num_parts)
    for part in parts if progress is None else progress(parts):
        columns = slice(part * part_width, (part + 1) * part_width)
        codebooks[part], codes[:, part] = _clustered(
            turned[:, columns], codebook_size, weights, seed + part
        )
        turned[:, columns] = codebooks[part][codes[:, part]]
    factors = _regression(turned, rows, weights)
    return ProductCodes(codes[which], codebooks, *factors)


def _clustered(rows, size, weights, seed):
    """Returns the centres of k-means and which of them is nearest a row.

    It starts from rows drawn by their weights.
    """
    import faiss

    width = rows.shape[1]
    if len(rows) <= size:
        return np.resize(rows, (size, width)), np.arange(len(rows))
    # Of rows below this width faiss takes ten times as long.
    narrow = max(_NARROW - width, 0)
    rows = np.ascontiguousarray(np.pad(rows, ((0, 0), (0, narrow))))
    generator = np.random.default_rng(seed)
    drawn = generator.choice(
        len(rows), size, replace=False, p=weights / weights.sum()
    )
    means = faiss.Kmeans(
        rows.shape[1],
        size,
        niter=25,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=-(-len(rows) // size),  # all of them
    )
    means.train(
        rows, weights=weights.astype("float32"), init_centroids=rows[drawn]
    )
    _, nearest = means.index.search(rows, 1)
    return means.centroids[:, :width], nearest[:, 0]


def _distinct(table, weights):
    """Returns the rows that differ, their weights, and which one each row is.

    Rows that are alike would start several centres in the same place.
    """
    rows = np.ascontiguousarray(table, "float32") + np.float32(0)  # -0 is 0
    whole = np.dtype((np.void, rows.itemsize * rows.shape[1]))
    _, first, which = np.unique(
        rows.view(whole).ravel(), return_index=True, return_inverse=True
    )
    return rows[first], np.bincount(which, weights), which


def _regression(features, table, weights):
    """Returns the projection and the mean with the least weighted error."""
    features = np.pad(features, ((0, 0), (0, 1)), constant_values=1)
    norms = np.sqrt(weights @ np.square(features, dtype="float64"))
    norms = np.where(norms > 0, norms, 1.0)
    features = features / norms.astype("float32")
    weighted = features * weights[:, None].astype("float32")
    gram = (weighted.T @ features).astype("float64")
    product = (weighted.T @ table).astype("float64")
    solution = np.linalg.lstsq(gram, product, rcond=None)[0] / norms[:, None]
    solution = solution.astype("float32")
    return solution[:-1], solution[-1]


def normalised(codebooks, projection):
    """Returns both factors with numbers from -1 to 1, and scales.

    Each direction has a scale of its own in both factors. As one multiplies the
    other, their product is the one scale, of a row of the projection.
    """
    largest = np.maximum(np.abs(codebooks).max(axis=1), 1e-30)
    projection = projection * largest.reshape(-1, 1)
    scales = np.maximum(np.abs(projection).max(axis=1), 1e-30)
    return codebooks / largest[:, None], projection / scales[:, None], scales
