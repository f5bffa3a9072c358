"""A low-rank difference that is added to a table: LoRA."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from keras import ops

from keras_embcomp._types import Factor, Tensor
from keras_embcomp.numerics.execution import Execution
from keras_embcomp.numerics.lookup import from_the_end_once
from keras_embcomp.numerics.score_blocks import inverse
from keras_embcomp.numerics.streaming import RowScores


class Difference(NamedTuple):
    """Stands for `scale * a @ b`, of the shape of the table.

    Attributes:
        a: Factor of shape `(vocabulary, rank)`.
        b: Factor of shape `(rank, width)`.
        scale: Number.

    Reference:
    - [Hu et al., 2022](https://arxiv.org/abs/2106.09685), Eq. 3
    """

    a: Factor
    b: Factor
    scale: float

    def rows(self, execution: Execution, ids: Tensor, dtype: str) -> Tensor:
        """Returns rows of the difference, of shape `(*ids.shape, width)`."""
        ids = from_the_end_once(execution, ids, self.a.shape[0])
        narrow = ops.cast(execution.take(self.a, ids), dtype)
        wide = ops.matmul(narrow, execution.whole(self.b, dtype, ids))
        return wide * self.scale

    def logits(self, execution: Execution, hidden: Tensor) -> Tensor:
        """Returns `hidden @ difference.T`, of shape `(..., vocabulary)`."""
        return execution.times_rows(self._narrow(execution, hidden), self.a)

    def _narrow(self, execution: Execution, hidden: Tensor) -> Tensor:
        return execution.times_rows(hidden, self.b) * self.scale

    def added_to_blocks(
        self,
        execution: Execution,
        hidden: Tensor,
        blocks: Sequence[Tensor],
        places: Tensor | None,
    ) -> list[Tensor]:
        """Returns blocks of logits with those of the difference added.

        Args:
            execution: How the call runs.
            hidden: Tensor of shape `(..., width)`.
            blocks: Tensors of shape `(..., size)`.
            places: The place of each unit among the blocks, or `None`.
        """
        if len(blocks) == 1 and places is None:
            return [blocks[0] + self.logits(execution, hidden)]
        narrow = self._narrow(execution, hidden)
        rows = self._rows_in(execution, hidden.dtype, places, hidden)
        found, start = [], 0
        for block in blocks:
            end = start + block.shape[-1]
            part = ops.matmul(narrow, ops.transpose(rows[start:end]))
            found.append(block + part)
            start = end
        return found

    def added_to_scores(
        self,
        execution: Execution,
        hidden: Tensor,
        scores: Sequence[RowScores],
        places: Tensor | None,
    ) -> list[RowScores]:
        """Returns descriptions of logits with those of the difference added."""
        narrow = self._narrow(execution, hidden)
        rows = self._rows_in(execution, hidden.dtype, places)
        found, start = [], 0
        for part in scores:
            end = start + part.units
            found.append(_with_products(part, narrow, rows[start:end]))
            start = end
        return found

    def _rows_in(
        self,
        execution: Execution,
        dtype: str,
        places: Tensor | None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """Returns all of `a`, in the order of the places."""
        rows = execution.whole(self.a, dtype, inputs)
        if places is None:
            return rows
        return execution.gather(rows, inverse(places))


def _with_products(
    scores: RowScores, narrow: Tensor, rows: Tensor
) -> RowScores:
    """Returns scores to which `narrow @ rows.T` is added."""
    each, rank = scores.units_per_row, rows.shape[-1]
    count = math.ceil(scores.units / each)
    rows = ops.pad(rows, [(0, count * each - scores.units), (0, 0)])
    split = len(scores.shared)

    def function(narrow: Tensor, *tensors: Tensor) -> Tensor:
        shared, rows, others = tensors[:split], tensors[split], tensors[split:]
        rows = ops.reshape(rows, (-1, rank))
        logits = scores.function(*shared, *others[1:])
        return logits + ops.matmul(narrow, ops.transpose(rows))

    return scores._replace(
        function=function,
        shared=(narrow, *scores.shared),
        rows=(ops.reshape(rows, (count, each * rank)), *scores.rows),
    )
