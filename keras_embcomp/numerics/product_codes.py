"""Product codes on a rotated table: a row is a few small integers.

The table is turned to its principal directions; these are dealt to parts so
that each carries as much (Ge et al. 2013, "eigenvalue allocation"), and each
part of a row is replaced by the nearest of a few vectors, its codebook.
"""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_embcomp.numerics.backends import exporting, unfolded_zero
from keras_embcomp.numerics.hashed import sums_of_rows
from keras_embcomp.numerics.lookup import (
    gather_rows,
    inside_and_outside,
    likely_count,
    take_rows,
)
from keras_embcomp.numerics.low_rank import weighted_gram

_BLOCK_ROWS = 16_384
_LEAST_WEIGHT = 1e-6  # of the mean; a codebook needs some weight everywhere


class ProductCodes(NamedTuple):
    """A table in product codes, as NumPy arrays.

    Row `i` is `concatenate(codebooks[p, codes[i, p]] for p) @ projection +
    mean`.

    Attributes:
        codes: Integers of shape `(vocabulary, num_parts)`.
        codebooks: Shape `(num_parts, codebook_size, part_width)`.
        projection: Shape `(num_parts * part_width, width)`.
        mean: Shape `(width,)`.
    """

    codes: np.ndarray
    codebooks: np.ndarray
    projection: np.ndarray
    mean: np.ndarray


def smallest_dtype(codebook_size):
    """Returns the integer type for codes below a size, on every backend."""
    if codebook_size <= 2**8:
        return "uint8"
    return "int16" if codebook_size <= 2**15 else "int32"


def balanced_codes(vocabulary, num_parts, codebook_size, seed):
    """Returns random codes that use each vector of a codebook alike."""
    generator = np.random.default_rng(seed)
    codes = np.arange(vocabulary) % codebook_size
    return np.stack(
        [generator.permutation(codes) for _ in range(num_parts)], axis=1
    )


def deal_directions(variances, num_parts, part_width):
    """Returns which directions each part gets, in the order of parts.

    The largest next variance goes to the part with the least product of
    variances that has room (Ge et al. 2013, section 3.2.1).

    Args:
        variances: Falling, not negative.
        num_parts: Integer.
        part_width: Integer; `num_parts * part_width` directions are dealt.
    """
    # Of the smallest dealt, so that no logarithm is below 0.
    dealt = np.maximum(variances[: num_parts * part_width], 1e-30)
    logarithms = np.log(dealt / dealt[-1]) + 1e-9
    carried, parts = np.zeros(num_parts), [[] for _ in range(num_parts)]
    for direction, logarithm in enumerate(logarithms):
        poorest = np.argmin(carried)
        parts[poorest].append(direction)
        carried[poorest] += logarithm
        if len(parts[poorest]) == part_width:
            carried[poorest] = np.inf
    return np.concatenate(parts)


