"""Sums over the logits of all units, which are never in memory at once.

Blocks of logits are computed one after the other in a loop, forward and again
backward. Each backend gets a loop and a gradient of a block of its own: a loop
that the backend differentiates itself would store all the logits.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

from keras_embcomp._types import Tensor
from keras_embcomp.numerics.loops import Output, scan

_BLOCK_NUMBERS = 2**22
_SMALLEST_BLOCK = 256
_BELOW_ALL = -1e30

# Takes the gradient of a function's result; returns that of each argument.
Pull: TypeAlias = Callable[[Tensor], Sequence[Tensor]]


class RowScores(NamedTuple):
    """Describes how to compute the logits one block of units at a time.

    Attributes:
        function: Returns the logits `(tokens, units)`. It gets `shared`, then
            a range of the rows of each of `rows`, then the same range of
            `codes`. It may use no other tensor that has a gradient.
        shared: Float tensors that all units need.
        rows: Float tensors whose rows are in the order of the units.
        codes: Integer tensors whose rows are in that order.
        units: Number of units.
        units_per_row: Number of units that a row stands for. The last row may
            stand for fewer.
    """

    function: Callable[..., Tensor]
    shared: tuple[Tensor, ...]
    rows: tuple[Tensor, ...] = ()
    codes: tuple[Tensor, ...] = ()
    units: int = 0
    units_per_row: int = 1


def products(tokens: Tensor, rows: Tensor) -> Tensor:
    """Returns `tokens @ rows.T`, the logits of plain rows."""
    return ops.matmul(tokens, ops.transpose(rows))


def default_block_size(tokens: int, width: int) -> int:
    """Returns the number of units whose logits are in memory at once."""
    return max(_BLOCK_NUMBERS // max(tokens, width, 1), _SMALLEST_BLOCK)


class _Blocks(NamedTuple):
    """Blocks of about equal size: little of the last one is padding.

    Attributes:
        scores: How to compute the logits of a block.
        num_blocks: Number of blocks.
        size: Rows of a block.
        dtype: The dtype in which logits are computed.
        summed: The dtype of logits once they are summed.
    """

    scores: RowScores
    num_blocks: int
    size: int
    dtype: str
    summed: str

    def cut(self, tensor: Tensor) -> Tensor:
        """Returns rows, padded, as `(num_blocks, size, ...)`."""
        tensor = _padded(tensor, self.num_blocks * self.size)
        return ops.reshape(
            tensor, (self.num_blocks, self.size, *tensor.shape[1:])
        )

    def cut_bias(self, bias: Tensor) -> Tensor:
        """Returns a bias of shape `(units,)` in blocks of rows."""
        per_row = self.scores.units_per_row
        rows = -(-self.scores.units // per_row)
        bias = ops.reshape(_padded(bias, rows * per_row), (-1, per_row))
        return self.cut(bias)

    def logits(
        self,
        shared: Sequence[Tensor],
        rows: Sequence[Tensor],
        codes: Sequence[Tensor],
    ) -> Tensor:
        """Returns the logits of one block.

        Args:
            shared: The tensors that all units need.
            rows: A slice of each of the rows, then of the bias if there is one.
            codes: A slice of each of the codes.
        """
        count = len(self.scores.rows)
        factors, biases = rows[:count], rows[count:]
        tensors = [
            ops.cast(tensor, self.dtype) for tensor in (*shared, *factors)
        ]
        logits = ops.cast(self.scores.function(*tensors, *codes), self.summed)
        if biases:
            bias = ops.cast(ops.reshape(biases[0], (-1,)), self.summed)
            logits = logits + bias
        return logits

    def masked(self, number: Tensor, logits: Tensor, value: float) -> Tensor:
        """Returns logits of block `number` with a value in place of padding."""
        units = self.size * self.scores.units_per_row
        if self.num_blocks * units <= self.scores.units:
            return logits
        unit = ops.arange(units, dtype="int32")
        known = unit < self.scores.units - number * units
        return ops.where(known, logits, value)


class _Operands(NamedTuple):
    """Tensors that the loops read; all but `shared` have a slice per block."""

    numbers: Tensor
    shared: Sequence[Tensor]
    rows: Sequence[Tensor]
    codes: Sequence[Tensor]

    def per_block(self) -> tuple[Tensor, ...]:
        return (self.numbers, *self.rows, *self.codes)


def _blocks_of(scores: RowScores, dtype: str, block_size: int) -> _Blocks:
    rows = -(-scores.units // scores.units_per_row)
    count = -(-rows // max(block_size // scores.units_per_row, 1))
    size = -(-rows // count)
    summed = "float64" if dtype == "float64" else "float32"
    return _Blocks(scores, -(-rows // size), size, dtype, summed)


def sums_of_scores(
    scores: RowScores,
    bias: Tensor | None,
    dtype: str,
    block_size: int,
    with_totals: bool = False,
) -> tuple[Tensor, Any]:
    """Returns the logsumexp of each token's logits, and their sum.

    Args:
        scores: How to compute the logits.
        bias: Tensor of shape `(units,)` or `None`.
        dtype: The dtype in which the function of the scores computes. Sums
            are in float32 at least.
        block_size: Integer. Number of units whose logits are in memory at
            once.
        with_totals: Boolean. Whether to sum the logits too.

    Returns:
        Two tensors of shape `(tokens,)`. The second is `None` without
        `with_totals`.
    """
    blocks = _blocks_of(scores, dtype, block_size)
    rows = tuple(blocks.cut(row) for row in scores.rows)
    if bias is not None:
        rows = (*rows, blocks.cut_bias(bias))
    codes = tuple(blocks.cut(code) for code in scores.codes)
    # Sums of gradients over blocks are in float32 too.
    shared = tuple(ops.cast(one, blocks.summed) for one in scores.shared)
    numbers = ops.arange(blocks.num_blocks, dtype="int32")

    @ops.custom_gradient
    def sums(*tensors: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        operands = _Operands(
            numbers, tensors[: len(shared)], tensors[len(shared) :], codes
        )
        found = _sums(blocks, operands, with_totals)

        def gradients(
            *arguments: Tensor, upstream: Tensor | None = None
        ) -> tuple[Tensor, ...]:
            upstream = arguments[-1] if upstream is None else upstream
            return _gradients(blocks, operands, found[0], upstream, with_totals)

        return ops.stack(found), gradients

    found = sums(*shared, *rows)
    return found[0], (found[1] if with_totals else None)


def _sums(
    blocks: _Blocks, operands: _Operands, with_totals: bool
) -> list[Tensor]:
    """Returns the logsumexp of each token's logits and, if wanted, their sum.

    The loop forward.
    """
    num_rows = len(operands.rows)

    def add(
        carry: list[Tensor], number: Tensor, *slices: Tensor
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        logits = blocks.logits(
            operands.shared, slices[:num_rows], slices[num_rows:]
        )
        own = ops.logsumexp(blocks.masked(number, logits, -math.inf), axis=-1)
        carry = [ops.logaddexp(carry[0], own), *carry[1:]]
        if with_totals:
            total = ops.sum(blocks.masked(number, logits, 0), axis=-1)
            carry[1] = carry[1] + total
        return carry, []

    zeros = ops.zeros_like(operands.shared[0][:, 0])
    start = [zeros + _BELOW_ALL] + with_totals * [zeros]
    found, _ = scan(add, start, operands.per_block())
    return found


def _gradients(
    blocks: _Blocks,
    operands: _Operands,
    logsumexp: Tensor,
    upstream: Tensor,
    with_totals: bool,
) -> tuple[Tensor, ...]:
    """Returns the gradients of what `_sums` returns: the loop backward.

    Args:
        blocks, operands, with_totals: As for `_sums`.
        logsumexp: The first result of `_sums`.
        upstream: The gradients of the results of `_sums`, stacked.

    Returns:
        The gradients of the tensors that all units share, and of the rows.
    """
    shared, num_rows = operands.shared, len(operands.rows)
    weights = ops.expand_dims(upstream[0], 1)

    def pull(
        carry: list[Tensor], number: Tensor, *slices: Tensor
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        rows, codes = slices[:num_rows], slices[num_rows:]

        def block(*tensors: Tensor) -> Tensor:
            own = tensors[: len(shared)], tensors[len(shared) :]
            return blocks.logits(*own, codes)

        logits, gradients_of = _vjp(block, (*shared, *rows))
        slopes = ops.exp(logits - ops.expand_dims(logsumexp, 1))
        slopes = slopes * weights
        if with_totals:
            slopes = slopes + ops.expand_dims(upstream[1], 1)
        found = gradients_of(blocks.masked(number, slopes, 0))
        carry = [
            total + gradient
            for total, gradient in zip(carry, found[: len(shared)], strict=True)
        ]
        return carry, found[len(shared) :]

    start = [ops.zeros_like(tensor) for tensor in shared]
    tensors = operands.per_block()
    like = [
        Output(tuple(x.shape[1:]), keras.backend.standardize_dtype(x.dtype))
        for x in tensors[1 : 1 + num_rows]
    ]
    of_shared, of_rows = scan(pull, start, tensors, like)
    return (*of_shared, *of_rows)


def _padded(tensor: Tensor, size: int) -> Tensor:
    missing = size - tensor.shape[0]
    if not missing:
        return ops.convert_to_tensor(tensor)
    padding = [(0, missing)] + [(0, 0)] * (len(tensor.shape) - 1)
    return ops.pad(tensor, padding)


def _vjp(
    function: Callable[..., Tensor], tensors: Sequence[Tensor]
) -> tuple[Tensor, Pull]:
    """Returns `function(*tensors)`, and what pulls gradients back to them."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.vjp(function, *tensors)
    if backend == "tensorflow":
        return _vjp_in_tensorflow(function, tensors)
    return _vjp_in_torch(function, tensors)


def _vjp_in_tensorflow(
    function: Callable[..., Tensor], tensors: Sequence[Tensor]
) -> tuple[Tensor, Pull]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        result = function(*tensors)

    def pull(gradient: Tensor) -> list[Tensor]:
        zero = tf.UnconnectedGradients.ZERO
        found = tape.gradient(
            result, tensors, gradient, unconnected_gradients=zero
        )
        return [tf.convert_to_tensor(one) for one in found]

    return result, pull


def _vjp_in_torch(
    function: Callable[..., Tensor], tensors: Sequence[Tensor]
) -> tuple[Tensor, Pull]:
    import torch

    with torch.enable_grad():
        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
        result = function(*tensors)

    def pull(gradient: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            result, tensors, gradient, materialize_grads=True
        )

    return result.detach(), pull
