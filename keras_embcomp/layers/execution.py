"""How the backend in use runs a call of a layer."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from keras_embcomp._compat import in_xla_context
from keras_embcomp._types import Array, Factor, Tensor
from keras_embcomp.layers.factors import PackedFactor, RoundedFactor
from keras_embcomp.numerics.execution import Execution


class FileTables(Protocol):
    """What puts tables into a file in a form of its own."""

    def rows(self, table: Factor, ids: Tensor) -> Tensor:
        """Returns rows of a table, as `Execution.take`."""

    def product(self, hidden: Tensor, table: Factor) -> Tensor:
        """Returns `hidden @ table.T`, as `Execution.times_rows`."""

    def unpacks(self, table: Factor) -> None:
        """Notes that a table is unpacked whole from its bytes."""


class LayerExecution(Execution):
    """Runs a call of a layer, whose factors may be quantized.

    Args:
        exporting: Whether calls are traced into a file.
        file_tables: `FileTables`, or `None` if tables are ordinary weights in
            the file.
        variables: Whether weights stay variables in the file. No converter
            computes anything of variables beforehand.
    """

    def __init__(
        self,
        exporting: bool = False,
        file_tables: FileTables | None = None,
        variables: bool = False,
    ):
        self.exporting = exporting
        self.file_tables = file_tables
        self.variables = variables

    @property
    def in_xla(self) -> bool:  # type: ignore[override]
        return keras.backend.backend() == "tensorflow" and in_xla_context()

    @property
    def for_onnx(self) -> bool:  # type: ignore[override]
        tensorflow = keras.backend.backend() == "tensorflow"
        return tensorflow and not self.exporting and not self.in_xla

    def gather(self, table: Tensor, ids: Tensor) -> Tensor:
        if self.exporting:
            import tensorflow as tf

            return tf.gather(table, ids)
        return super().gather(table, ids)

    def take(self, factor: Factor, ids: Tensor) -> Tensor:
        if self.file_tables is not None:
            return self.file_tables.rows(factor, ids)

        def pick(rows):
            if self.exporting:
                return self.gather(rows, ids)
            return Execution.take(self, rows, ids)

        if not isinstance(factor, RoundedFactor):
            return pick(factor)
        rows = factor.decoded(pick)
        if keras.backend.backend() != "jax":
            return rows
        # JAX has no NaN for bytes.
        size = factor.shape[0]
        known = ops.logical_and(ids >= -size, ids < size)
        for _ in factor.shape[1:]:
            known = ops.expand_dims(known, -1)
        return ops.where(known, rows, float("nan"))

    def whole(
        self, factor: Factor, dtype: str, inputs: Tensor | None = None
    ) -> Tensor:
        if self.file_tables is not None:
            self.file_tables.unpacks(factor)
        return _of_dtype(factor, lambda x: self.kept_out(x, inputs), dtype)

    def rows_between(
        self,
        factor: Factor,
        start: int,
        end: int,
        dtype: str,
        inputs: Tensor | None = None,
    ) -> Tensor:
        if self.file_tables is not None:
            self.file_tables.unpacks(factor)

        def pick(rows):
            if self.exporting:
                return self._kept_out(rows, inputs, start, end)
            if end - start < rows.shape[0]:
                rows = rows[start:end]
            return rows

        if isinstance(factor, RoundedFactor):
            return ops.cast(factor.decoded(pick), dtype)
        return ops.cast(pick(factor), dtype)

    def times_rows(self, hidden: Tensor, factor: Factor) -> Tensor:
        if self.file_tables is not None:
            return self.file_tables.product(hidden, factor)
        return super().times_rows(hidden, factor)

    def is_packed(self, factor: Factor) -> bool:
        return isinstance(factor, PackedFactor)

    def kept_out(self, weights: Tensor, inputs: Tensor) -> Tensor:
        weights = ops.convert_to_tensor(weights)
        if not self.exporting:
            return weights
        return self._kept_out(weights, inputs, 0, weights.shape[0])

    def _kept_out(self, weights, inputs, start, end):
        import tensorflow as tf

        if not self.variables:
            return tf.gather(weights, self.range_in_file(inputs, start, end))
        rows = tf.convert_to_tensor(weights)
        return rows if end - start == weights.shape[0] else rows[start:end]

    @property
    def _in_litert(self):
        return self.exporting and not self.variables

    def of_tokens(
        self, function: Callable[[Tensor], Tensor], tokens: Tensor
    ) -> Tensor:
        if not self._in_litert or tokens.shape[0] is not None:
            return function(tokens)
        import tensorflow as tf

        count = tf.shape(tokens)[:1]
        missing = tf.cast(tf.equal(count, 0), "int32")
        some = tf.pad(tokens, tf.pad(missing[None], ((0, 1), (1, 0))))
        some.set_shape((None, *tokens.shape[1:]))
        # LiteRT copies rows with a gather, and numbers with a slice.
        return tf.gather(function(some), tf.range(count[0]))

    def with_lead(
        self, rows: Tensor, inputs: Tensor, axes: int, size: int
    ) -> Tensor:
        lead = len(inputs.shape) - axes
        if not self._in_litert or None not in inputs.shape[:lead]:
            return super().with_lead(rows, inputs, axes, size)
        import tensorflow as tf

        # If the shape were packed of scalars, it would be known before the file
        # runs, and LiteRT for Python would not return an empty tensor of it.
        shape = tf.concat([tf.shape(inputs)[:lead], [size]], 0)
        return tf.reshape(rows, shape)

    def range_in_file(self, inputs: Tensor, start: int, end: int) -> Tensor:
        if not self.exporting:
            return super().range_in_file(inputs, start, end)
        import tensorflow as tf

        # Of no inputs, too. The converter does not know that no sign is 2; a
        # limit of floats it would round to the largest that it can store.
        first = tf.cast(tf.reshape(inputs, (-1,))[:1], "float32")
        zero = tf.cast(tf.reduce_sum(tf.sign(first)) > 2, "int32")
        numbers = tf.range(start + zero, end + zero)
        return tf.reshape(numbers, (end - start,))


def _of_dtype(
    factor: Factor, pick: Callable[[Tensor], Tensor], dtype: str
) -> Tensor:
    if isinstance(factor, RoundedFactor):
        factor = factor.decoded(pick)
    return ops.cast(factor, dtype)


_IN_MEMORY = LayerExecution()
_current: contextvars.ContextVar[LayerExecution] = contextvars.ContextVar(
    "execution", default=_IN_MEMORY
)


def current_execution() -> LayerExecution:
    """Returns how the call that is being made runs."""
    return _current.get()


@contextlib.contextmanager
def for_export(
    file_tables: FileTables | None = None, variables: bool = False
) -> Iterator[None]:
    """Within it, calls are traced into a file that is to be small.

    Lookups are plain gathers, which refuse negative ids, and nothing is
    computed of weights alone that a converter would store as a constant.

    Args:
        file_tables, variables: As for `LayerExecution`.
    """
    with running(LayerExecution(True, file_tables, variables)):
        yield


@contextlib.contextmanager
def running(execution: LayerExecution) -> Iterator[None]:
    """Within it, calls run as an execution says."""
    token = _current.set(execution)
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def naming_ids(layer: Any, ids: Tensor) -> Iterator[None]:
    """Within it, a lookup that fails for an id out of range names the id.

    A lookup that computes with ids would name the number that it computed.

    Args:
        layer: A compressed layer.
        ids: What it looks up.
    """
    try:
        yield
    except Exception as caught:  # each backend has a class of its own
        error: Any = caught
        values = known_values(ids)
        vocabulary = layer.dense_shape[0]
        if values is None:
            raise
        outside = np.logical_or(values < -vocabulary, values >= vocabulary)
        if not np.any(outside):
            raise
        place = tuple(np.argwhere(outside)[0].tolist())
        message = (
            f"Ids must be below the vocabulary of {vocabulary}. Received: "
            f"id {values[place]} at {place} in layer '{layer.name}'"
        )
        if hasattr(error, "node_def"):  # the arguments of TensorFlow's errors
            raise type(error)(error.node_def, error.op, message) from error
        raise type(error)(message) from error


def known_values(tensor: Any) -> Array | None:
    """Returns a tensor as an array; `None` where a call is being compiled."""
    backend = keras.backend.backend()
    if isinstance(tensor, keras.KerasTensor):
        return None
    if backend == "jax":
        import jax

        if isinstance(tensor, jax.core.Tracer):
            return None
    if backend == "tensorflow":
        import tensorflow as tf

        # A ragged tensor has `numpy` while a function is traced too.
        values = getattr(tensor, "flat_values", tensor)
        if tf.is_tensor(values) and not hasattr(values, "numpy"):
            return None
    return ops.convert_to_numpy(tensor)
