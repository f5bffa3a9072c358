"""Rows and logits of product codes: a row is a few small integers."""

from typing import NamedTuple, Self

import keras
import numpy as np
from keras import ops

from keras_embcomp._types import Array, Factor, Tensor
from keras_embcomp.numerics.blocks import row_blocks
from keras_embcomp.numerics.covariance import Turning
from keras_embcomp.numerics.execution import Execution
from keras_embcomp.numerics.hashed.subvectors import sums_of_rows
from keras_embcomp.numerics.lookup import (
    inside_and_outside,
    likely_count,
    take_rows,
)
from keras_embcomp.numerics.streaming import RowScores, products
from keras_embcomp.numerics.wide_sums import plus_broadcast

_FEW_TOKENS, _LOGIT_BLOCKS = 8, 16


class ProductCodes(NamedTuple):
    """A table in product codes, as NumPy arrays.

    Row `i` is `concatenate(codebooks[p, codes[i, p]] for p) @ projection +
    mean`, or it is kept. The first code of a kept row is `codebook_size - 1`,
    which no other row uses; the other codes are the digits of its number among
    the kept rows, the smallest digit first.

    Attributes:
        codes: Integers of shape `(vocabulary, num_parts)`.
        codebooks: Shape `(num_parts, codebook_size, part_width)`.
        projection: Shape `(num_parts * part_width, width)`.
        mean: Shape `(width,)`.
        kept: Shape `(num_kept, width)`, or `None`.
    """

    codes: Array
    codebooks: Array
    projection: Array
    mean: Array
    kept: Array | None = None

    def returned(self, turning: Turning) -> Self:
        """Returns the codes of a table whose columns were turned."""
        kept = self.kept
        return self._replace(
            projection=turning.returned(self.projection),
            mean=turning.returned(self.mean[None])[0],
            kept=None if kept is None else turning.returned(kept),
        )


class KeptRows(NamedTuple):
    """Rows that are kept, as tensors.

    Attributes:
        rows: Shape `(num_kept, width)`, floats or int8.
        scales: Shape `(num_kept,)`, the scale of each int8 row, or `None`.
    """

    rows: Factor
    scales: Tensor | None


def smallest_dtype(codebook_size: int) -> str:
    """Returns the smallest integer dtype for codes that all backends have."""
    if codebook_size <= 2**8:
        return "uint8"
    return "int16" if codebook_size <= 2**15 else "int32"


def most_kept(num_parts: int, codebook_size: int) -> int:
    """Returns how many kept rows the codes can number, or 2**64 and more."""
    if codebook_size == 1:
        return 0
    # A large number of parts would take all time and memory.
    return codebook_size ** min(num_parts - 1, 64)


def kept_codes(num_kept: int, num_parts: int, codebook_size: int) -> Array:
    """Returns the codes of the kept rows in order, `(num_kept, num_parts)`."""
    codes = np.zeros((num_kept, num_parts), "int64")
    codes[:, 0] = codebook_size - 1
    numbers = np.arange(num_kept)
    for digit in range(1, num_parts):
        numbers, codes[:, digit] = np.divmod(numbers, codebook_size)
    return codes


def kept_numbers(
    codes: Tensor, num_kept: int, codebook_size: int
) -> tuple[Tensor, Tensor]:
    """Returns whether each row is kept, and its number among the kept rows.

    Args:
        codes: Tensor or array of shape `(..., num_parts)`, integers of 32 bits
            or more.
        num_kept: Integer.
        codebook_size: Integer.
    """
    number, place = 0 * codes[..., 0], 1
    for digit in range(1, codes.shape[-1]):
        if place >= num_kept:
            break
        number = number + codes[..., digit] * place
        place *= codebook_size
    return codes[..., 0] == codebook_size - 1, number


def balanced_codes(
    vocabulary: int,
    num_parts: int,
    codebook_size: int,
    seed: int,
    num_kept: int = 0,
) -> Array:
    """Returns random codes that use all vectors of a codebook equally often.

    The shape is `(vocabulary, num_parts)`. The first `num_kept` rows are kept.
    """
    generator = np.random.default_rng(seed)
    used = [codebook_size] * num_parts
    if num_kept:
        used[0] -= 1
    words = np.arange(vocabulary)
    codes = np.stack(
        [generator.permutation(words % size) for size in used], axis=1
    )
    codes[:num_kept] = kept_codes(num_kept, num_parts, codebook_size)
    return codes


