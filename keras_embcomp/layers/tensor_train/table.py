"""The table of a tensor-train layer: a product of small cores."""

import math
import warnings
from typing import Any, Self

import keras
import numpy as np
from keras import initializers, ops

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import (
    at_most,
    finite_table,
    positive_int,
    positive_number,
)
from keras_embcomp.layers.base import Compressed, Resizing
from keras_embcomp.layers.execution import current_execution
from keras_embcomp.layers.factors import in_numpy
from keras_embcomp.numerics.tensor_train.decomposition import (
    cores_of,
    decompose,
    full_table,
    merged,
    rounded_cores,
    structure_of,
    to_t3f,
    width_of,
    with_ranks_of,
)
from keras_embcomp.numerics.tensor_train.lookups import (
    tt_logits,
    tt_rows,
    tt_scores,
)
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

    def __init__(self, stddev: float = 1.0, seed: int | None = None):
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


class TensorTrainTable(Compressed):
    """The table is a tensor train.

    Law: it is `t3f.full(layer.tensor_train)` without padded rows.
    """

    def _set_structure(
        self,
        tt_ranks: Any,
        num_cores: int,
        tt_shape: Any,
        embeddings_stddev: float | None,
        **parts: Any,
    ) -> None:
        self.tt_ranks = check_ranks(tt_ranks)
        self.num_cores = check_num_cores(num_cores)
        self.tt_shape: Any = None
        if tt_shape is not None:
            self.tt_shape = check_shape(tt_shape)
        self.embeddings_stddev = None
        if embeddings_stddev is not None:
            self.embeddings_stddev = positive_number(
                "embeddings_stddev", embeddings_stddev
            )
        self._set_parts(**parts)

    def _check_width(self, name, width):
        """Chooses modes if there are none, and checks modes and ranks."""
        names = self._vocabulary_name, self._vocabulary
        at_most(*names, "2**31 - 1", 2**31 - 1)
        self.tt_shape = resolve_shape(
            *names, width, self.num_cores, self.tt_shape
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

    def _build_table(self, width):
        """Creates the cores, each of shape `(I, R, J, R')`."""
        ranks = cut_ranks(self.tt_shape, self.tt_ranks)
        stddev = self.embeddings_stddev
        if stddev is None:
            stddev = math.sqrt(2 / (self._vocabulary + width))
        # Khrulkov et al. 2019, Eq. 2.
        each = (stddev / math.sqrt(math.prod(ranks))) ** (1 / self.num_cores)
        initializer = self.cores_initializer or WhitenedNormal(each)
        self.cores = [
            self._add_factor(
                f"core_{k}",
                shape,
                initializer=initializer.clone(),
                regularizer=self.cores_regularizer,
                constraint=self.cores_constraint,
            )
            for k, shape in enumerate(core_shapes(self.tt_shape, ranks))
        ]

    def _cast_cores(self, dtype, inputs=None):
        execution = current_execution()
        return [execution.whole(core, dtype, inputs) for core in self.cores]

    @property
    def tensor_train(self) -> Any:
        """The cores as a `t3f.TensorTrain`, to be read and assigned.

        On the TensorFlow backend gradients flow through it.
        """
        if keras.backend.backend() == "tensorflow":
            return to_t3f(self._cast_cores("float32"))
        return to_t3f(self._numpy_cores())

    @tensor_train.setter
    def tensor_train(self, tensor_train):
        shapes = [tuple(core.shape) for core in self.cores]
        self._set_cores(with_ranks_of(cores_of(tensor_train), shapes))

    def _rows(self, ids):
        return tt_rows(
            current_execution(),
            ids,
            self.cores,
            self._vocabulary,
            self.compute_dtype,
        )

    def _logit_blocks(self, hidden):
        execution = current_execution()
        cores = self._cast_cores(hidden.dtype, hidden)
        return [tt_logits(execution, hidden, cores, self._vocabulary)], None

    def _row_scores(self, hidden):
        cores = self._cast_cores(hidden.dtype)
        return [tt_scores(hidden, cores, self._vocabulary)], None

    def _table(self) -> Array:
        return full_table(self._numpy_cores(), self._vocabulary)

    @classmethod
    def from_dense(
        cls,
        table: ArrayLike,
        tt_ranks: Any = None,
        max_error: float | None = None,
        num_cores: int = 3,
        tt_shape: Any = None,
        *,
        frequencies: ArrayLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Returns a built layer near a table, by `t3f.to_tt_matrix`.

        Args:
            table: Array of shape `(vocabulary, width)`: the table of an
                embedding, or a `Dense` kernel transposed.
            tt_ranks: Integer or list of integers, the largest ranks.
            max_error: In the place of `tt_ranks`: relative Frobenius error
                that is not exceeded, between 0 and 1.
            num_cores: Integer from 2 to 6.
            tt_shape: Pair of tuples, row and column modes.
            frequencies: Counts of shape `(vocabulary,)`. If given, errors are
                weighed by the nearest product of one weight for each digit of
                an id: no other weights survive in the format.
            **kwargs: Other arguments of the constructor. On the output side
                `bias` too, an array of shape `(vocabulary,)`; `None` starts
                from `bias_initializer`.

        Raises:
            ValueError: if the table is not a finite matrix or too large for
                the memory, or an argument does not fit it.
        """
        table = finite_table("table", table)
        cores = _decomposed(
            table, tt_ranks, max_error, num_cores, tt_shape, frequencies
        )
        arguments = {**structure_of(cores), **kwargs}
        return cls._fitted(table, arguments, cores=cores)

    def _fit(self, table, frequencies=None, cores=None):
        if cores is None:
            ranks = cut_ranks(self.tt_shape, self.tt_ranks)
            cores = decompose(table, self.tt_shape, ranks, None, frequencies)
            shapes = [tuple(core.shape) for core in self.cores]
            cores = with_ranks_of(cores, shapes)
        self._set_cores(cores)

    def _set_cores(self, cores):
        for variable, core in zip(self.cores, cores, strict=True):
            variable.assign(core)

    def rounded(self, max_tt_rank: int) -> Self:
        """Returns a layer of lower ranks, by `t3f.round`.

        Args:
            max_tt_rank: Integer, the largest rank of any cut.
        """
        max_tt_rank = positive_int("max_tt_rank", max_tt_rank)
        return self._like(rounded_cores(self._numpy_cores(), max_tt_rank))

    def merged(self, max_bytes: float) -> Self:
        """Returns a layer of fewer cores for the same table, for inference.

        It multiplies neighbouring cores. Of the layers that fit into
        `max_bytes`, it is the one whose lookups cost least.

        Args:
            max_bytes: Number. What the cores may take in float32.
        """
        return self._like(merged(self._numpy_cores(), max_bytes))

    def _numpy_cores(self):
        return [in_numpy(core) for core in self.cores]

    @classmethod
    def _with_cores(cls, cores, vocabulary, arguments):
        """Returns a built layer with cores of its own."""
        shape = (vocabulary, width_of(cores))
        arguments = {**structure_of(cores), **arguments}
        layer = cls._for_table(shape, arguments)
        layer._set_cores(cores)
        return layer

    def _like(self, cores):
        """Returns a layer like this one with other cores."""
        config = {**self.get_config(), **structure_of(cores)}
        layer = type(self).from_config(config)
        layer.build((None, self.dense_shape[1]))
        layer._set_cores(cores)
        layer._copy_others(self)
        return layer

    def _resizing(self, rows):
        modes, columns = self.tt_shape
        words_per_row = math.prod(modes[1:])
        slices = max(modes[0], -(-len(rows) // words_per_row))
        ranks = cut_ranks(self.tt_shape, self.tt_ranks)
        structure = {
            # Equal ranks may be above what the modes allow at an outer cut.
            "tt_ranks": ranks[0] if len(set(ranks)) == 1 else ranks,
            "tt_shape": ((slices, *modes[1:]), columns),
        }
        known = np.arange(min(len(rows), self.dense_shape[0]))
        if np.array_equal(rows[: len(known)], known):
            return Resizing(structure, words_per_row)
        return Resizing({"tt_shape": None}, fit={}, exact=False)

    def _mix(self, mixtures, rows):
        raise ValueError(
            "In a tensor train each new word starts as one known word. "
            f"Received: layer '{self.name}', and several words for "
            f"{mixtures[0].word}"
        )

    def _check_weights(self):
        """Any numbers make a table."""

    def get_config(self):
        return {
            **super().get_config(),
            "tt_ranks": self.tt_ranks,
            "num_cores": self.num_cores,
            "tt_shape": self.tt_shape,
            "embeddings_stddev": self.embeddings_stddev,
        }


def _decomposed(table, tt_ranks, max_error, num_cores, tt_shape, frequencies):
    """Returns the cores of a finite table."""
    shape = resolve_shape(
        "len(table)", len(table), table.shape[1], num_cores, tt_shape
    )
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
    return decompose(table, shape, tt_ranks, max_error, frequencies)
