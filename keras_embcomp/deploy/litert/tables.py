"""Tables in a LiteRT file: integers of 8 bits or fewer, and halves.

The converter knows no integers of 4 bits or 2, and no products with integers.
So a model is traced with floats in their place, each with a mark, and they are
exchanged in the finished file. Scales of rows are tensors of the model: in the
file's own form they would take 12 bytes a row, where ours take one or two.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_embcomp._compat import litert_schema
from keras_embcomp.deploy.litert.convert import edited
from keras_embcomp.layers.execution import current_execution
from keras_embcomp.layers.factors import PackedFactor
from keras_embcomp.numerics.quantized import Format, scales_of

schema = litert_schema()
# How a file's tensors store the numbers of a mode, and in how many bits.
_STORED = {
    "int8": ("INT8", 8),
    "int4": ("INT4", 4),
    "int2": ("INT2", 2),
    "ternary": ("INT2", 2),
}
_MARK = (2_718_281.0, -3_141_592.0, 1_618_033.0)


@tf.function(experimental_implements="embedding_matmul", autograph=False)
def _integers_of(table, ids):
    """The converter makes an `EMBEDDING_LOOKUP` of it."""
    return tf.cast(tf.gather(table, ids), "float32")


class _Integers(NamedTuple):
    """Columns of a packed table, to be stored as they are."""

    table: PackedFactor
    start: int
    stop: int

    @property
    def width(self):
        """Columns in the file: whole bytes of them."""
        width = self.stop - self.start
        return width + -width % (8 // self.bits)

    @property
    def bits(self):
        """Those of a number in the file."""
        return _STORED[self.table.form.mode][1]

    def integers(self):
        """Returns the integers, with a column of zeros if that is needed."""
        integers = self.table.integers()[:, self.start : self.stop]
        missing = self.width - integers.shape[1]
        return np.pad(integers, ((0, 0), (0, missing)))


class _Scales(NamedTuple):
    """Scales of rows, to be stored as float16."""

    table: PackedFactor
    block: int

    @property
    def width(self):
        """Numbers in the file: no fewer than a mark has."""
        return max(self.table.shape[0], len(_MARK) + 1)

    def halves(self):
        """Returns the scales as an array of shape `(width,)`."""
        steps = np.asarray(self.table.steps)[:, self.block, None]
        form = Format(self.table.form.mode, None)
        scales = np.ravel(scales_of(np.ones(1, "float32"), steps, form, 1))
        missing = self.width - len(scales)
        return np.pad(scales, (0, missing)).astype("float16")


class FileTables:
    """What traces lookups and products, and fills the file afterwards.

    Args:
        halves: Whether tables of floats are stored as float16.
        ranges: Whether the converter rounds all numbers by their ranges.
        multiplied: Ids of the values of tables that are looked up in the form
            in which they are multiplied: integers, a tensor for each block.
        unpacked: Those of tables that are looked up in the form in which they
            are unpacked whole: bytes.
    """

    def __init__(
        self,
        halves=False,
        ranges=False,
        multiplied=frozenset(),
        unpacked=frozenset(),
    ):
        self.halves = halves
        self._ranges = ranges
        self._as_multiplied = multiplied
        self._as_unpacked = unpacked
        self._looked_up: dict[str, set[int]] = {
            "bytes": set(),
            "blocks": set(),
            "rows": set(),
        }
        self._multiplied = set()
        self._unpacked = set()
        self._stored = []
        self._numbers = {}
        self._constants = {}
        self._products = False

    def rows(self, table, ids):
        """Returns rows of a table, as `take_rows`."""

        def pick(rows):
            return tf.gather(tf.convert_to_tensor(rows), ids)

        if not isinstance(table, PackedFactor):
            if self.halves and hasattr(table, "value"):
                return _rows_of_halves(table, ids)
            return pick(table)
        if not hasattr(table.values, "value"):  # some rows of a variable
            return table.decoded(pick)
        form = self._form_of(table)
        number = id(table.values)
        if form == "bytes":
            # Those of 8 bits in one block are the integers that products read.
            if table.form.mode != "int8" or len(_blocks_of(table)) > 1:
                self._looked_up["bytes"].add(number)
            return table.decoded(pick)
        self._looked_up[form].add(number)
        blocks = [(0, table.columns)]
        if form == "blocks":
            blocks = _blocks_of(table)
        flat = tf.reshape(ids, (-1,))
        if flat.dtype == tf.int64:  # those that are out of range stay so
            flat = tf.clip_by_value(flat, -1, table.shape[0])
        flat = tf.cast(flat, "int32")
        found = tf.concat(
            [self._integers(table, flat, *block) for block in blocks], 1
        )
        lead = tf.shape(ids)
        found = tf.reshape(found, tf.concat([lead, [table.columns]], 0))
        return table.scaled(found + table.form.shift, pick)

    def _form_of(self, table):
        """Returns how a table is looked up."""
        if id(table.values) in self._as_multiplied:
            return "blocks"
        # Of 8 bits a gather of bytes is faster than an EMBEDDING_LOOKUP, and
        # of ternary numbers as fast, and smaller.
        if table.form.mode in ("int8", "ternary"):
            return "bytes"
        if id(table.values) in self._as_unpacked:
            return "bytes"
        return "rows" if len(_blocks_of(table)) > 1 else "blocks"

    def _integers(self, table, ids, start, stop):
        """Returns rows of some columns of integers, as float32."""
        number, stored = self._place(_Integers(table, start, stop))
        height = -(-4 * (len(_MARK) + 1) // stored.width)
        mark = np.zeros(height * stored.width, "int8")
        marked = _mark(number).view("int8")
        mark[: len(marked)] = marked
        found = _integers_of(mark.reshape(height, stored.width), ids)
        return found[:, : stop - start]

    def unpacks(self, table):
        """Notes that a table is unpacked whole from its bytes."""
        if isinstance(table, PackedFactor) and table.form.mode != "int8":
            self._unpacked.add(id(table.values))

    def with_one_form(self):
        """Returns what traces again, with one form for each table, or `None`.

        It is `None` if each table has one form already.
        """
        found = self._looked_up
        multiplied = self._multiplied & (found["rows"] | found["bytes"])
        unpacked = self._unpacked & (found["rows"] | found["blocks"])
        unpacked -= self._multiplied
        if not multiplied | unpacked:
            return None
        return FileTables(self.halves, self._ranges, multiplied, unpacked)

    def product(self, hidden, table):
        """Returns `hidden @ table.T`, as `times_rows`."""
        # Of halves the converter makes others, whose marks are lost.
        if self.halves or not isinstance(table, PackedFactor):
            rows = current_execution().whole(table, hidden.dtype, hidden)
            return tf.matmul(hidden, rows, transpose_b=True)
        self._products = True
        self._multiplied.add(id(table.values))
        lead, columns = tf.shape(hidden)[:-1], table.columns
        scales = tf.convert_to_tensor(table.column_scales)
        scaled = tf.reshape(tf.cast(hidden, "float32") * scales, (-1, columns))
        sums = 0.0
        for block, (start, stop) in enumerate(_blocks_of(table)):
            number, stored = self._place(_Integers(table, start, stop))
            missing = stored.width - (stop - start)
            part = tf.pad(scaled[:, start:stop], ((0, 0), (0, missing)))
            marked = self._marked(number, (table.shape[0], stored.width))
            found = tf.matmul(part, marked, transpose_b=True)
            if table.form.shift:
                halves = tf.reduce_sum(part, axis=1, keepdims=True)
                found = found + table.form.shift * halves
            if table.steps is not None:
                found = found * self._scales_of_rows(table, block, hidden)
            sums = sums + found
        sums = tf.cast(sums, hidden.dtype)
        return tf.reshape(sums, tf.concat([lead, [table.shape[0]]], 0))

    def _marked(self, number, shape):
        """Returns a constant with a mark, which may be large: one a graph."""
        key = tf.compat.v1.get_default_graph(), number
        if key not in self._constants:
            marked = np.zeros(shape, "float32")
            marked.flat[: len(_MARK) + 1] = _mark(number)
            self._constants[key] = tf.constant(marked)
        return self._constants[key]

    def _scales_of_rows(self, table, block, inputs):
        """Returns the scales of rows in a block, of shape `(1, rows)`."""
        number, stored = self._place(_Scales(table, block))
        # The converter would multiply constants with constants.
        marked = self._marked(number, (1, stored.width))
        scales = current_execution().kept_out(marked, inputs)
        return scales[:, : table.shape[0]]

    def _place(self, stored):
        """Returns the number of what is stored, and that of its kind."""
        key = type(stored), id(stored.table.values), *stored[1:]
        if key not in self._numbers:
            self._numbers[key] = len(self._stored)
            self._stored.append(stored)
        number = self._numbers[key]
        return number, self._stored[number]

    @property
    def tolerance(self):
        """What rounding may change, as a share of the largest output.

        Products with integers round the hidden states to 8 bits as well, and
        the converter rounds what it has computed of halves to halves.
        """
        if self._ranges:
            return 0.25
        if self._products:
            return 0.05
        return 2e-3 if self.halves else 1e-4

    def filled(self, content: bytes) -> bytes:
        """Returns a file with the tables in the places that have marks."""
        return edited(content, self._fill)

    def _fill(self, file):
        buffers = {}
        for graph in file.subgraphs:
            for index, tensor in enumerate(list(graph.tensors)):
                number = _number_of(file.buffers[tensor.buffer].data)
                if number is None:
                    continue
                stored = self._stored[number]
                if number not in buffers:
                    buffers[number] = _add_buffer(file, stored)
                if isinstance(stored, _Scales):
                    _make_halves(file, graph, index, buffers[number])
                else:
                    _make_integers(graph, index, stored, buffers[number])
        if len(buffers) < len(self._stored):
            raise _lost("left it out")


def _blocks_of(table):
    """Returns the first and the last column of each block of a table."""
    columns = table.columns
    width = table.form.width_of_block(columns)
    return [
        (start, min(start + width, columns))
        for start in range(0, columns, width)
    ]


def _rows_of_halves(table, ids):
    """Returns rows of a variable that the file holds as float16.

    The bits are gathered as integers: of a table of float16 the converter
    would make one of float32, in memory, before the gather.
    """
    bits = tf.bitcast(tf.cast(table.value, "float16"), "int16")
    rows = tf.bitcast(tf.gather(bits, ids), "float16")
    return tf.cast(rows, "float32")


def _mark(number):
    return np.array([*_MARK, number], "float32")


def _number_of(data):
    """Returns the number of a mark, or `None` if there is none."""
    mark = np.array(_MARK, "float32").tobytes()
    if data is None or bytes(data[: len(mark)]) != mark:
        return None
    number = bytes(data[len(mark) : len(mark) + 4])
    return int(np.frombuffer(number, "float32")[0])


def _bytes_of(integers, bits):
    """Returns integers as bytes, of which the low bits come first."""
    if bits == 8:
        return integers.reshape(-1).view("uint8")
    digits = integers.reshape(-1, 8 // bits).astype("uint8") & (2**bits - 1)
    places = bits * np.arange(8 // bits, dtype="uint8")
    return np.bitwise_or.reduce(digits << places, axis=1)


def _add_buffer(file, stored):
    """Adds the bytes of what is stored, and returns their number."""
    buffer = schema.BufferT()
    if isinstance(stored, _Scales):
        buffer.data = stored.halves().view("uint8")
    else:
        buffer.data = _bytes_of(stored.integers(), stored.bits)
    file.buffers.append(buffer)
    return len(file.buffers) - 1


def _make_integers(graph, index, stored, buffer):
    """Makes a tensor one of integers, for operations that take them."""
    tensor = graph.tensors[index]
    name, _ = _STORED[stored.table.form.mode]
    tensor.type = getattr(schema.TensorType, name)
    tensor.shape = [stored.table.shape[0], stored.width]
    tensor.buffer = buffer
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.ones(1, "float32")
    tensor.quantization.zeroPoint = np.zeros(1, "int64")
    for operator in graph.operators:
        if index not in list(operator.inputs):
            continue
        options = operator.builtinOptions
        if isinstance(options, schema.FullyConnectedOptionsT):
            options.asymmetricQuantizeInputs = True
        elif options is not None:
            raise _lost(f"used it for {type(options).__name__}")


def _make_halves(file, graph, index, buffer):
    """Makes a tensor one that is unpacked from halves, once."""
    tensor, halves = graph.tensors[index], schema.TensorT()
    halves.shape, halves.buffer = tensor.shape, buffer
    halves.type, tensor.buffer = schema.TensorType.FLOAT16, 0
    graph.tensors.append(halves)
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.DEQUANTIZE
    code.deprecatedBuiltinCode = code.builtinCode
    code.version = 3
    file.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(file.operatorCodes) - 1
    operator.inputs = [len(graph.tensors) - 1]
    operator.outputs = [index]
    graph.operators.insert(0, operator)


def _lost(what):
    return RuntimeError(
        f"The converter was given a table and {what}. This is a fault of the "
        "export: please report the model's layers."
    )
