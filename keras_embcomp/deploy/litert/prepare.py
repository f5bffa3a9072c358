"""Copies of models whose vocabulary tables have a format of LiteRT files."""

import keras
import numpy as np
from keras import ops

from keras_embcomp.models.copy import compressed_places, is_embedding, replaced
from keras_embcomp.layers.base import Compressed, CompressedEmbedding
from keras_embcomp.layers.softmax import CompressedSoftmax
from keras_embcomp.layers.distilled.table import DecodedTable
from keras_embcomp.layers.from_keras import dense_parts, embedding_parts
from keras_embcomp.numerics.quantized import (
    Format,
    fitted_scales,
    packed,
    rounded,
    scales_of,
)
from keras_embcomp.numerics.lookup import take_rows
from keras_embcomp.layers.factors import PackedTable, times_rows
from keras_embcomp.models.find import dense_places

FORMATS = {"float32": None, "float16": None, "int8": 8, "int4": 4}


def formatted(models, table_format):
    """Returns copies of models that have the rounding of a format.

    The copies compute in float32, where the models may in half precision, and
    have no ReLU that could be computed once.

    Args:
        models: Dict of models, which may share layers; so will the copies.
        table_format: A key of `FORMATS`.
    """
    joint = _joint(list(models.values()))
    if table_format == "float32":
        return _in_float32(joint, models)
    bits = FORMATS[table_format]
    copy = replaced(
        joint,
        {id(layer): _stored(layer, bits) for _, layer in dense_places(joint)},
    )
    _for_inference(copy, table_format)
    if bits is None:
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


def _settles(layer):
    return isinstance(layer, DecodedTable) and layer.can_settle


def _is_fake(layer):
    return isinstance(layer, Compressed) and layer.fake_quantization is not None


def _in_float32(joint, models):
    """Returns copies without formats, or the models where they are the same."""
    layers = list(joint._flatten_layers())
    must_change = any(_is_mixed(layer) or _is_fake(layer) for layer in layers)
    if not must_change and not any(map(_settles, layers)):
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
    for layer in model._flatten_layers():
        if _is_mixed(layer):
            policy = layer.variable_dtype
            if layer.quantization_mode is not None:
                mode, _ = layer.dtype_policy.name.split("_from_")
                policy = f"{mode}_from_{policy}"
            layer.dtype_policy = policy
        if _settles(layer):
            layer.settle()
        if FORMATS[table_format] is None and _is_fake(layer):
            layer.keep_rounding()


def _half(variable):
    with np.errstate(over="ignore"):
        values = ops.convert_to_numpy(variable).astype("float16")
    if not np.isfinite(values).all():
        raise ValueError(
            "`table_format` must not be 'float16' for numbers above 65,504. "
            f"Received: a model with such a weight, {variable.path}"
        )
    return values


def _quantize(layer, mode):
    if isinstance(layer, (_StoredEmbedding, _StoredDense)):
        return
    if layer.quantization_mode is None and layer._factors:
        layer.quantize(mode)


def _stored(layer, bits):
    """Returns a layer with the table of a dense one in some bits."""
    if is_embedding(layer):
        table, arguments = embedding_parts(layer)
        stored = _StoredEmbedding(table, bits, **arguments)
        stored.build()
    else:
        table, arguments = dense_parts(layer)
        bias = arguments.pop("bias")
        stored = _StoredDense(table, bits, **arguments)
        stored.build((None, table.shape[1]))
        stored.set_bias(bias)
    return stored


def _packed(layer, table, bits):
    """Returns a variable of a layer, or variables that hold it by rows."""

    def add(name, values):
        weight = layer.add_weight(
            name=name,
            shape=values.shape,
            dtype=str(values.dtype),
            trainable=False,
            autocast=False,
        )
        weight.assign(values)
        return weight

    if bits is None:
        return add("table", table.astype("float32"))
    form = Format(bits, None)
    column_scales, steps = fitted_scales(table, form)
    scales = scales_of(column_scales, steps, form, table.shape[1])
    integers = ops.convert_to_numpy(rounded(table, scales, form))
    return PackedTable(
        add("integers", packed(integers, form)),
        add("column_scales", column_scales),
        None if steps is None else add("row_steps", steps),
        form,
        table.shape,
    )


class _StoredEmbedding(CompressedEmbedding):
    """An `Embedding` whose table is packed."""

    def __init__(self, table, bits, **kwargs):
        super().__init__(*table.shape, **kwargs)
        self._first = table, bits

    def build(self, input_shape=None):
        self.table = _packed(self, *self._first)

    def rows(self, ids):
        return ops.cast(take_rows(self.table, ids), self.compute_dtype)

    def logits(self, hidden):
        return times_rows(hidden, self.table)


class _StoredDense(CompressedSoftmax):
    """A `Dense` whose transposed kernel is packed."""

    def __init__(self, table, bits, **kwargs):
        super().__init__(len(table), **kwargs)
        self._first = table, bits

    def build_table(self, width):
        self.table = _packed(self, *self._first)

    def logits(self, hidden):
        return times_rows(hidden, self.table)
