"""Product codes: a row is a few small integers, and a projection."""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_embcomp.numerics.backends import exporting, unfolded_rows
from keras_embcomp.numerics.hashed import sums_of_rows
from keras_embcomp.numerics.lookup import (
    gather_rows,
    inside_and_outside,
    likely_count,
    take_rows,
)

_BLOCK_ROWS = 16_384


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
        codes = unfolded_rows(codes, tokens)
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