def decoded_rows(found: ProductCodes) -> Array:
    """Returns the table as a float32 array `(vocabulary, width)`."""
    vocabulary, num_parts = found.codes.shape
    rows = np.empty((vocabulary, found.projection.shape[1]), "float32")
    parts = np.arange(num_parts)
    for part in row_blocks(vocabulary):
        block = found.codes[part].astype("int64")
        pieces = found.codebooks[parts, block].reshape(len(block), -1)
        decoded = pieces @ found.projection + found.mean
        if found.kept is not None:
            size = found.codebooks.shape[1]
            kept, numbers = kept_numbers(block, len(found.kept), size)
            decoded[kept] = found.kept[numbers[kept]]
        rows[part] = decoded
    return rows


def nearest_codes(found: ProductCodes, rows: Array, sweeps: int = 4) -> Array:
    """Returns codes for rows, of vectors that are there.

    Each part takes the vector that is nearest with the others as they are, in
    turns.

    Args:
        found: Codes of a table.
        rows: Array of shape `(count, width)`.
        sweeps: Integer. How often each part is chosen.
    """
    parts, size, width = found.codebooks.shape
    pieces = np.einsum(
        "pkw,pwd->pkd",
        found.codebooks,
        found.projection.reshape(parts, width, -1),
    )
    if found.kept is not None:  # the last vector of part 0 marks kept rows
        pieces[0, -1] = np.inf
    codes = np.zeros((len(rows), parts), found.codes.dtype)
    for codes_of_row, row in zip(codes, rows - found.mean, strict=True):
        for part in list(range(parts)) * sweeps:
            others = pieces[np.arange(parts), codes_of_row].sum(axis=0)
            rest = row - others + pieces[part, codes_of_row[part]]
            errors = np.square(rest - pieces[part]).sum(axis=1)
            codes_of_row[part] = np.argmin(errors)
    return codes


def coded_rows(
    execution: Execution,
    ids: Tensor,
    codes: Tensor,
    codebooks: Factor,
    projection: Tensor,
    mean: Tensor,
    kept: KeptRows | None = None,
) -> Tensor:
    """Returns the rows of ids, of shape `(*ids.shape, width)`.

    Args:
        execution: How the call runs.
        ids: Integer tensor.
        codes: Integer tensor of shape `(vocabulary, num_parts)`.
        codebooks: Tensor of shape `(num_parts * codebook_size, part_width)`.
        projection: Tensor of shape `(num_parts * part_width, width)`.
        mean: Tensor of shape `(width,)`.
        kept: `KeptRows` or `None`.
    """
    ids, outside = inside_and_outside(execution, ids, codes.shape[0])
    outside = ops.cast(outside, "int32")
    codes = ops.cast(execution.gather(codes, ids), "int32")
    beyond = ops.expand_dims(outside * codebooks.shape[0], -1)
    pieces = execution.take(codebooks, _places(codes, codebooks) + beyond)
    pieces = execution.with_lead(pieces, ids, 0, projection.shape[0])
    pieces = ops.cast(pieces, projection.dtype)
    rows = plus_broadcast(ops.matmul(pieces, projection), mean)
    if kept is None:
        return rows
    num_kept = kept.rows.shape[0]
    is_kept, numbers = _kept_numbers(codes, codebooks, num_kept)
    numbers = ops.where(is_kept, numbers, 0) + outside * num_kept
    whole_rows = ops.cast(execution.take(kept.rows, numbers), rows.dtype)
    if kept.scales is not None:
        scales = execution.gather(kept.scales, numbers)
        scales = ops.cast(ops.expand_dims(scales, -1), rows.dtype)
        whole_rows = whole_rows * scales
    return ops.where(ops.expand_dims(is_kept, -1), whole_rows, rows)


def coded_logits(
    execution: Execution,
    hidden: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    projection: Tensor,
    mean: Tensor,
    kept: KeptRows | None = None,
) -> Tensor:
    """Returns `hidden @ table.T`, of shape `(..., vocabulary)`.

    For few tokens, each part of the projected hidden states is multiplied with
    its codebook once, and the logit of a word is a sum of one product per part.
    For more tokens, blocks of words are decoded and multiplied, and decoded
    again for the gradients.

    Args:
        execution: How the call runs.
        hidden: Tensor of shape `(..., width)`.
        codes, codebooks, projection, mean, kept: As for `coded_rows`.
    """
    vocabulary, width = codes.shape[0], projection.shape[1]
    tokens = ops.reshape(hidden, (-1, width))
    codes = ops.cast(execution.kept_out(codes, tokens), "int32")
    few = likely_count(hidden.shape[:-1]) <= _FEW_TOKENS
    summed = few or execution.exporting
    sums = _summed_products if summed else _decoded_products

    def logits_of(tokens: Tensor) -> Tensor:
        turned = ops.matmul(projection, ops.transpose(tokens))
        logits = sums(execution, turned, codes, codebooks)
        offset = ops.matmul(ops.expand_dims(mean, 0), ops.transpose(tokens))
        logits = plus_broadcast(logits, offset)
        if kept is not None:
            others = tokens, codes, codebooks, kept
            logits = _with_kept(execution, logits, *others)
        return ops.transpose(logits)

    logits = execution.of_tokens(logits_of, tokens)
    return execution.with_lead(logits, hidden, 1, vocabulary)


