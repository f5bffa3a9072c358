"""Copies of models whose vocabulary tables have a format of LiteRT files."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp._compat import Int4QuantizationConfig, every_layer
from keras_embcomp.layers.base import (
    Compressed,
    CompressedEmbedding,
    Resizing,
)
from keras_embcomp.layers.distilled.table import DistilledTable
from keras_embcomp.layers.execution import current_execution
from keras_embcomp.layers.factors import PackedFactor, in_numpy
from keras_embcomp.layers.policies import parsed, policy_named
from keras_embcomp.layers.softmax import CompressedSoftmax
from keras_embcomp.models.copy import replaced
from keras_embcomp.models.find import compressed_places, dense_tables_of
from keras_embcomp.models.replace import replacements
from keras_embcomp.numerics.quantized import MODES, Format
from keras_embcomp.numerics.streaming import RowScores, products

_FLOATS = ("float32", "float16")
FORMATS = (*_FLOATS, *MODES)


def check_format(table_format: Any) -> None:
    """Raises `ValueError` unless it is a format, or one with a block."""
    try:
        if table_format not in FORMATS:
            mode, _ = parsed(table_format, "table_format")
            right = mode != "int8"
        else:
            right = True
    except ValueError:
        right = False
    if not right:
        raise ValueError(
            f"`table_format` must be one of {', '.join(FORMATS)}, of which the "
            "last three may have a block, as in int4/64. "
            f"Received: table_format={table_format!r}"
        )


def formatted(models, table_format):
    """Returns copies of models that have the rounding of a format.

    The copies compute in float32, where the models may in half precision, and
    have no ReLU that could be computed once.

    Args:
        models: Dict of models, which may share layers; so will the copies.
        table_format: One of `FORMATS`, or one with a block, as in `int4/64`.
    """
    joint = _joint(list(models.values()))
    if table_format == "float32":
        return _in_float32(joint, models)
    tables = dense_tables_of(joint)
    stored = {table.path: _stored(table, table_format) for table in tables}
    copy = replaced(joint, replacements(tables, stored))
    _for_inference(copy, table_format)
    if table_format in _FLOATS:
        for variable in copy.variables:
            if variable.dtype == "float32":
                variable.assign(_half(variable))
    else:
        for _, layer in compressed_places(copy):
            _quantize(layer, table_format)
    return _parts(copy, models)


def _joint(models):
    """Returns one model with the inputs and outputs of several."""
    if len(models) == 1:
        return models[0]
    outputs = [tensor for m in models for tensor in m.outputs]
    return keras.Model(_inputs(models), outputs)


def _inputs(models):
    """Returns the inputs of models, each once."""
    found = {id(tensor): tensor for m in models for tensor in m.inputs}
    return list(found.values())


def _parts(copy, models):
    """Returns the models that a copy of `_joint` is made of."""
    if len(models) == 1:
        return dict.fromkeys(models, copy)
    old = [id(tensor) for tensor in _inputs(models.values())]
    inputs = dict(zip(old, copy.inputs, strict=True))
    outputs = iter(copy.outputs)
    return {
        name: keras.Model(
            [inputs[id(tensor)] for tensor in model.inputs],
            [next(outputs) for _ in model.outputs],
        )
        for name, model in models.items()
    }


def _is_mixed(layer):
    return layer.compute_dtype != layer.variable_dtype and (
        layer.quantization_mode is None or isinstance(layer, Compressed)
    )


def _folds_relu(layer):
    return isinstance(layer, DistilledTable) and layer._can_fold_relu


def _is_fake(layer):
    return isinstance(layer, Compressed) and layer.fake_quantization is not None


def _in_float32(joint, models):
    """Returns copies without formats, or the models where they are the same."""
    layers = every_layer(joint)
    must_change = any(_is_mixed(layer) or _is_fake(layer) for layer in layers)
    if not must_change and not any(map(_folds_relu, layers)):
        return models
    try:
        copy = replaced(joint, {})
    except ValueError:
        if must_change:
            raise
        return models  # with their ReLUs
    _for_inference(copy, "float32")
    return _parts(copy, models)


def _for_inference(model, table_format):
    """Tells the layers of a model that they do not train again."""
    for layer in every_layer(model):
        if _is_mixed(layer):
            policy = layer.variable_dtype
            if layer.quantization_mode is not None:
                mode, _ = layer.dtype_policy.name.split("_from_")
                policy = f"{mode}_from_{policy}"
            layer.dtype_policy = policy_named(policy)
        if _folds_relu(layer):
            layer._fold_relu()
        if table_format in _FLOATS and _is_fake(layer):
            layer._keep_rounding()


def _half(variable):
    with np.errstate(over="ignore"):
        values = ops.convert_to_numpy(variable).astype("float16")
    if not np.isfinite(values).all():
        raise ValueError(
            "`table_format` must not be 'float16' for numbers above 65,504. "
            f"Received: a model with such a weight, {variable.path}"
        )
    return values


def _quantize(layer, table_format):
    if isinstance(layer, _StoredTable):
        return
    if layer.quantization_mode is None and layer._factors:
        mode, block = parsed(table_format, "table_format")
        config = None
        if mode != "int8":
            config = Int4QuantizationConfig(block_size=block)
        layer.quantize(mode, config=config)
    if layer.lora_enabled:
        layer._pack_difference()


def _stored(table, table_format):
    """Returns a layer with a dense table in a format."""
    cls = _StoredEmbedding if table.is_input else _StoredDense
    return cls.from_dense(
        table.values, table_format=table_format, **table.arguments
    )


class _StoredTable(Compressed):
    """A dense table in the format of a file."""

    table_format: str

    def _check_width(self, name, width):
        """Any width fits."""

    def _build_table(self, width):
        shape = (self._vocabulary, width)
        if self.table_format in _FLOATS:
            self.table = self._add("table", shape, "float32")
            return
        mode, block = parsed(self.table_format, "table_format")
        by_block = "/" in self.table_format and block > 0
        form = Format(mode, block if by_block else None)
        blocks = form.row_scales(*shape)
        self.table = PackedFactor(
            self._add(
                "integers", (shape[0], form.packed_width(width)), form.dtype
            ),
            self._add(
                "column_scales", (form.column_scales(*shape),), "float32"
            ),
            self._add("row_steps", (shape[0], blocks), "int8")
            if blocks
            else None,
            form,
            shape,
        )

    def _add(self, name, shape, dtype):
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    def _rows(self, ids):
        rows = current_execution().take(self.table, ids)
        return ops.cast(rows, self.compute_dtype)

    def _logit_blocks(self, hidden):
        return [current_execution().times_rows(hidden, self.table)], None

    def _row_scores(self, hidden):
        rows = current_execution().whole(self.table, hidden.dtype)
        scores = RowScores(products, (hidden,), (rows,), units=rows.shape[0])
        return [scores], None

    def _table(self):
        return in_numpy(self.table)

    @classmethod
    def from_dense(cls, table, **arguments):
        return cls._fitted(table, arguments)

    def _fit(self, table):
        self.table.assign(table.astype("float32"))

    def _resizing(self, rows):
        return Resizing()

    def _mix(self, mixtures, rows):
        self._mix_factor("table", mixtures)

    def _check_weights(self):
        """Any numbers make a table."""


class _StoredEmbedding(_StoredTable, CompressedEmbedding):
    """An `Embedding` in the format of a file."""

    def __init__(self, input_dim, output_dim, table_format, **kwargs):
        super().__init__(input_dim, output_dim, **kwargs)
        self.table_format = table_format


class _StoredDense(_StoredTable, CompressedSoftmax):
    """A `Dense` in the format of a file."""

    def __init__(self, units, table_format, **kwargs):
        super().__init__(units, **kwargs)
        self.table_format = table_format
