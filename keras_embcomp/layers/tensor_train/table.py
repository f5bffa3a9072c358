"""What the two sides of a tensor-train layer share: its cores."""

import math
import warnings

import keras
from keras import initializers, ops

from keras_embcomp.checks import (
    at_most,
    finite_table,
    positive_int,
    positive_number,
)
from keras_embcomp.layers.base import Compressed
from keras_embcomp.numerics.tensor_train import decomposition as tt
from keras_embcomp.layers.factors import in_numpy, whole
from keras_embcomp.numerics.tensor_train.lookups import tt_rows, tt_scores
from keras_embcomp.numerics.tensor_train.shapes import (
    check_num_cores,
    check_ranks,
    check_shape,
    core_shapes,
    cut_ranks,
    resolve_shape,
)


@keras.saving.register_keras_serializable(package="keras_embcomp")
class WhitenedNormal(initializers.Initializer):
    """Draws a core that keeps the variance of a tensor train exact.

    The numbers are nearly those of a normal distribution, but the columns of
    the `(I * R * J, R')` unfolding are orthogonal and equally long. A table of
    such cores has the variance that independent numbers would give it on
    average, for any ranks.

    Args:
        stddev: Standard deviation of the numbers.
        seed: Integer seed.
    """

    def __init__(self, stddev=1.0, seed=None):
        self.stddev = stddev
        self.seed = seed
        self._orthogonal = initializers.Orthogonal(seed=seed)

    def __call__(self, shape, dtype=None):
        rows, columns = math.prod(shape[:-1]), shape[-1]
        matrix = self._orthogonal((rows, columns), dtype="float32")
        scale = self.stddev * math.sqrt(max(rows, columns))
        return ops.cast(ops.reshape(matrix * scale, shape), dtype)

    def get_config(self):
        return {"stddev": self.stddev, "seed": self.seed}


