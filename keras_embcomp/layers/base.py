"""The protocol: a compressed layer is a dense table in fewer numbers.

A class is abstract or final. A method writes one abstract class for its table
and two final ones for its sides:

    class LowRankTable(Compressed): ...                        # abstract
    class LowRankEmbedding(LowRankTable, CompressedEmbedding)  # final
    class LowRankSoftmax(LowRankTable, CompressedSoftmax)      # final

A final class that leaves an abstract method open is refused when it is made.
Methods override nothing that is written here, but `__init__` and `get_config`,
which chain to `super()`.
"""

import abc
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import constraints, initializers, ops, regularizers

from keras_embcomp._compat import set_mask
from keras_embcomp._types import Array, ArrayLike, Tensor
from keras_embcomp.checks import finite_table, positive_int
from keras_embcomp.layers.dense_arguments import without_dense_arguments
from keras_embcomp.layers.execution import current_execution, naming_ids
from keras_embcomp.layers.factors import RoundedFactor, in_numpy
from keras_embcomp.layers.from_keras import embedding_parts
from keras_embcomp.layers.scores import Scored
from keras_embcomp.numerics.covariance import Turning
from keras_embcomp.numerics.lookup import widened
from keras_embcomp.numerics.ragged import densified, on_flat_values
from keras_embcomp.numerics.streaming import RowScores

_GETTERS = {
    "initializer": initializers.get,
    "regularizer": regularizers.get,
    "constraint": constraints.get,
}


def weight_bytes(weights: Iterable[keras.Variable]) -> int:
    """Returns the bytes of weights as they are stored."""
    return sum(
        math.prod(weight.shape) * np.dtype(weight.dtype).itemsize
        for weight in weights
    )


class Resizing(NamedTuple):
    """What changes in a layer for other words.

    Attributes:
        structure: Arguments of the constructor that change, besides the
            vocabulary.
        words_per_row: How many words that follow each other share a row of
            weights.
        fit: Arguments of `_fit` that make the new table, if rows of weights
            do not; or `None`.
        exact: Whether the words have their rows, up to rounding.
    """

    structure: dict[str, Any] = {}
    words_per_row: int = 1
    fit: dict[str, Any] | None = None
    exact: bool = True


class Mixture(NamedTuple):
    """A word that starts as a weighted sum of others.

    Attributes:
        word: Its id.
        ids: Integer array of shape `(parts,)`, the ids of the others.
        weights: float32 array of shape `(parts,)`.
    """

    word: int
    ids: Array
    weights: Array

    @property
    def heaviest(self) -> int:
        """The id of the largest weight."""
        return int(self.ids[np.argmax(self.weights)])


