"""How tables of 8 and 4 bits run in an ONNX file.

A lookup gathers bytes and unpacks the rows that it found, in standard
operators. A product of hidden states with a table of a vocabulary's size is a
`MatMulNBits` of ONNX Runtime, which no converter knows: the model is traced
with a product of floats in its place, which is exchanged in the file. Both read
the same bytes, in the order of `MatMulNBits`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_embcomp._types import Array, Factor, Tensor
from keras_embcomp.layers.execution import LayerExecution
from keras_embcomp.layers.factors import PackedFactor
from keras_embcomp.models.find import LEAST_UNITS

_BITS = {"int8": 8, "int4": 4}  # that `MatMulNBits` reads
_BLOCKS = (128, 64, 32, 16)  # numbers that may share a scale


class BlockedTable(NamedTuple):
    """A packed table in the order of `MatMulNBits`.

    Attributes:
        factor: `PackedFactor` of shape `(rows, columns)`.
        block: Columns that share a scale in the file: 16 to 128, a power of 2.
    """

    factor: PackedFactor
    block: int

    @property
    def bits(self) -> int:
        """Bits of a number."""
        return _BITS[self.factor.form.mode]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the bytes: rows, blocks, and bytes of a block."""
        blocks = -(-self.factor.columns // self.block)
        return self.factor.shape[0], blocks, self.block * self.bits // 8

    @property
    def repeats(self) -> Array | None:
        """For each block the number of its step, or `None` without steps."""
        if self.factor.steps is None:
            return None
        width = self.factor.form.width_of_block(self.factor.columns)
        return np.arange(self.shape[1]) * self.block // width

    def bytes(self) -> Array:
        """Returns the bytes: in 4 bits the first number is the low half."""
        rows, blocks, size = self.shape
        integers = self.factor.integers()
        missing = blocks * self.block - integers.shape[1]
        integers = np.pad(integers, ((0, 0), (0, missing)))
        if self.bits == 8:
            return (integers.view("uint8") ^ 128).reshape(rows, blocks, size)
        codes = (integers + 8).astype("uint8")
        return (codes[:, ::2] | codes[:, 1::2] << 4).reshape(rows, blocks, size)

    def unpacked(self, codes: Tensor) -> Tensor:
        """Returns integers as floats, from bytes `(..., blocks, size)`."""
        codes = tf.cast(codes, "float32")
        zero = 128
        if self.bits == 4:
            high = tf.floor(codes * (1 / 16))
            codes = tf.stack([codes - 16 * high, high], -1)
            zero = 8
        lead = tf.shape(codes)[: -2 if zero == 128 else -3]
        width = self.shape[1] * self.block
        codes = tf.reshape(codes, tf.concat([lead, [width]], 0))
        return codes[..., : self.factor.columns] - zero


def blocked(factor: PackedFactor) -> BlockedTable | None:
    """Returns a table in the order of `MatMulNBits`, or `None`.

    Rows are padded to the next multiple of 16. Of the blocks that need no more,
    the widest needs the fewest scales. `None` is for rows that padding would
    make more than a third larger, and for numbers of other bits.
    """
    if factor.form.mode not in _BITS:
        return None
    if len(factor.shape) != 2 or not hasattr(factor.values, "path"):
        return None
    columns = factor.columns
    width = factor.form.width_of_block(columns)
    if factor.steps is None:
        width = columns
    several = columns > width
    least = -(-columns // 16) * 16
    if 3 * least > 4 * columns:
        return None
    for block in _BLOCKS:
        nested = not several or width % block == 0
        if nested and -(-columns // block) * block == least:
            return BlockedTable(factor, block)
    return None


class OnnxExecution(LayerExecution):
    """Runs calls that are traced into an ONNX file.

    Attributes:
        products: Tables that hidden states are multiplied with, by the
            identity of their values: what a first trace finds.
    """

    def __init__(self) -> None:
        super().__init__(exporting=True, variables=True)
        self.products: dict[int, BlockedTable] = {}
        self._given: dict[int, tuple[Tensor, Tensor]] = {}
        self._zero: Tensor = 0

    @property
    def for_onnx(self) -> bool:  # type: ignore[override]
        return True

    def give(
        self, zero: Tensor, tensors: Iterable[tuple[Tensor, Tensor]]
    ) -> None:
        """Gives each of `products` its bytes, and what stands for a matrix.

        Args:
            zero: Tensor that is 0, which the converter does not know.
            tensors: Pairs, with a matrix of the shape `(columns, rows)`.
        """
        self._zero = zero
        self._given = dict(zip(self.products, tensors, strict=True))

    def take(self, factor: Factor, ids: Tensor) -> Tensor:
        if not isinstance(factor, PackedFactor):
            return self._rows(factor, ids)
        return self._decoded(factor, lambda rows: self._rows(rows, ids))

    @staticmethod
    def _rows(rows, ids):
        # A gather of an ONNX file counts negative ids from the end itself.
        return tf.gather(tf.convert_to_tensor(rows), ids)

    def whole(
        self, factor: Factor, dtype: str, inputs: Tensor | None = None
    ) -> Tensor:
        if isinstance(factor, PackedFactor):
            factor = self._decoded(factor, tf.convert_to_tensor)
        return tf.cast(factor, dtype)

    def rows_between(
        self,
        factor: Factor,
        start: int,
        end: int,
        dtype: str,
        inputs: Tensor | None = None,
    ) -> Tensor:
        def pick(rows):
            return tf.convert_to_tensor(rows)[start:end]

        if isinstance(factor, PackedFactor):
            return tf.cast(self._decoded(factor, pick), dtype)
        return tf.cast(pick(factor), dtype)

    def range_in_file(self, inputs: Tensor, start: int, end: int) -> Tensor:
        numbers = tf.range(start + self._zero, end + self._zero)
        return tf.reshape(numbers, (end - start,))

    def _decoded(self, factor, pick):
        key = id(factor.values)
        if key not in self._given:
            return factor.decoded(pick)
        codes, _ = self._given[key]
        integers = self.products[key].unpacked(pick(codes))
        return factor.scaled(integers, pick)

    def times_rows(self, hidden: Tensor, factor: Factor) -> Tensor:
        key = id(getattr(factor, "values", None))
        if key not in self._given:
            self._note(factor)
            rows = self.whole(factor, hidden.dtype, hidden)
            return tf.matmul(hidden, rows, transpose_b=True)
        _, matrix = self._given[key]
        hidden = tf.convert_to_tensor(hidden)
        scaled = tf.cast(hidden, "float32") * factor.column_scales
        lead = tf.shape(hidden)[:-1]
        # Of three axes: the converter makes other products of two.
        flat = tf.reshape(scaled, (1, -1, factor.columns))
        found = tf.reshape(
            tf.matmul(flat, matrix), tf.concat([lead, [factor.shape[0]]], 0)
        )
        return tf.cast(found, hidden.dtype)

    def _note(self, factor):
        if isinstance(factor, PackedFactor) and factor.shape[0] >= LEAST_UNITS:
            table = blocked(factor)
            if table is not None:
                self.products[id(factor.values)] = table