def coded_scores(
    execution: Execution,
    tokens: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    projection: Tensor,
    mean: Tensor,
    kept: KeptRows | None = None,
) -> RowScores:
    """Returns the `RowScores` of hidden states of shape `(tokens, width)`.

    The hidden states are projected to the width of decoded words, not the
    words to the width of hidden states. Only kept rows have that width.

    Args:
        execution: How the call runs.
        tokens: Tensor of shape `(tokens, width)`.
        codes, codebooks, projection, mean, kept: As for `coded_rows`.
    """
    directions = projection.shape[0]
    turned = ops.matmul(tokens, ops.transpose(projection))
    offset = ops.matmul(tokens, ops.expand_dims(mean, 1))
    shared: tuple[Tensor, ...] = (turned, offset, codebooks)
    num_kept = 0
    if kept is not None:
        rows = execution.whole(kept.rows, tokens.dtype)
        num_kept = rows.shape[0]
        if kept.scales is not None:
            rows = rows * ops.cast(ops.expand_dims(kept.scales, 1), rows.dtype)
        shared = (*shared, tokens, rows)

    def scores(
        turned: Tensor, offset: Tensor, codebooks: Tensor, *rest: Tensor
    ) -> Tensor:
        *kept, codes = rest
        codes = ops.cast(codes, "int32")
        pieces = take_rows(codebooks, _places(codes, codebooks))
        pieces = ops.reshape(pieces, (-1, directions))
        logits = plus_broadcast(products(turned, pieces), offset)
        if not kept:
            return logits
        tokens, rows = kept
        is_kept, numbers = _kept_numbers(codes, codebooks, num_kept)
        rows = execution.gather(rows, ops.where(is_kept, numbers, 0))
        return ops.where(is_kept, products(tokens, rows), logits)

    return RowScores(scores, shared, (), (codes,), codes.shape[0])


def _summed_products(
    execution: Execution, turned: Tensor, codes: Tensor, codebooks: Tensor
) -> Tensor:
    """Returns logits `(vocabulary, tokens)`: sums of codebooks' products."""
    num_parts, part_width = codes.shape[1], codebooks.shape[1]
    turned = ops.reshape(turned, (num_parts, part_width, -1))
    books = ops.reshape(codebooks, (num_parts, -1, part_width))
    products = ops.reshape(ops.matmul(books, turned), (codebooks.shape[0], -1))
    return sums_of_rows(execution, products, _places(codes, codebooks))


def _decoded_products(
    execution: Execution, turned: Tensor, codes: Tensor, codebooks: Tensor
) -> Tensor:
    """Returns logits `(vocabulary, tokens)`: products with decoded words."""
    vocabulary, directions = codes.shape[0], turned.shape[0]

    def block(turned: Tensor, codebooks: Tensor, codes: Tensor) -> Tensor:
        pieces = take_rows(codebooks, _places(codes, codebooks))
        return ops.matmul(ops.reshape(pieces, (-1, directions)), turned)

    if not isinstance(turned, keras.KerasTensor):
        block = keras.remat(block)
    size = -(-vocabulary // _LOGIT_BLOCKS)
    return ops.concatenate(
        [
            block(turned, codebooks, codes[start : start + size])
            for start in range(0, vocabulary, size)
        ]
    )


def _with_kept(
    execution: Execution,
    logits: Tensor,
    tokens: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    kept: KeptRows,
) -> Tensor:
    """Returns logits `(vocabulary, tokens)`, corrected for the kept rows."""
    num_kept = kept.rows.shape[0]
    rows = execution.rows_between(kept.rows, 0, num_kept, tokens.dtype, tokens)
    products = ops.matmul(rows, ops.transpose(tokens))
    if kept.scales is not None:
        scales = ops.cast(ops.expand_dims(kept.scales, 1), tokens.dtype)
        products = products * scales
    is_kept, numbers = _kept_numbers(codes, codebooks, num_kept)
    chosen = execution.gather(products, ops.where(is_kept, numbers, 0))
    return ops.where(ops.expand_dims(is_kept, 1), chosen, logits)


def _kept_numbers(
    codes: Tensor, codebooks: Tensor, num_kept: int
) -> tuple[Tensor, Tensor]:
    size = codebooks.shape[0] // codes.shape[-1]
    return kept_numbers(codes, num_kept, size)


def _places(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Returns the rows of `codebooks` that int32 codes stand for."""
    num_parts = codes.shape[-1]
    size = codebooks.shape[0] // num_parts
    return codes + ops.arange(num_parts, dtype="int32") * size
