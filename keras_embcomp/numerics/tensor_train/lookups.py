"""Rows and logits of a tensor train, in `keras.ops`.

A core has the shape `(I, R, J, R')`, so that one digit of an id picks a slice
`(R, J, R')`. The table's entry in row `(i_1, ..., i_N)` and column
`(j_1, ..., j_N)`, first modes slowest, is the product of the matrices
`core_k[i_k, :, j_k, :]` (Khrulkov et al. 2019, Eq. 1).
"""

import math
from collections.abc import Sequence

import keras
from keras import ops

from keras_embcomp._types import Factor, Tensor
from keras_embcomp.numerics.execution import Execution
from keras_embcomp.numerics.lookup import inside_and_outside, likely_count
from keras_embcomp.numerics.small_products import batched_product
from keras_embcomp.numerics.streaming import RowScores, products
from keras_embcomp.numerics.tensor_train.contraction import (
    merged_cores,
    plan_logits,
    plan_rows,
)

# Most units of a slice of the first cores, when logits come in blocks.
_BLOCK = 4_096


def tt_rows(
    execution: Execution,
    ids: Tensor,
    cores: Sequence[Factor],
    vocabulary: int,
    dtype: str = "float32",
) -> Tensor:
    """Returns the rows `ids` of the table, of shape `(*ids.shape, width)`.

    The backward pass gathers the slices again. Stored, they could take more
    memory than the dense table.

    Args:
        execution: How the call runs.
        ids: Tensor of ids. Ids out of range do what they do in a dense table.
        cores: Tensors or quantized factors of shape `(I, R, J, R')`.
        vocabulary: Integer. Rows of the table without padding.
        dtype: The dtype of the result.
    """
    shapes = tuple(tuple(core.shape) for core in cores)
    plan = (1,) * len(cores)
    # A file may not know how many ids it gets.
    exporting = execution.exporting
    if not exporting or None not in tuple(ids.shape):
        plan = plan_rows(shapes, _static_count(ids.shape))
    if exporting and max(plan) > 1:  # a file would hold merged cores
        cores = [
            core if execution.is_packed(core) else execution.kept_out(core, ids)
            for core in cores
        ]
    packed = execution.is_packed(cores[0]) and max(plan) == 1
    if not packed:
        cores = [execution.whole(core, dtype, ids) for core in cores]
    tables = merged_cores(cores, plan)
    modes = [table.shape[0] for table in tables]
    digits = _digits(execution, ids, modes, vocabulary)
    # XLA clips digits: the last row must be one that is used.
    used = -(-vocabulary // math.prod(t.shape[0] for t in tables[1:]))
    if used < tables[0].shape[0] and not exporting:
        tables[0] = tables[0][:used]

    def chain(*tables: Factor) -> Tensor:
        return _chain_of_slices(execution, digits, tables)

    if packed:
        rows = ops.cast(chain(*tables), dtype)
    else:
        rows = (chain if exporting else keras.remat(chain))(*tables)
    width = math.prod(shape[2] for shape in shapes)
    return execution.with_lead(rows, ids, 0, width)


def tt_logits(
    execution: Execution,
    hidden: Tensor,
    cores: Sequence[Tensor],
    vocabulary: int,
) -> Tensor:
    """Returns `hidden @ table.T`, of shape `(*hidden.shape[:-1], vocabulary)`.

    Few tokens are contracted with the cores. For many, the table is
    materialised once. Padded rows are cut off.

    Args:
        execution: How the call runs.
        hidden: Tensor of shape `(..., width)`.
        cores: Tensors of shape `(I, R, J, R')`.
        vocabulary: Integer. Rows of the table without padding.
    """
    shapes = tuple(tuple(core.shape) for core in cores)
    plan = (1,) * len(cores)
    if not execution.exporting:
        plan = plan_logits(shapes, _static_count(hidden.shape[:-1]))
    columns = math.prod(shape[2] for shape in shapes)
    merged = merged_cores(cores, plan)

    def logits_of(tokens: Tensor) -> Tensor:
        logits = _logits_with_padding(tokens, merged)
        same = logits.shape[-1] == vocabulary
        return logits if same else logits[:, :vocabulary]

    tokens = ops.reshape(hidden, (-1, columns))
    logits = execution.of_tokens(logits_of, tokens)
    return execution.with_lead(logits, hidden, 1, vocabulary)


def _logits_with_padding(x: Tensor, cores: Sequence[Tensor]) -> Tensor:
    """Returns logits of `(tokens, width)`, with those of the padding."""
    columns, rows = x.shape[-1], 1
    for table in reversed(cores):
        # (tokens, columns left, J R', rows) -> (tokens, columns left, R I rows)
        mode, rank, column_mode, next_rank = table.shape
        columns //= column_mode
        matrix = ops.reshape(
            ops.transpose(table, (1, 0, 2, 3)),
            (rank * mode, column_mode * next_rank),
        )
        if rows == 1:
            x = ops.reshape(x, (-1, column_mode * next_rank))
            x = ops.matmul(x, ops.transpose(matrix))
        else:
            x = ops.reshape(x, (-1, column_mode * next_rank, rows))
            x = ops.matmul(matrix, x)
        rows *= mode
    return ops.reshape(x, (-1, rows))


def tt_scores(
    tokens: Tensor, cores: Sequence[Tensor], vocabulary: int
) -> RowScores:
    """Returns the `RowScores` of hidden states of shape `(tokens, width)`.

    The first cores are merged, and so are the other cores. A slice of the first
    core stands for one unit for each row of the other: few enough for a block.
    """
    modes = [core.shape[0] for core in cores]
    ends = range(1, len(cores))
    split = next((k for k in ends if math.prod(modes[k:]) <= _BLOCK), ends[-1])
    first, last = merged_cores(cores, (split, len(cores) - split))
    _, _, columns, rank = first.shape
    units, _, last_columns, _ = last.shape
    last = ops.transpose(last, (1, 0, 2, 3))
    last = ops.reshape(last, (rank, units * last_columns))

    def scores(tokens: Tensor, last: Tensor, first: Tensor) -> Tensor:
        rows = ops.matmul(ops.reshape(first, (-1, rank)), last)
        rows = ops.reshape(rows, (-1, columns, units, last_columns))
        rows = ops.transpose(rows, (0, 2, 1, 3))
        return products(tokens, ops.reshape(rows, (-1, columns * last_columns)))

    used = -(-vocabulary // units)
    return RowScores(
        scores, (tokens, last), (first[:used],), (), vocabulary, units
    )


def _chain_of_slices(
    execution: Execution, digits: Sequence[Tensor], tables: Sequence[Factor]
) -> Tensor:
    """Returns for each id the product of its slices of all tables."""
    first, *others = tables
    columns = first.shape[2]
    product = _slices(execution, first, digits[0], first.shape[2:])
    for digit, table in zip(digits[1:], others, strict=True):
        _, rank, mode, next_rank = table.shape
        product = batched_product(
            execution,
            ops.reshape(product, (-1, columns, rank)),
            _slices(execution, table, digit, (rank, mode * next_rank)),
        )
        columns *= mode
    return product


def _slices(
    execution: Execution, table: Factor, digits: Tensor, shape: tuple[int, ...]
) -> Tensor:
    """Returns the slice of each digit, of shape `(digits, *shape)`."""
    if execution.is_packed(table):
        return ops.reshape(execution.take(table, digits), (-1, *shape))
    table = ops.reshape(table, (table.shape[0], *shape))
    return execution.take(table, digits)


def _digits(
    execution: Execution, ids: Tensor, modes: Sequence[int], vocabulary: int
) -> list[Tensor]:
    """Returns flat digits of ids, the first slowest, in integers only."""
    ids = ops.reshape(ids, (-1,))
    ids, outside = inside_and_outside(execution, ids, vocabulary)
    stride = math.prod(modes[1:])
    digits = [ops.floor_divide(ids, stride) + outside * modes[0]]
    for mode in modes[1:]:
        stride //= mode
        digits.append(ops.mod(ops.floor_divide(ids, stride), mode))
    return digits


def _static_count(shape: Sequence[int | None]) -> int:
    """Returns the product of sizes; at least 1,024 if one is not known."""
    count = likely_count(shape)
    known = all(isinstance(size, int) for size in shape)
    return count if known else max(count, 1_024)
