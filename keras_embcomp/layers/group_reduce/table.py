"""The table of a GroupReduce layer: groups of rows, each of a low rank."""

from typing import Any, Self

import numpy as np
from keras import ops

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import finite_table
from keras_embcomp.layers.base import Compressed, Resizing
from keras_embcomp.layers.execution import current_execution
from keras_embcomp.layers.factors import in_numpy
from keras_embcomp.numerics.covariance import Turning
from keras_embcomp.numerics.group_reduce.fitting import (
    chosen_rows,
    group_reduce,
)
from keras_embcomp.numerics.group_reduce.groups import (
    check_width,
    checked_ranks,
    checked_sizes,
    grouped_logits,
    grouped_rows,
    grouped_scores,
    grouped_table,
    starts_of,
    stored_dense,
)
from keras_embcomp.numerics.lookup import inside_and_outside


class GroupReduceTable(Compressed):
    """The table is a stack of groups: low-rank products, or dense rows.

    A side names the factor that has a row for each word, `_words`: its weights
    are called so, and its parts.
    """

    _words: str

    def _set_structure(
        self, group_sizes: Any, group_ranks: Any, permuted: bool, **parts: Any
    ) -> None:
        self.group_sizes = checked_sizes(
            self._vocabulary_name, self._vocabulary, group_sizes
        )
        self.group_ranks = checked_ranks(self.group_sizes, group_ranks)
        self.permuted = permuted
        self._set_parts(**parts)

    def _check_width(self, name, width):
        check_width(name, width, self.group_ranks)

    def _build_table(self, width):
        self.places: Any = None
        if self.permuted:
            self.places = self.add_weight(
                name="places",
                shape=(self._vocabulary,),
                dtype="int32",
                initializer=_in_order,
                trainable=False,
            )
        factors, self.projections = [], []
        groups = zip(self.group_sizes, self.group_ranks, strict=True)
        for index, (size, rank) in enumerate(groups):
            dense = stored_dense(size, rank, width)
            shape = (size, width if dense else rank)
            factors.append(self._add_table_weight(self._words, shape, index))
            if not dense:
                self.projections.append(
                    self._add_table_weight(
                        "projections", (rank, width), index, shared=True
                    )
                )
        setattr(self, self._words, factors)

    @property
    def _word_factors(self):
        return getattr(self, self._words)

    def _group_projections(self, width):
        """Returns the projection of each group, `None` for a dense one."""
        projections = iter(self.projections)
        return [
            None if stored_dense(size, rank, width) else next(projections)
            for size, rank in zip(
                self.group_sizes, self.group_ranks, strict=True
            )
        ]

    def _rows(self, ids):
        execution = current_execution()
        vocabulary, width = self.dense_shape
        places, outside = inside_and_outside(execution, ids, vocabulary)
        if self.permuted:
            places = execution.gather(self.places, places)
        return grouped_rows(
            execution,
            places,
            outside,
            self._word_factors,
            self._group_projections(width),
            self.compute_dtype,
        )

    def _logit_blocks(self, hidden):
        projections = self._group_projections(hidden.shape[-1])
        logits = grouped_logits(
            current_execution(), hidden, self._word_factors, projections
        )
        return logits, self.places

    def _row_scores(self, hidden):
        execution = current_execution()
        rows = [execution.whole(f, hidden.dtype) for f in self._word_factors]
        projections = self._group_projections(hidden.shape[-1])
        scores = grouped_scores(execution, hidden, rows, projections)
        return scores, self.places

    def _table(self) -> Array:
        table = grouped_table(
            [in_numpy(factor) for factor in self._word_factors],
            [
                None if projection is None else in_numpy(projection)
                for projection in self._group_projections(self.dense_shape[1])
            ],
        )
        if self.places is None:
            return table
        return table[ops.convert_to_numpy(self.places)]

    @classmethod
    def from_dense(
        cls,
        table: ArrayLike,
        group_sizes: Any,
        group_ranks: Any,
        *,
        frequencies: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        max_sweeps: int = 0,
        sort: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Returns a built layer with the best factors of each group.

        Args:
            table: Array of shape `(vocabulary, width)`: the table of an
                embedding, or a `Dense` kernel transposed.
            group_sizes: Sizes of the groups, the most frequent first.
            group_ranks: A rank for each group.
            frequencies: Counts of shape `(vocabulary,)`. They weigh squared
                errors, and words are grouped by them: if not sorted already,
                the layer is `permuted`. Words that were not counted weigh half
                of the least counted.
            covariance: Second moments `E[h h^T]` of what multiplies the table,
                of shape `(width, width)`: of the hidden states that reach an
                output layer. If given, the errors of the logits count, and not
                those of the numbers (Chen et al., 2021).
            max_sweeps: Integer. How often to move words to the groups that fit
                them better, at most: the paper's refinement. Groups change
                their sizes then, and the layer is `permuted`.
            sort: Boolean. `False` keeps ranges of ids as groups.
            **kwargs: Other arguments of the constructor. On the output side
                `bias` too, an array of shape `(vocabulary,)`; `None` starts
                from `bias_initializer`.

        Raises:
            ValueError: if the table is not a finite matrix, or an argument
                does not fit it.

        Reference:
        - [Chen et al., 2018](https://arxiv.org/abs/1806.06950), Algorithm 1
        """
        how = group_sizes, group_ranks, frequencies, max_sweeps, sort
        if covariance is None:
            groups = group_reduce(table, *how)
        else:
            table = finite_table("table", table)
            turning = Turning.of(covariance, table.shape[1])
            groups = group_reduce(turning.turned(table), *how)
            groups = groups.returned(turning)
        arguments = {**kwargs, **groups.structure()}
        return cls._fitted(table, arguments, groups=groups)

    def _fit(self, table, frequencies=None, groups=None):
        if groups is None:
            groups = self._groups_of(table, frequencies)
        elif self.permuted:
            self.places.assign(groups.places())
        projections = [p for p in groups.projections if p is not None]
        factors = [*groups.embeddings, *projections]
        weights = [*self._word_factors, *self.projections]
        for weight, factor in zip(weights, factors, strict=True):
            weight.assign(factor)

    def _groups_of(self, table, frequencies):
        """Returns the factors of a table in the groups that words are in."""
        if self.permuted:
            order = np.argsort(ops.convert_to_numpy(self.places))
            table = table[order]
            if frequencies is not None:
                frequencies = np.asarray(frequencies)[order]
        return group_reduce(
            table, self.group_sizes, self.group_ranks, frequencies, sort=False
        )

    def _resizing(self, rows):
        width = self.dense_shape[1]
        places = rows
        if self.permuted:
            places = ops.convert_to_numpy(self.places)[rows]
        groups = chosen_rows(
            places,
            [in_numpy(factor) for factor in self._word_factors],
            [
                None if projection is None else in_numpy(projection)
                for projection in self._group_projections(width)
            ],
            self.group_ranks,
        )
        return Resizing(groups.structure(), fit={"groups": groups})

    def _mix(self, mixtures, rows):
        starts = starts_of(self.group_sizes)
        projections = self._group_projections(self.dense_shape[1])
        for mixture, row in zip(mixtures, rows, strict=True):
            place = mixture.word
            if self.permuted:
                place = int(self.places[place])
            group = int(np.searchsorted(starts, place, side="right")) - 1
            if projections[group] is not None:
                projection = in_numpy(projections[group])
                row = np.linalg.lstsq(projection.T, row, rcond=None)[0]
            name = f"{self._words}_{group}"
            self._assign_rows(name, [place - starts[group]], [row])

    def _check_weights(self):
        """Raises unless the places are a permutation."""
        if not self.permuted:
            return
        places = ops.convert_to_numpy(self.places)
        if not np.array_equal(np.sort(places), np.arange(len(places))):
            raise ValueError(
                "The places in a file must hold each group's place once. "
                f"Received: places from {places.min()} to {places.max()} with "
                f"{len(np.unique(places))} that differ, for {len(places)} words"
            )

    def get_config(self):
        return {
            **super().get_config(),
            "group_sizes": self.group_sizes,
            "group_ranks": self.group_ranks,
            "permuted": self.permuted,
        }


def _in_order(shape, dtype):
    return ops.arange(shape[0], dtype=dtype)
