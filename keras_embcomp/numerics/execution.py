"""What runs a call: numerics are told, they do not ask."""

from keras import ops

from keras_embcomp._types import Factor, Tensor
from keras_embcomp.numerics.lookup import take_rows


class Execution:
    """Runs a call on tensors of the backend.

    Functions that look up rows or compute logits get one. This class is for
    plain tensors. Layers pass `keras_embcomp.layers.execution.LayerExecution`,
    which knows what the backend is about to do with the call, and factors that
    are stored in fewer bits.

    Attributes:
        exporting: Whether the call is traced into a file that is to be small:
            lookups are plain gathers, and what depends on weights alone must
            not be computed beforehand.
        in_xla: Whether TensorFlow traces the call for XLA.
        for_onnx: Whether the call may be traced into an ONNX file, which wraps
            negative ids a second time and truncates integer division.
    """

    exporting: bool = False
    in_xla: bool = False
    for_onnx: bool = False

    def gather(self, table: Tensor, ids: Tensor) -> Tensor:
        """Returns `table[ids]` for a table that was computed."""
        return ops.take(table, ids, axis=0)

    def take(self, factor: Factor, ids: Tensor) -> Tensor:
        """Returns rows of a factor, with a dense gradient (`take_rows`)."""
        return take_rows(factor, ids)

    def whole(
        self, factor: Factor, dtype: str, inputs: Tensor | None = None
    ) -> Tensor:
        """Returns a factor as a tensor of a dtype.

        Args:
            factor: Tensor, variable or quantized factor.
            dtype: A float dtype.
            inputs: A tensor that a file is given when it runs. The file then
                unpacks the factor in the call; a converter would otherwise
                store the factor in floats.
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
        """Returns a range of rows of a factor, as `whole` returns all."""
        if end - start < factor.shape[0]:
            factor = factor[start:end]
        return self.whole(factor, dtype, inputs)

    def times_rows(self, hidden: Tensor, factor: Factor) -> Tensor:
        """Returns `hidden @ factor.T` for a factor `(rows, columns)`."""
        rows = self.whole(factor, hidden.dtype, hidden)
        return ops.matmul(hidden, ops.transpose(rows))

    def is_packed(self, factor: Factor) -> bool:
        """Returns whether a factor is stored in bytes, to be unpacked."""
        return False

    def kept_out(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """Returns weights that no converter takes for constants.

        A converter computes what depends on constants alone, a cast for one,
        and stores the result. Elsewhere these are the weights themselves.
        """
        return weights

    def range_in_file(self, inputs: Tensor, start: int, end: int) -> Tensor:
        """Returns `range(start, end)` that a file computes when it runs."""
        return ops.arange(start, end, dtype="int32")
