"""How a call runs. The numerics are told; they do not ask."""

from collections.abc import Callable

from keras import ops

from keras_embcomp._types import Factor, Tensor
from keras_embcomp.numerics.lookup import take_rows


class Execution:
    """Runs a call on tensors of the backend.

    Functions that look up rows or compute logits get one. This class is for
    plain tensors. Layers pass `keras_embcomp.layers.execution.LayerExecution`,
    which knows what the backend is about to do with the call, and which takes
    quantized factors too.

    Attributes:
        exporting: Whether the call is traced into a file that is to be small.
            Lookups are plain gathers then, and a converter must not compute
            beforehand what depends on weights alone.
        in_xla: Whether TensorFlow traces the call for XLA.
        for_onnx: Whether the call may be traced into an ONNX file, which wraps
            negative ids a second time and truncates integer division.
    """

    exporting: bool = False
    in_xla: bool = False
    for_onnx: bool = False

    def gather(self, table: Tensor, ids: Tensor) -> Tensor:
        """Returns `table[ids]` for a computed table."""
        return ops.take(table, ids, axis=0)

    def take(self, factor: Factor, ids: Tensor) -> Tensor:
        """Returns `factor[ids]` with a dense gradient (see `take_rows`)."""
        return take_rows(factor, ids)

    def whole(
        self, factor: Factor, dtype: str, inputs: Tensor | None = None
    ) -> Tensor:
        """Returns a factor as a tensor of a dtype.

        Args:
            factor: Tensor, variable or quantized factor.
            dtype: A float dtype.
            inputs: An input of the exported file. The file then unpacks the
                factor when it runs; without `inputs`, a converter would store
                the factor in floats.
        """
        return ops.cast(factor, dtype)

    def rows_between(
        self,
        factor: Factor,
        start: int,
        end: int,
        dtype: str,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """Returns rows `start` to `end - 1`; otherwise like `whole`."""
        if end - start < factor.shape[0]:
            factor = factor[start:end]
        return self.whole(factor, dtype, inputs)

    def times_rows(self, hidden: Tensor, factor: Factor) -> Tensor:
        """Returns `hidden @ factor.T` for a factor `(rows, columns)`."""
        rows = self.whole(factor, hidden.dtype, hidden)
        return ops.matmul(hidden, ops.transpose(rows))

    def is_packed(self, factor: Factor) -> bool:
        """Returns whether a factor is stored in bytes and must be unpacked."""
        return False

    def kept_out(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """Returns weights in a form that no converter folds.

        A converter computes what depends on constants alone, such as a cast,
        and stores the result. Without an export, the weights are returned
        unchanged.
        """
        return weights

    def of_tokens(
        self, function: Callable[[Tensor], Tensor], tokens: Tensor
    ) -> Tensor:
        """Returns a function of tokens, which may have no rows.

        A runtime of files refuses products of stacks of matrices without rows.

        Args:
            function: From a tensor `(tokens, width)` to one `(tokens, size)`.
            tokens: Tensor of shape `(tokens, width)`.
        """
        return function(tokens)

    def with_lead(
        self, rows: Tensor, inputs: Tensor, axes: int, size: int
    ) -> Tensor:
        """Returns rows of the shape `(*lead, size)`.

        Args:
            rows: Tensor of so many numbers.
            inputs: Tensor of shape `(*lead, *item)`.
            axes: Integer. The rank of an item.
            size: Integer.
        """
        lead = ops.shape(inputs)[: len(inputs.shape) - axes]
        return ops.reshape(rows, (*lead, size))

    def range_in_file(self, inputs: Tensor, start: int, end: int) -> Tensor:
        """Returns `range(start, end)`, which a file computes when it runs."""
        return ops.arange(start, end, dtype="int32")