class Compressed(Scored, metaclass=abc.ABCMeta):
    """Stands for a dense table of shape `(vocabulary, width)`.

    A method's table writes `_check_width`, `_build_table`, `_rows`,
    `_logit_blocks`, `_row_scores`, `_table`, `from_dense`, `_fit`, `_resizing`,
    `_mix` and `_check_weights`.
    """

    # The argument of the constructor that is the size of the vocabulary.
    _vocabulary_name: str

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bias: Any = None  # of the logits
        self._part_names: tuple[str, ...] = ()

    # What a side writes.

    @property
    @abc.abstractmethod
    def dense_shape(self) -> tuple[int, int]:
        """The shape `(vocabulary, width)` of the table it stands for."""

    @property
    @abc.abstractmethod
    def _dense_parameters(self) -> int:
        """How many parameters the dense layer in its place would have."""

    @classmethod
    @abc.abstractmethod
    def _for_table(cls, shape: tuple[int, int], arguments: dict) -> Self:
        """Returns a built layer that is to stand for a table of a shape."""

    @classmethod
    @abc.abstractmethod
    def from_layer(cls, layer: keras.Layer, **kwargs: Any) -> Self:
        """Returns a built layer to put in the place of a dense Keras layer."""

    # What a method's table writes.

    @abc.abstractmethod
    def _check_width(self, name: str, width: int) -> None:
        """Raises unless the structure fits a width, which errors call `name`.

        It may also choose what the structure leaves open.
        """

    @abc.abstractmethod
    def _build_table(self, width: int) -> None:
        """Creates the weights of the table. Their order is the file format."""

    @abc.abstractmethod
    def _rows(self, ids: Tensor) -> Tensor:
        """Returns the rows `ids` of the table, without building the table.

        Args:
            ids: Integer tensor of any shape, of 32 or 64 bits.

        Returns:
            Tensor of shape `(*ids.shape, width)`, of the compute dtype.
        """

    @abc.abstractmethod
    def _logit_blocks(
        self, hidden: Tensor
    ) -> tuple[list[Tensor], Tensor | None]:
        """Returns `hidden @ table.T` in blocks that need not be joined.

        Args:
            hidden: Tensor of shape `(..., width)`, of the compute dtype.

        Returns:
            A list of tensors of shape `(..., size)`, and an int32 tensor of
            shape `(vocabulary,)` with the place of each unit among them, or
            `None` if they have the order of the units.
        """

    @abc.abstractmethod
    def _row_scores(
        self, hidden: Tensor
    ) -> tuple[list[RowScores], Tensor | None]:
        """Describes how to compute the logits one block of units at a time.

        `compressed_crossentropy` does so.

        Args:
            hidden: Tensor of shape `(tokens, width)`, of the compute dtype.

        Returns:
            A list of `RowScores`, and the places of the units as in
            `_logit_blocks`.
        """

    @abc.abstractmethod
    def _table(self) -> Array:
        """Returns what the factors make, a float32 array of `dense_shape`."""

    @classmethod
    @abc.abstractmethod
    def from_dense(cls, table: ArrayLike, *args: Any, **kwargs: Any) -> Self:
        """Returns a built layer that approximates `table`."""

    @abc.abstractmethod
    def _fit(self, table: Array, *args: Any, **kwargs: Any) -> None:
        """Assigns the weights that are nearest to a table of `dense_shape`."""

    @abc.abstractmethod
    def _resizing(self, rows: Array) -> Resizing:
        """Returns what changes for other words.

        Args:
            rows: Integer array. The row of this table that each word of the
                new one has.
        """

    @abc.abstractmethod
    def _mix(self, mixtures: Sequence[Mixture], rows: Array) -> None:
        """Makes rows weighted sums of others, as near as the table can be.

        Other rows stay as they are.

        Args:
            mixtures: The words, which have the row of their heaviest so far.
            rows: Array of shape `(len(mixtures), width)`, the sums.
        """

    @abc.abstractmethod
    def _check_weights(self) -> None:
        """Raises unless weights that were just loaded make a table."""

    # What both sides of all methods share.

    @property
    def _vocabulary(self) -> int:
        return getattr(self, self._vocabulary_name)

    @classmethod
    def _fitted(
        cls,
        table: ArrayLike,
        arguments: dict,
        covariance: ArrayLike | None = None,
        **how: Any,
    ) -> Self:
        """Returns a built layer that is fitted to a table.

        Args:
            table: Array of shape `(vocabulary, width)`.
            arguments: Arguments of the constructor beside the table's shape;
                on the output side `bias` too.
            covariance: Second moments of what multiplies the table. If given,
                `_fit` gets a table that is turned, and the turn.
            **how: Arguments of `_fit`.
        """
        table = finite_table("table", table)
        turning = None
        if covariance is not None:
            turning = Turning.of(covariance, table.shape[1])
        layer = cls._for_table(table.shape, arguments)
        if turning is None:
            layer._fit(table, **how)
        else:
            layer._fit(turning.turned(table), turning=turning, **how)
        return layer

    def rows(self, ids: Tensor) -> Tensor:
        """Returns the rows `ids` of the table, without building the table.

        Args:
            ids: Integer tensor or array of any shape and integer dtype, ragged
                or sparse too. One out of range does what it does in
                `keras.layers.Embedding`.

        Returns:
            Tensor of shape `(*ids.shape, width)`, of the compute dtype: ragged
            if `ids` are, else dense.
        """
        ids = densified(ids)
        with naming_ids(self, ids):
            return on_flat_values(
                lambda flat: self._adapted_rows(widened(flat)), ids
            )

    def _adapted_rows(self, ids):
        rows = self._rows(ids)
        if self._difference is None:
            return rows
        execution = current_execution()
        return rows + self._difference.rows(execution, ids, rows.dtype)

    def to_dense(self) -> Array:
        """Returns the table as a float32 NumPy array of `dense_shape`."""
        return self._with_difference(self._table())

    def _adapted_blocks(self, hidden):
        """Returns what `_logit_blocks` does, with LoRA."""
        blocks, places = self._logit_blocks(hidden)
        if self._difference is not None:
            blocks = self._difference.added_to_blocks(
                current_execution(), hidden, blocks, places
            )
        return blocks, places

    def _adapted_scores(self, hidden):
        """Returns what `_row_scores` does, with LoRA."""
        scores, places = self._row_scores(hidden)
        if self._difference is not None:
            scores = self._difference.added_to_scores(
                current_execution(), hidden, scores, places
            )
        return scores, places

    def _logits(self, hidden: Tensor) -> Tensor:
        """Returns `hidden @ table.T`, of shape `(..., vocabulary)`."""
        blocks, places = self._adapted_blocks(hidden)
        logits = blocks[0]
        if len(blocks) > 1:
            logits = ops.concatenate(blocks, axis=-1)
        if places is not None:
            logits = ops.take(logits, places, axis=-1)
        return logits

    def _mix_factor(self, name: str, mixtures: Sequence[Mixture]) -> None:
        """Makes rows of a factor with a row for each word sums of others."""
        rows = in_numpy(self._factors[name])
        self._assign_rows(
            name,
            [mixture.word for mixture in mixtures],
            [mixture.weights @ rows[mixture.ids] for mixture in mixtures],
        )

    def _assign_rows(
        self, name: str, places: Sequence[int], rows: Sequence[Array]
    ) -> None:
        """Assigns some rows of a factor; others stay, in their scales."""
        factor = self._factors[name]
        values = in_numpy(factor).copy()
        values[list(places)] = rows
        if isinstance(factor, RoundedFactor):
            factor.assign(values, factor.scale_values())
        else:
            factor.assign(values)

    def _set_parts(self, **parts: Any) -> None:
        """Keeps the `<weight>_initializer`, `_regularizer`, `_constraint`s.

        Each becomes an attribute and a key of the config.
        """
        for name, part in parts.items():
            setattr(self, name, _GETTERS[name.rsplit("_", 1)[1]](part))
        self._part_names = (*self._part_names, *parts)

    def _add_table_weight(
        self,
        name: str,
        shape: tuple[int, ...],
        index: int | None = None,
        shared: bool = False,
    ) -> Any:
        """Adds a weight with the parts that `_set_parts` keeps for it.

        Args:
            name: String.
            shape: Tuple of integers.
            index: Number of one of several weights that share their parts.
            shared: As in `_add_factor`.
        """
        parts = {kind: getattr(self, f"{name}_{kind}") for kind in _GETTERS}
        if index is not None:
            name = f"{name}_{index}"
            if isinstance(parts["initializer"], initializers.Initializer):
                # One object draws the same numbers each time.
                parts["initializer"] = parts["initializer"].clone()
        return self._add_factor(name, shape, shared, **parts)

    @property
    def compression_ratio(self) -> float:
        """Parameters of the dense layer over parameters of this one.

        A parameter is four bytes: codes of one byte count as a quarter.
        """
        return 4 * self._dense_parameters / weight_bytes(self.weights)

    def load_own_variables(self, store):
        super().load_own_variables(store)
        self._check_weights()

    def get_config(self):
        parts = {
            name: keras.saving.serialize_keras_object(getattr(self, name))
            for name in self._part_names
        }
        return {**super().get_config(), **parts}


