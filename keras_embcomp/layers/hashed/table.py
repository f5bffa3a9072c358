"""The table of a hashed layer: pieces out of a pool of sub-vectors."""

from typing import Any, Self

import numpy as np
from keras import ops

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import (
    at_most,
    frequency_weights,
    natural_number,
    positive_int,
)
from keras_embcomp.layers.base import Compressed, Resizing
from keras_embcomp.layers.execution import current_execution
from keras_embcomp.layers.factors import in_numpy
from keras_embcomp.numerics.execution import Execution
from keras_embcomp.numerics.hashed.subvectors import (
    assign,
    check_parts,
    check_pool,
    fitted_subvectors,
    hashed_logits,
    hashed_rows,
    hashed_scores,
)
from keras_embcomp.numerics.lookup import inside_and_outside


class HashedTable(Compressed):
    """The row of a word is some of the sub-vectors, side by side."""

    def _set_structure(
        self,
        num_subvectors: int,
        num_parts: int,
        seed: int,
        shared_pool: bool,
        num_private: int,
        **parts: Any,
    ) -> None:
        self.num_subvectors = positive_int("num_subvectors", num_subvectors)
        self.num_parts = positive_int("num_parts", num_parts)
        self.seed = seed
        self.shared_pool = shared_pool
        self.num_private = natural_number("num_private", num_private)
        names = self._vocabulary_name, self._vocabulary
        check_pool(*names, num_subvectors, num_parts, num_private)
        if not shared_pool:
            at_most("num_parts", num_parts, "num_subvectors", num_subvectors)
        self._assignment = assign(
            self._vocabulary,
            num_subvectors,
            num_parts,
            seed,
            shared_pool,
            num_private,
        )
        self._set_parts(**parts)

    def _check_width(self, name, width):
        check_parts(name, width, self.num_parts)

    def _build_table(self, width):
        self.subvectors = self._add_table_weight(
            "subvectors",
            (self._assignment.num_pieces, width // self.num_parts),
        )

    def _rows(self, ids):
        execution = current_execution()
        ids, outside = inside_and_outside(execution, ids, self._vocabulary)
        rows = hashed_rows(
            execution, ids, outside, self.subvectors, self._assignment
        )
        return ops.cast(rows, self.compute_dtype)

    def _logit_blocks(self, hidden):
        execution = current_execution()
        ends = self.num_subvectors, self._assignment.num_pieces
        pool = execution.rows_between(
            self.subvectors, 0, ends[0], hidden.dtype, hidden
        )
        logits = hashed_logits(execution, hidden, pool, self._assignment)
        if not self.num_private:
            return [logits], None
        pieces = execution.rows_between(
            self.subvectors, *ends, hidden.dtype, hidden
        )
        rows = ops.reshape(pieces, (self.num_private, hidden.shape[-1]))
        return [ops.matmul(hidden, ops.transpose(rows)), logits], None

    def _row_scores(self, hidden):
        execution = current_execution()
        pool = execution.whole(self.subvectors, hidden.dtype)
        scores = hashed_scores(execution, hidden, pool, self._assignment)
        return [scores], None

    def _table(self) -> Array:
        pool = in_numpy(self.subvectors)
        ids = np.arange(self._vocabulary, dtype="int32")
        rows = hashed_rows(Execution(), ids, 0 * ids, pool, self._assignment)
        return ops.convert_to_numpy(rows)

    @classmethod
    def from_dense(
        cls,
        table: ArrayLike,
        num_subvectors: int,
        num_parts: int = 8,
        *,
        frequencies: ArrayLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Returns a built layer whose pool is fitted to a table.

        A sub-vector becomes the mean of the pieces that use it. They are
        picked at random, so this loses nearly all that a trained table holds:
        it is a start for distillation, not a way to compress a trained model.
        Private rows are those of the table.

        Args:
            table: Array of shape `(vocabulary, width)`: the table of an
                embedding, or a `Dense` kernel transposed.
            num_subvectors: Integer. Size of the pool, or of all pools.
            num_parts: Integer. Pieces of a row; it divides the width.
            frequencies: Counts of shape `(vocabulary,)`. If given, a row's
                squared error is weighed by its count.
            **kwargs: Other arguments of the constructor. On the output side
                `bias` too, an array of shape `(vocabulary,)`; `None` starts
                from `bias_initializer`.

        Raises:
            ValueError: if the table is not a finite matrix, or an argument
                does not fit it.
        """
        arguments = {
            "num_subvectors": num_subvectors,
            "num_parts": num_parts,
            **kwargs,
        }
        return cls._fitted(table, arguments, frequencies=frequencies)

    def _fit(self, table, frequencies=None):
        weights = frequency_weights(frequencies, len(table))
        pool = fitted_subvectors(table, weights, self._assignment)
        self.subvectors.assign(pool)

    def _resizing(self, rows):
        # A row's sub-vectors follow from its id and the vocabulary.
        private = min(self.num_private, len(rows) - 1)
        largest = (len(rows) - private) * self.num_parts
        structure = {
            "num_subvectors": min(self.num_subvectors, largest),
            "num_private": private,
        }
        return Resizing(structure, fit={}, exact=False)

    def _mix(self, mixtures, rows):
        """The fit, which `_resizing` asks for, has the rows already."""

    def _check_weights(self):
        """Any numbers make a table."""

    def get_config(self):
        return {
            **super().get_config(),
            "num_subvectors": self.num_subvectors,
            "num_parts": self.num_parts,
            "num_private": self.num_private,
            "seed": self.seed,
        }