def part_sizes(table, max_bytes, weights, codebook_size=256, factor_bytes=4):
    """Returns the number of parts and their width for a budget of bytes.

    Of all widths with as many parts as fit, the one with the least error that
    is expected of Gaussian columns: what is left out, and for what is kept, the
    geometric mean of its variances times `2**(-2 bits / part_width)`.

    Args:
        table: Array of shape `(vocabulary, width)`.
        max_bytes: Number. Codes, codebooks, projection, mean and, for factors
            of one byte, scales take at most so many.
        weights: Array of shape `(vocabulary,)`, of mean 1.
        codebook_size: Integer.
        factor_bytes: 4, 2 or 1, as `factors_dtype`.

    Raises:
        ValueError: if one part is too much; says how much it takes.
    """
    vocabulary, width = table.shape
    mean = weights @ table / len(table)
    gram = weighted_gram(table - mean, weights) / weights.sum()
    variances = np.maximum(np.linalg.eigvalsh(gram)[::-1], 1e-30)
    logarithms = np.cumsum(np.log(variances))
    left_out = variances.sum() - np.cumsum(variances)
    code = np.dtype(smallest_dtype(codebook_size)).itemsize
    sizes = []
    for part_width in range(1, width + 1):
        scales = 4 * part_width if factor_bytes == 1 else 0
        numbers = part_width * (codebook_size + width)
        one = vocabulary * code + factor_bytes * numbers + scales
        parts = min(int((max_bytes - 4 * width) / one), width // part_width)
        if parts < 1:
            if part_width == 1:
                raise ValueError(
                    f"`max_bytes` must be at least {one + 4 * width}, which is "
                    f"one code a row. Received: max_bytes={max_bytes}"
                )
            break
        kept = parts * part_width
        bits = np.log2(codebook_size)
        error = kept * np.exp(logarithms[kept - 1] / kept)
        error *= 2.0 ** (-2 * bits / part_width)
        sizes.append((error + left_out[kept - 1], parts, part_width))
    _, parts, part_width = min(sizes)
    return parts, part_width


def product_codes(
    table, num_parts, part_width, codebook_size, weights, seed=0, progress=None
):
    """Fits product codes to a table.

    Args:
        table: Array of shape `(vocabulary, width)`.
        num_parts: Integer. Codes of a row.
        part_width: Integer. `num_parts * part_width` directions are kept.
        codebook_size: Integer, at most the vocabulary.
        weights: Array of shape `(vocabulary,)`, of mean 1.
        seed: Integer. Seed of k-means.
        progress: A function of an iterable, such as `tqdm`.

    Returns:
        `ProductCodes` whose projection and mean have the least weighted sum of
        squared errors for the codes and codebooks.
    """
    vocabulary = len(table)
    weights = np.maximum(weights, _LEAST_WEIGHT)
    mean = (weights @ table / weights.sum()).astype("float32")
    centred = table.astype("float32") - mean
    variances, directions = np.linalg.eigh(weighted_gram(centred, weights))
    order = deal_directions(variances[::-1], num_parts, part_width)
    turned = centred @ directions[:, ::-1][:, order].astype("float32")
    codes = np.empty((vocabulary, num_parts), smallest_dtype(codebook_size))
    codebooks = np.empty((num_parts, codebook_size, part_width), "float32")
    parts = range(num_parts)
    for part in parts if progress is None else progress(parts):
        columns = slice(part * part_width, (part + 1) * part_width)
        codebooks[part], codes[:, part] = _clustered(
            turned[:, columns], codebook_size, weights, seed + part
        )
        turned[:, columns] = codebooks[part][codes[:, part]]
    return ProductCodes(codes, codebooks, *_regression(turned, table, weights))


def _clustered(rows, size, weights, seed):
    """Returns the centres of k-means and which of them is nearest a row."""
    import faiss

    rows = np.ascontiguousarray(rows)
    means = faiss.Kmeans(
        rows.shape[1], size, niter=25, seed=seed, min_points_per_centroid=1
    )
    means.train(rows, weights=weights.astype("float32"))
    _, nearest = means.index.search(rows, 1)
    return means.centroids, nearest[:, 0]


def _regression(features, table, weights):
    """Returns the projection and the mean with the least weighted error."""
    features = np.pad(features, ((0, 0), (0, 1)), constant_values=1)
    weighted = features * weights[:, None].astype("float32")
    gram = (weighted.T @ features).astype("float64")
    product = (weighted.T @ table).astype("float64")
    solution = np.linalg.lstsq(gram, product, rcond=None)[0].astype("float32")
    return solution[:-1], solution[-1]


def in_bytes(codebooks, projection):
    """Returns whole numbers up to 127 in the place of both, and scales.

    Each direction has a scale of its own in both factors. As one multiplies the
    other, their product is the one scale, of a row of the projection.
    """
    largest = np.abs(codebooks).max(axis=1)  # of each part and direction
    largest = np.maximum(largest, 1e-30)
    projection = projection * largest.reshape(-1, 1) / 127
    scales = np.maximum(np.abs(projection).max(axis=1), 1e-30) / 127
    codebooks = np.round(codebooks / largest[:, None] * 127)
    return codebooks, np.round(projection / scales[:, None]), scales


def decoded_rows(found):
    """Returns the table of `ProductCodes` as a float32 array."""
    vocabulary, num_parts = found.codes.shape
    rows = np.empty((vocabulary, found.projection.shape[1]), "float32")
    parts = np.arange(num_parts)
    for start in range(0, vocabulary, _BLOCK_ROWS):
        block = found.codes[start : start + _BLOCK_ROWS].astype("int64")
        pieces = found.codebooks[parts, block].reshape(len(block), -1)
        rows[start : start + len(block)] = pieces @ found.projection
    return rows + found.mean


def coded_rows(ids, codes, codebooks, projection, mean):
    """Returns the rows of ids, of shape `(*ids.shape, width)`.

    Args:
        ids: Integer tensor.
        codes: Integer tensor of shape `(vocabulary, num_parts)`.
        codebooks: Tensor of shape `(num_parts * codebook_size, part_width)`.
        projection: Tensor of shape `(num_parts * part_width, width)`.
        mean: Tensor of shape `(width,)`.
    """
    ids, outside = inside_and_outside(ids, codes.shape[0])
    found = _places(gather_rows(codes, ids), codebooks)
    beyond = ops.cast(outside, "int32") * (2 * codebooks.shape[0])
    pieces = take_rows(codebooks, found + ops.expand_dims(beyond, -1))
    pieces = ops.reshape(pieces, (*ops.shape(ids), projection.shape[0]))
    return ops.add(ops.matmul(pieces, projection), mean)


def coded_logits(hidden, codes, codebooks, projection, mean):
    """Returns `hidden @ table.T`, of shape `(..., vocabulary)`.

    For fewer tokens than the width: the products of each part of the turned
    hidden states with its codebook, once; then a sum of one product a part for
    each word. For more, the table takes less memory than the logits, and one
    product with it less time.
    """
    vocabulary, num_parts = codes.shape
    directions, width = projection.shape
    tokens = ops.reshape(hidden, (-1, width))
    shape = (*ops.shape(hidden)[:-1], vocabulary)
    bias = ops.matmul(tokens, ops.expand_dims(mean, 1))
    if exporting():
        import tensorflow as tf

        # A converter would store the places of the codes as wide integers.
        every = tf.range(vocabulary + unfolded_zero(tokens))
        codes = tf.gather(codes, tf.reshape(every, (vocabulary,)))
    places = _places(codes, codebooks)
    turned = ops.matmul(tokens, ops.transpose(projection))
    if likely_count(hidden.shape[:-1]) > width and not exporting():
        pieces = ops.reshape(take_rows(codebooks, places), (-1, directions))
        logits = ops.matmul(turned, ops.transpose(pieces))
    else:
        turned = ops.reshape(turned, (-1, num_parts, codebooks.shape[1]))
        books = ops.reshape(codebooks, (num_parts, -1, codebooks.shape[1]))
        products = ops.matmul(books, ops.transpose(turned, (1, 2, 0)))
        products = ops.reshape(products, (codebooks.shape[0], -1))
        logits = ops.transpose(sums_of_rows(products, places))
    return ops.reshape(ops.add(logits, bias), shape)


def _places(codes, codebooks):
    """Returns where the vectors of codes are in all codebooks."""
    num_parts = codes.shape[-1]
    size = codebooks.shape[0] // num_parts
    offsets = np.arange(num_parts, dtype="int32") * size
    return ops.cast(codes, "int32") + offsets
