"""Rows and logits of a table that is decoded from narrow rows.

A narrow row `u` is decoded to `act(u + b1) P + b2` (Lioutas et al. 2020, Eq. 3,
with the biases of the paper's section on cost). Beyond the paper, it may be
decoded to `act(u K + b1) P + u S + b2`, with a hidden layer and a shortcut.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_embcomp._types import Array, Factor, Tensor
from keras_embcomp.numerics.covariance import Turning
from keras_embcomp.numerics.execution import Execution
from keras_embcomp.numerics.lookup import likely_count
from keras_embcomp.numerics.low_rank import truncated_svd
from keras_embcomp.numerics.streaming import RowScores
from keras_embcomp.numerics.wide_sums import plus_broadcast

_BLOCK_NUMBERS = 2**22
_MOST_BLOCKS = 16  # XLA is slow to compile many


class Decoder(NamedTuple):
    """The weights that decode narrow rows of width `rank`.

    Attributes:
        activation: A function of tensors.
        bias: `b1`, of shape `(hidden,)` or `(rank,)`.
        projection: `P`, of shape `(hidden or rank, width)`.
        projection_bias: `b2`, of shape `(width,)`.
        kernel: `K`, of shape `(rank, hidden)`, or `None` for the paper's form.
        shortcut: `S`, of shape `(rank, width)`, or `None` without `K`.
    """

    activation: Callable[[Tensor], Tensor]
    bias: Factor
    projection: Factor
    projection_bias: Factor
    kernel: Factor | None = None
    shortcut: Factor | None = None

    def cast(
        self, execution: Execution, dtype: str, inputs: Tensor | None = None
    ) -> "Decoder":
        """Returns the decoder as tensors (see `Execution.whole`)."""
        activation, *tensors = self
        return Decoder(
            activation,
            *(
                None if t is None else execution.whole(t, dtype, inputs)
                for t in tensors
            ),
        )

    def features(self, narrow: Tensor) -> Tensor:
        """Returns `act(u K + b1)` or `act(u + b1)`."""
        if self.kernel is not None:
            narrow = ops.matmul(narrow, self.kernel)
        return self.activation(plus_broadcast(narrow, self.bias))

    def decode(self, narrow: Tensor) -> Tensor:
        """Returns rows of the table for narrow rows."""
        features = self.features(narrow)
        rows = ops.matmul(features, self.projection)
        if self.shortcut is not None:
            rows = rows + ops.matmul(narrow, self.shortcut)
        return plus_broadcast(rows, self.projection_bias)


def decoded_logits(
    execution: Execution, hidden: Tensor, embeddings: Factor, decoder: Decoder
) -> list[Tensor]:
    """Returns the logits in parts that follow each other, `(..., part)`.

    With a kernel, features are wider than the narrow rows. Each part then
    decodes a block of narrow rows, and decodes them again for the gradients,
    so that the features of all rows are never in memory. Without a kernel,
    there is one part.

    Args:
        execution: How the call runs.
        hidden: Tensor of shape `(..., width)`.
        embeddings: The narrow rows, `(vocabulary, rank)`.
        decoder: What decodes them, in the dtype of `hidden`.
    """
    if decoder.kernel is None:
        if decoder.activation is keras.activations.linear:
            return [_affine_logits(execution, hidden, embeddings, decoder)]
        narrow = execution.rows_between(
            embeddings, 0, embeddings.shape[0], hidden.dtype, hidden
        )
        return [_projected(hidden, narrow, decoder)]
    features = decoder.projection.shape[0]
    product = _product(hidden, decoder.kernel, decoder.projection)
    activation, *tensors = decoder

    def part(hidden: Tensor, narrow: Tensor, *tensors: Tensor) -> Tensor:
        return product(hidden, narrow, Decoder(activation, *tensors))

    if not execution.exporting and not isinstance(hidden, keras.KerasTensor):
        part = keras.remat(part)
    vocabulary = embeddings.shape[0]
    size = max(_BLOCK_NUMBERS // features, -(-vocabulary // _MOST_BLOCKS), 1)
    return [
        part(
            hidden,
            execution.rows_between(
                embeddings,
                start,
                min(start + size, vocabulary),
                hidden.dtype,
                hidden,
            ),
            *tensors,
        )
        for start in range(0, vocabulary, size)
    ]


def decoded_scores(
    execution: Execution, hidden: Tensor, embeddings: Factor, decoder: Decoder
) -> RowScores:
    """Returns the `RowScores` of hidden states of shape `(tokens, width)`."""
    units = embeddings.shape[0]
    rows = (execution.whole(embeddings, hidden.dtype),)
    if decoder.kernel is None:
        back = ops.matmul(hidden, ops.transpose(decoder.projection))
        bias = ops.expand_dims(decoder.projection_bias, 1)
        shared = (back, ops.matmul(hidden, bias), decoder.bias)

        def scores(
            back: Tensor, offset: Tensor, bias: Tensor, narrow: Tensor
        ) -> Tensor:
            features = decoder.activation(plus_broadcast(narrow, bias))
            products = ops.matmul(back, ops.transpose(features))
            return plus_broadcast(products, offset)

        return RowScores(scores, shared, rows, units=units)
    product = _product(hidden, decoder.kernel, decoder.projection)
    activation, *tensors = decoder

    def decoded(hidden: Tensor, *tensors_and_rows: Tensor) -> Tensor:
        *tensors, narrow = tensors_and_rows
        return product(hidden, narrow, Decoder(activation, *tensors))

    return RowScores(decoded, (hidden, *tensors), rows, units=units)


def _product(
    hidden: Tensor, kernel: Factor, projection: Factor
) -> Callable[..., Tensor]:
    """Returns the cheaper of two functions that compute the same logits.

    Few hidden states are projected to the width of features and of narrow
    rows. Many are multiplied with decoded rows.
    """
    features, width = projection.shape
    rank = kernel.shape[0]
    tokens = likely_count(hidden.shape[:-1])
    few = tokens * (features + rank - width) <= features * width
    return _projected if few else _multiplied


def _projected(hidden: Tensor, narrow: Tensor, decoder: Decoder) -> Tensor:
    """Returns logits as products with features and with narrow rows."""
    back = ops.matmul(hidden, ops.transpose(decoder.projection))
    features = decoder.features(narrow)
    logits = ops.matmul(back, ops.transpose(features))
    if decoder.shortcut is not None:
        back = ops.matmul(hidden, ops.transpose(decoder.shortcut))
        logits = logits + ops.matmul(back, ops.transpose(narrow))
    bias = ops.expand_dims(decoder.projection_bias, 1)
    return plus_broadcast(logits, ops.matmul(hidden, bias))


def _affine_logits(
    execution: Execution, hidden: Tensor, embeddings: Factor, decoder: Decoder
) -> Tensor:
    """Returns the logits of `u P + b1 P + b2`: of `u P`, plus one per token."""
    back = ops.matmul(hidden, ops.transpose(decoder.projection))
    number = ops.matmul(back, ops.expand_dims(decoder.bias, 1))
    bias = ops.expand_dims(decoder.projection_bias, 1)
    number = number + ops.matmul(hidden, bias)
    return plus_broadcast(execution.times_rows(back, embeddings), number)


def _multiplied(hidden: Tensor, narrow: Tensor, decoder: Decoder) -> Tensor:
    """Returns logits as products with decoded rows."""
    rows = decoder.decode(narrow)
    return ops.matmul(hidden, ops.transpose(rows))


def principal_rows(
    table: Array, rank: int, weights: Array
) -> tuple[Array, Array, Array, float]:
    """Returns the best affine table of a rank, scaled for training.

    The columns of the narrow rows have unit variance, and so has the table
    divided by `scale`. A learning rate then means the same for every table.

    Args:
        table: Array of shape `(vocabulary, width)`.
        rank: Integer, at most `width`.
        weights: Array of shape `(vocabulary,)`, of mean 1.

    Returns:
        Rows `(vocabulary, rank)`, directions `(rank, width)`, mean `(width,)`
        and scale. `(rows @ directions + mean) * scale` has the least weighted
        sum of squared errors.
    """
    mean = (weights @ table / len(table)).astype(table.dtype)
    rows, directions = truncated_svd(table - mean, rank, weights)
    scale = float(np.std(table - mean, dtype="float64"))
    if scale <= 1e-6 * np.abs(table).max():  # all rows are alike
        scale = float(np.abs(table).max()) or 1.0
    spread = np.maximum(rows.std(axis=0, dtype="float64"), 1e-6 * scale)
    directions = directions * (spread / scale)[:, None]
    return rows / spread, directions, mean / scale, scale


def lifted(
    rows: Array, directions: Array, mean: Array
) -> tuple[Array, Array, Array, Array]:
    """Returns the weights, in the paper's form, of an affine table.

    The bias lifts all features above 0. There ReLU is the identity, and every
    row has a gradient.

    Args:
        rows: Array of shape `(vocabulary, rank)`.
        directions: Array of shape `(rank, width)`.
        mean: Array of shape `(width,)`.

    Returns:
        `U`, `b1`, `P` and `b2`.
    """
    lift = 0.1 - rows.min(axis=0)
    return rows, lift, directions, mean - lift @ directions


def regressed(
    rows: Array,
    activation: Callable[[Array], Array],
    table: Array,
    weights: Array,
) -> tuple[Array, Array, Array, Array]:
    """Returns the weights, in the paper's form, that fit a table best.

    Several scales and offsets of the rows are tried. Many activations are
    nearly straight around 0 or above, and there the affine table is kept. The
    projection is fitted for each try.

    Args:
        rows: Array of shape `(vocabulary, rank)`, columns of unit variance.
        activation: A function of NumPy arrays.
        table: The table to fit, of shape `(vocabulary, width)`.
        weights: Array of shape `(vocabulary,)`.

    Returns:
        `U`, `b1`, `P` and `b2`.
    """
    found = []
    lift = -rows.min(axis=0)
    for factor, bias in ((1, 0), (0.1, 0), (0.1, 1), (0.1, 3), (1, lift + 3)):
        narrow, bias = factor * rows, bias + np.zeros(rows.shape[1])
        features = activation((narrow + bias).astype("float32"))
        features = np.pad(features, ((0, 0), (0, 1)), constant_values=1)
        gram = features.T @ (weights[:, None] * features)
        product = features.T @ (weights[:, None] * table)
        solution = np.linalg.lstsq(gram, product, rcond=None)[0]
        errors = np.sum(np.square(features @ solution - table), axis=1)
        found.append((weights @ errors, narrow, bias, solution))
    _, narrow, bias, solution = min(found, key=lambda one: one[0])
    return narrow, bias, solution[:-1], solution[-1]


def with_hidden_layer(
    rows: Array, directions: Array, mean: Array, hidden: int, seed: int
) -> tuple[Array, ...]:
    """Returns the weights of an affine table plus a hidden layer that gives 0.

    Args:
        rows: Array of shape `(vocabulary, rank)`.
        directions: Array of shape `(rank, width)`.
        mean: Array of shape `(width,)`.
        hidden: Integer. Width of the hidden layer.
        seed: Integer. Seed of its kernel.

    Returns:
        `U`, `b1`, `P`, `b2`, `K` and `S`.
    """
    generator = np.random.default_rng(seed)
    kernel = generator.normal(size=(rows.shape[1], hidden))
    kernel /= np.sqrt(rows.shape[1])
    nothing = np.zeros((hidden, directions.shape[1]))
    return rows, np.zeros(hidden), nothing, mean, kernel, directions


def rescaled(arrays: Sequence[Array], scale: float) -> tuple[Array, ...]:
    """Returns weights of the table times `scale`, all scale on the left.

    Each row of `P`, or of `S` with a hidden layer, gets the norm 1, and the
    column of `U` that it is multiplied with gets its norm in exchange. An
    optimizer with steps of one size, as Adam, then moves a row of the table as
    it would move a row of a dense one.

    Args:
        arrays: `U`, `b1`, `P`, `b2` and, with a hidden layer, `K` and `S`.
            Without a hidden layer, the activation must commute with numbers
            above 0, as ReLU does.
        scale: Number above 0.
    """
    rows, bias, projection, projection_bias, *hidden = arrays
    norms = np.linalg.norm(hidden[1] if hidden else projection, axis=1)
    # The table has unit variance here: what is smaller is noise.
    norms = np.where(norms > 1e-5, norms, 1.0)
    factors = norms * scale  # of the columns of `U`
    if hidden:
        kernel, shortcut = hidden
        hidden = [kernel / factors[:, None], shortcut / norms[:, None]]
        projection = projection * scale
    else:
        bias = bias * factors
        projection = projection / norms[:, None]
    return rows * factors, bias, projection, projection_bias * scale, *hidden


def returned(arrays: Sequence[Array], turning: Turning) -> tuple[Array, ...]:
    """Returns the weights of a decoder for a table whose columns were turned.

    Args:
        arrays: What `rescaled` takes.
        turning: The turn that the rows have.
    """
    rows, bias, projection, projection_bias, *hidden = arrays
    if hidden:
        kernel, shortcut = hidden
        hidden = [kernel, turning.returned(shortcut)]
    return (
        rows,
        bias,
        turning.returned(projection),
        turning.returned(projection_bias[None])[0],
        *hidden,
    )


def distilled_rank(
    vocabulary: int, width: int, parameters: int, hidden_dim: int | None = None
) -> int:
    """Returns the largest rank of a distilled table for a budget; at least 1.

    The table has `rank * (V + d + 1) + d` parameters with its biases. With a
    hidden layer of width `h`, it has `rank * (V + h + d) + h * (d + 1) + d`.

    Args:
        vocabulary: Integer. Rows of the table.
        width: Integer. Columns of the table.
        parameters: Number. The budget. Rank 1 may exceed it.
        hidden_dim: Integer, or `None` for the paper's form.
    """
    own, each = width, vocabulary + width + 1
    if hidden_dim is not None:
        own += hidden_dim * (width + 1)
        each = vocabulary + hidden_dim + width
    return max(int((parameters - own) // each), 1)