class NarrowTable(Compressed):
    """A table whose rows are narrow rows, projected: linear in them.

    A bag combines narrow rows, and projects once.

    A method's table writes `_narrow_rows` and `_projected` in place of `_rows`.
    """

    @abc.abstractmethod
    def _narrow_rows(self, ids: Tensor) -> Tensor:
        """Returns narrow rows, of the compute dtype, for `_projected`."""

    @abc.abstractmethod
    def _projected(self, narrow: Tensor, ids: Tensor) -> Tensor:
        """Returns the rows of narrow rows, or of linear combinations of some.

        Args:
            narrow: Tensor of shape `(..., rank)`.
            ids: What was looked up.
        """

    def _rows(self, ids):
        return self._projected(self._narrow_rows(ids), ids)


def check_final(cls: type) -> None:
    """Raises if a class leaves anything of the protocol open."""
    missing = sorted(
        name
        for name in dir(cls)
        if getattr(getattr(cls, name, None), "__isabstractmethod__", False)
    )
    if missing:
        raise TypeError(
            "A compressed layer must write all of the protocol. Received: "
            f"class {cls.__name__} without {', '.join(missing)}"
        )


class CompressedEmbedding(Compressed):
    """The input side, and the output side when the two are tied.

    Laws: `layer(ids)` equals `layer.to_dense()[ids]`, and
    `layer(hidden, reverse=True)` equals `hidden @ layer.to_dense().T`.
    """

    _vocabulary_name = "input_dim"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_final(cls)

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        mask_zero: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**without_dense_arguments(type(self), kwargs))
        self.input_dim = positive_int("input_dim", input_dim)
        self.output_dim = positive_int("output_dim", output_dim)
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        # Keras would cast float ids too, and bfloat16 has no 257.
        self.autocast = False

    @property
    def dense_shape(self) -> tuple[int, int]:
        return (self.input_dim, self.output_dim)

    @property
    def _dense_parameters(self):
        return self.input_dim * self.output_dim

    @classmethod
    def _for_table(cls, shape, arguments):
        layer = cls(*shape, **arguments)
        layer.build()
        return layer

    @classmethod
    def from_layer(cls, layer: keras.Layer, **kwargs: Any) -> Self:
        """Returns a built layer to put in the place of an `Embedding`.

        It keeps the layer's name, dtype policy, `trainable` and `mask_zero`;
        not its regularizer and constraint, which are for a dense table, nor a
        `reverse_dtype`.

        Args:
            layer: A built `Embedding` or tied `ReversibleEmbedding`.
            **kwargs: Arguments of `from_dense`.
        """
        table, arguments = embedding_parts(layer)
        return cls.from_dense(table, **{**arguments, **kwargs})

    def build(self, input_shape=None):
        self._build_table(self.output_dim)
        self._build_difference(self.output_dim)

    def call(self, inputs, reverse=False):
        if reverse:
            return on_flat_values(
                lambda hidden: self._logits(
                    ops.cast(hidden, self.compute_dtype)
                ),
                densified(inputs),
            )
        ids = densified(inputs)
        if not keras.backend.is_int_dtype(ids.dtype):
            ids = ops.cast(ids, "int32")
        rows = self.rows(ids)
        if self.mask_zero:
            set_mask(rows, ops.not_equal(ids, 0))
        return rows

    def compute_mask(self, inputs, mask=None):
        if keras.backend.is_int_dtype(inputs.dtype):
            if not self.mask_zero:
                return None
            return ops.not_equal(densified(inputs), 0)
        # Hidden states on their way back keep their mask. Float ids come here
        # too, but `call` has marked their rows by then.
        return mask

    def compute_output_shape(self, input_shape, reverse=False):
        if reverse:
            return (*input_shape[:-1], self.input_dim)
        return (*input_shape, self.output_dim)

    def compute_output_spec(self, inputs, reverse=False):
        shape = self.compute_output_shape(inputs.shape, reverse)
        return keras.KerasTensor(
            shape,
            dtype=self.compute_dtype,
            ragged=getattr(inputs, "ragged", False),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "mask_zero": self.mask_zero,
        }