class TensorTrainCores(Compressed):
    """A table held by cores, to be mixed into an input or an output layer.

    Law: the table is `t3f.full(layer.tensor_train)` without padded rows.
    """

    def set_structure(
        self, tt_ranks, num_cores, tt_shape, embeddings_stddev, **parts
    ):
        """Keeps what the cores depend on."""
        self.tt_ranks = check_ranks(tt_ranks)
        self.num_cores = check_num_cores(num_cores)
        self.tt_shape = None
        if tt_shape is not None:
            self.tt_shape = check_shape(tt_shape)
        self.embeddings_stddev = None
        if embeddings_stddev is not None:
            self.embeddings_stddev = positive_number(
                "embeddings_stddev", embeddings_stddev
            )
        self.set_parts(**parts)

    def resolve_structure(self, vocabulary_name, vocabulary, width):
        """Chooses modes if there are none, and checks modes and ranks."""
        at_most(vocabulary_name, vocabulary, "2**31 - 1", 2**31 - 1)
        self.tt_shape = resolve_shape(
            vocabulary_name, vocabulary, width, self.num_cores, self.tt_shape
        )
        self.num_cores = len(self.tt_shape[0])
        ranks = cut_ranks(self.tt_shape, self.tt_ranks)
        wanted = self.tt_ranks
        self.tt_ranks = ranks[0] if isinstance(wanted, int) else ranks
        if wanted != self.tt_ranks:
            warnings.warn(
                "`tt_ranks` above what the modes allow are clipped. Received: "
                f"tt_ranks={wanted}, tt_shape={self.tt_shape}. "
                f"Used: tt_ranks={self.tt_ranks}",
                stacklevel=3,
            )

    def add_cores(self, vocabulary, width):
        """Creates the weights, each of shape `(I, R, J, R')`."""
        ranks = cut_ranks(self.tt_shape, self.tt_ranks)
        stddev = self.embeddings_stddev
        if stddev is None:
            stddev = math.sqrt(2 / (vocabulary + width))
        # Khrulkov et al. 2019, Eq. 2.
        each = (stddev / math.sqrt(math.prod(ranks))) ** (1 / self.num_cores)
        initializer = self.cores_initializer or WhitenedNormal(each)
        self.cores = [
            self.add_factor(
                f"core_{k}",
                shape,
                initializer=initializer.clone(),
                regularizer=self.cores_regularizer,
                constraint=self.cores_constraint,
            )
            for k, shape in enumerate(core_shapes(self.tt_shape, ranks))
        ]

    def cast_cores(self, dtype, inputs=None):
        return [whole(core, dtype, inputs) for core in self.cores]

    @property
    def tensor_train(self):
        """The cores as a `t3f.TensorTrain`, to be read and assigned.

        On the TensorFlow backend gradients flow through it.
        """
        if keras.backend.backend() == "tensorflow":
            return tt.to_t3f(self.cast_cores("float32"))
        return tt.to_t3f(self._numpy_cores())

    @tensor_train.setter
    def tensor_train(self, tensor_train):
        shapes = [tuple(core.shape) for core in self.cores]
        self.set_cores(tt.with_ranks_of(tt.cores_of(tensor_train), shapes))

    def rows(self, ids):
        """Returns the rows `ids` of the table."""
        vocabulary = self.dense_shape[0]
        return tt_rows(ids, self.cores, vocabulary, self.compute_dtype)

    def row_scores(self, hidden):
        cores = self.cast_cores(hidden.dtype)
        return [tt_scores(hidden, cores, self.dense_shape[0])], None

    def to_dense(self):
        """Returns the table as a float32 NumPy array of `dense_shape`."""
        return tt.full_table(self._numpy_cores(), self.dense_shape[0])

    def rounded(self, max_tt_rank):
        """Returns a layer of lower ranks, by `t3f.round`.

        Args:
            max_tt_rank: Integer, the largest rank of any cut.
        """
        max_tt_rank = positive_int("max_tt_rank", max_tt_rank)
        return self._with_cores(
            tt.rounded_cores(self._numpy_cores(), max_tt_rank)
        )

    def merged(self, max_bytes):
        """Returns a layer of fewer cores for the same table, for inference.

        Neighbouring cores are multiplied; of what fits into `max_bytes`, it is
        the layer whose lookups cost least.

        Args:
            max_bytes: What the cores may take in float32.
        """
        return self._with_cores(tt.merged(self._numpy_cores(), max_bytes))

    def _numpy_cores(self):
        return [in_numpy(core) for core in self.cores]

    def _with_cores(self, cores):
        """Returns a layer like this one with other cores."""
        config = {**self.get_config(), **tt.structure_of(cores)}
        layer = type(self).from_config(config)
        layer.build((None, self.dense_shape[1]))
        layer.set_cores(cores)
        layer.copy_others(self)
        return layer

    def set_cores(self, cores):
        for variable, core in zip(self.cores, cores, strict=True):
            variable.assign(core)

    @property
    def words_per_row(self):
        return math.prod(self.tt_shape[0][1:])

    def resized_config(self, vocabulary):
        rows, columns = self.tt_shape
        slices = max(rows[0], -(-vocabulary // self.words_per_row))
        ranks = cut_ranks(self.tt_shape, self.tt_ranks)
        if len(set(ranks)) == 1:  # they may be above what the modes allow
            ranks = ranks[0]
        return {
            **super().resized_config(vocabulary),
            "tt_ranks": ranks,
            "tt_shape": ((slices, *rows[1:]), columns),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "tt_ranks": self.tt_ranks,
            "num_cores": self.num_cores,
            "tt_shape": self.tt_shape,
            "embeddings_stddev": self.embeddings_stddev,
        }


def decomposed(table, tt_ranks, max_error, num_cores, tt_shape, frequencies):
    """Returns the cores of a table, for the `from_dense` of both sides."""
    table = finite_table("table", table)
    shape = resolve_shape("len(table)", *table.shape, num_cores, tt_shape)
    if (tt_ranks is None) == (max_error is None):
        raise ValueError(
            "One of `tt_ranks` and `max_error` must be given. "
            f"Received: tt_ranks={tt_ranks}, max_error={max_error}"
        )
    if max_error is not None and not 0 < max_error < 1:
        raise ValueError(
            "`max_error` must be between 0 and 1, both excluded. "
            f"Received: max_error={max_error}"
        )
    if tt_ranks is not None:
        tt_ranks = cut_ranks(shape, check_ranks(tt_ranks))
    return tt.decompose(table, shape, tt_ranks, max_error, frequencies)
