"""The table of a low-rank layer: the product of two thin matrices."""

from typing import Any, Self

from keras import ops

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import at_most, positive_int
from keras_embcomp.layers.base import NarrowTable, Resizing
from keras_embcomp.layers.execution import current_execution
from keras_embcomp.layers.factors import in_numpy
from keras_embcomp.numerics.lookup import from_the_end_once
from keras_embcomp.numerics.low_rank import truncated_svd
from keras_embcomp.numerics.streaming import RowScores, products


class LowRankTable(NarrowTable):
    """The table is `embeddings @ projection`."""

    def _set_structure(self, rank: int, **parts: Any) -> None:
        self.rank = positive_int("rank", rank)
        self._set_parts(**parts)

    def _check_width(self, name, width):
        at_most("rank", self.rank, name, width)

    def _build_table(self, width):
        self.embeddings = self._add_table_weight(
            "embeddings", (self._vocabulary, self.rank)
        )
        self.projection = self._add_table_weight(
            "projection", (self.rank, width), shared=True
        )

    def _narrow_rows(self, ids):
        execution = current_execution()
        ids = from_the_end_once(execution, ids, self._vocabulary)
        narrow = execution.take(self.embeddings, ids)
        return ops.cast(narrow, self.compute_dtype)

    def _projected(self, narrow, ids):
        execution = current_execution()
        return ops.matmul(
            narrow, execution.whole(self.projection, narrow.dtype, ids)
        )

    def _logit_blocks(self, hidden):
        execution = current_execution()
        narrow = execution.times_rows(hidden, self.projection)
        return [execution.times_rows(narrow, self.embeddings)], None

    def _row_scores(self, hidden):
        execution = current_execution()
        narrow = execution.times_rows(hidden, self.projection)
        rows = execution.whole(self.embeddings, hidden.dtype)
        scores = RowScores(products, (narrow,), (rows,), units=rows.shape[0])
        return [scores], None

    def _table(self) -> Array:
        return in_numpy(self.embeddings) @ in_numpy(self.projection)

    @classmethod
    def from_dense(
        cls,
        table: ArrayLike,
        rank: int,
        *,
        frequencies: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Returns a built layer with the best table of its rank.

        The factors come from the truncated SVD: left singular vectors times
        singular values, and right singular vectors.

        Args:
            table: Array of shape `(vocabulary, width)`: the table of an
                embedding, or a `Dense` kernel transposed.
            rank: Integer, at most `width`.
            frequencies: Counts of shape `(vocabulary,)`. If given, a row's
                squared error is weighed by its count.
            covariance: Second moments `E[h h^T]` of what multiplies the table,
                of shape `(width, width)`: of the hidden states that reach an
                output layer. If given, the errors of the logits count, and not
                those of the numbers (Chen et al., 2021).
            **kwargs: Other arguments of the constructor. On the output side
                `bias` too, an array of shape `(vocabulary,)`; `None` starts
                from `bias_initializer`.

        Raises:
            ValueError: if the table is not a finite matrix, or an argument
                does not fit it.

        Reference:
        - [Acharya et al., 2019](https://arxiv.org/abs/1811.00641), Eq. 3
        """
        arguments = {"rank": rank, **kwargs}
        return cls._fitted(
            table, arguments, covariance, frequencies=frequencies
        )

    def _fit(self, table, frequencies=None, turning=None):
        embeddings, projection = truncated_svd(table, self.rank, frequencies)
        if turning is not None:
            projection = turning.returned(projection)
        self.embeddings.assign(embeddings)
        self.projection.assign(projection)

    def _resizing(self, rows):
        return Resizing()

    def _mix(self, mixtures, rows):
        self._mix_factor("embeddings", mixtures)

    def _check_weights(self):
        """Any numbers make a table."""

    def get_config(self):
        return {**super().get_config(), "rank": self.rank}
