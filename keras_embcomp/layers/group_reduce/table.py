"""What the two sides of a GroupReduce layer share: groups of words."""

from keras import ops

from keras_embcomp.layers.base import Compressed, fixed_vocabulary
from keras_embcomp.numerics.group_reduce.groups import (
    check_width,
    checked_ranks,
    checked_sizes,
    grouped_logits,
    grouped_rows,
    grouped_scores,
    grouped_table,
    stored_dense,
)
from keras_embcomp.numerics.lookup import gather_rows, inside_and_outside
from keras_embcomp.layers.factors import in_numpy, whole


class WordGroups(Compressed):
    """A table in groups of rows, to be mixed into an input or output layer."""

    def set_groups(
        self, name, vocabulary, group_sizes, group_ranks, permuted, **parts
    ):
        """Keeps what the groups depend on."""
        self.group_sizes = checked_sizes(name, vocabulary, group_sizes)
        self.group_ranks = checked_ranks(self.group_sizes, group_ranks)
        self.permuted = permuted
        self.set_parts(**parts)

    def check_ranks(self, name, width):
        """Raises if a rank exceeds the width, which messages call `name`."""
        check_width(name, width, self.group_ranks)

    def add_groups(self, width, factor):
        """Creates the weights; returns those with a row for each word.

        Args:
            width: Columns of the table.
            factor: Name of the weights that are returned.
        """
        self.places = None
        if self.permuted:
            self.places = self.add_weight(
                name="places",
                shape=(sum(self.group_sizes),),
                dtype="int32",
                initializer=_in_order,
                trainable=False,
            )
        factors, self.projections = [], []
        groups = zip(self.group_sizes, self.group_ranks, strict=True)
        for index, (size, rank) in enumerate(groups):
            dense = stored_dense(size, rank, width)
            shape = (size, width if dense else rank)
            factors.append(self.add_table_weight(factor, shape, index))
            if not dense:
                self.projections.append(
                    self.add_table_weight(
                        "projections", (rank, width), index, shared=True
                    )
                )
        return factors

    def group_projections(self, width):
        """Returns the projection of each group, `None` for a dense one."""
        projections = iter(self.projections)
        return [
            None if stored_dense(size, rank, width) else next(projections)
            for size, rank in zip(
                self.group_sizes, self.group_ranks, strict=True
            )
        ]

    def word_rows(self):
        """Returns the factor of each group that has a row for each word."""
        raise NotImplementedError

    def rows(self, ids):
        """Returns the rows `ids` of the table."""
        vocabulary, width = self.dense_shape
        places, outside = inside_and_outside(ids, vocabulary)
        if self.permuted:
            places = gather_rows(self.places, places)
        return grouped_rows(
            places,
            outside,
            self.word_rows(),
            self.group_projections(width),
            self.compute_dtype,
        )

    def row_scores(self, hidden):
        rows = [whole(factor, hidden.dtype) for factor in self.word_rows()]
        projections = self.group_projections(hidden.shape[-1])
        return grouped_scores(hidden, rows, projections), self.places

    def group_logits(self, hidden):
        """Returns the logits of each group."""
        projections = self.group_projections(hidden.shape[-1])
        return grouped_logits(hidden, self.word_rows(), projections)

    def logits(self, hidden):
        """Returns the logits of all groups in the order of ids."""
        logits = ops.concatenate(self.group_logits(hidden), axis=-1)
        if self.permuted:
            logits = ops.take(logits, self.places, axis=-1)
        return logits

    def to_dense(self):
        """Returns the table as a float32 NumPy array of `dense_shape`."""
        table = grouped_table(
            [in_numpy(factor) for factor in self.word_rows()],
            [
                None if projection is None else in_numpy(projection)
                for projection in self.group_projections(self.dense_shape[1])
            ],
        )
        if self.places is None:
            return table
        return table[ops.convert_to_numpy(self.places)]

    def set_groups_of(self, groups):
        """Assigns decomposed groups."""
        projections = [p for p in groups.projections if p is not None]
        factors = [*groups.embeddings, *projections]
        weights = [*self.word_rows(), *self.projections]
        for weight, factor in zip(weights, factors, strict=True):
            weight.assign(factor)
        if self.permuted:
            self.places.assign(groups.places())

    def resized_config(self, vocabulary):
        raise fixed_vocabulary(self)

    def get_config(self):
        return {
            **super().get_config(),
            "group_sizes": self.group_sizes,
            "group_ranks": self.group_ranks,
            "permuted": self.permuted,
        }


def _in_order(shape, dtype):
    return ops.arange(shape[0], dtype=dtype)
