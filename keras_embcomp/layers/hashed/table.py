"""What the two sides of a hashed layer share: its pool of sub-vectors."""

import numpy as np
from keras import ops

from keras_embcomp.checks import at_most, frequency_weights, positive_int
from keras_embcomp.layers.base import Compressed, fixed_vocabulary
from keras_embcomp.numerics.hashed.subvectors import (
    assign,
    check_pool,
    fitted_subvectors,
    hashed_logits,
    hashed_rows,
    hashed_scores,
)
from keras_embcomp.numerics.lookup import inside_and_outside
from keras_embcomp.layers.factors import in_numpy, whole


class SharedSubvectors(Compressed):
    """A table made of a pool, to be mixed into an input or an output layer."""

    def set_pool(
        self,
        vocabulary_name,
        vocabulary,
        num_subvectors,
        num_parts,
        seed,
        shared_pool,
        **parts,
    ):
        """Keeps what the pool and the assignment depend on."""
        self.num_subvectors = positive_int("num_subvectors", num_subvectors)
        self.num_parts = positive_int("num_parts", num_parts)
        self.seed = seed
        self.shared_pool = shared_pool
        check_pool(vocabulary_name, vocabulary, num_subvectors, num_parts)
        if not shared_pool:
            at_most("num_parts", num_parts, "num_subvectors", num_subvectors)
        self.assignment = assign(
            vocabulary, num_subvectors, num_parts, seed, shared_pool
        )
        self.set_parts(**parts)

    def add_pool(self, width):
        self.subvectors = self.add_table_weight(
            "subvectors", (self.num_subvectors, width // self.num_parts)
        )

    def rows(self, ids):
        """Returns the rows `ids` of the table."""
        ids, outside = inside_and_outside(ids, self.assignment.vocabulary)
        rows = hashed_rows(ids, outside, self.subvectors, self.assignment)
        return ops.cast(rows, self.compute_dtype)

    def row_scores(self, hidden):
        pool = whole(self.subvectors, hidden.dtype)
        return [hashed_scores(hidden, pool, self.assignment)], None

    def logits(self, hidden):
        """Returns `hidden @ table.T`, of shape `(..., vocabulary)`."""
        pool = whole(self.subvectors, hidden.dtype, hidden)
        return hashed_logits(hidden, pool, self.assignment)

    def to_dense(self):
        """Returns the table as a float32 NumPy array of `dense_shape`."""
        pool = in_numpy(self.subvectors)
        ids = np.arange(self.dense_shape[0], dtype="int32")
        rows = hashed_rows(ids, 0 * ids, pool, self.assignment)
        return ops.convert_to_numpy(rows)

    def fit_pool(self, table, frequencies):
        """Assigns the pool that is nearest to a table."""
        weights = frequency_weights(frequencies, len(table))
        self.subvectors.assign(
            fitted_subvectors(
                table, weights, self.num_subvectors, self.assignment
            )
        )

    def resized_config(self, vocabulary):
        raise fixed_vocabulary(self)

    def get_config(self):
        return {
            **super().get_config(),
            "num_subvectors": self.num_subvectors,
            "num_parts": self.num_parts,
            "seed": self.seed,
        }
