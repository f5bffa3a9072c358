"""Compressed layers with other words: some rows of a table, in a new order."""

import warnings
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_embcomp._types import Array
from keras_embcomp.layers.base import Compressed, Mixture
from keras_embcomp.layers.factors import RoundedFactor, in_numpy


def with_rows(
    layer: Compressed, rows: Array, mixtures: Sequence[Mixture] = ()
) -> Compressed:
    """Returns a layer like a built one whose words have some of its rows.

    Rows are exact, but for two cases, both with a warning of how far they are:
    `HashedEmbedding`, whose rows follow from the size of the vocabulary, and a
    tensor train whose rows are not the first ones. These are fitted again.

    Args:
        layer: Built compressed layer, quantized or not.
        rows: Integer array. The row of the layer's table for each new word.
        mixtures: New words that are to have weighted sums of old rows.
    """
    words = layer.dense_shape[0]
    if len(rows) == words and not np.array_equal(rows, np.arange(words)):
        # By way of another size, which tells the weights with a row a word.
        larger = with_rows(layer, np.append(rows, rows[0]), mixtures)
        return with_rows(larger, np.arange(words))
    resizing = layer._resizing(rows)
    config = {
        **layer.get_config(),
        layer._vocabulary_name: len(rows),
        **resizing.structure,
    }
    new = type(layer).from_config(config)
    new.build((None, layer.dense_shape[1]))
    sums = np.zeros((0, layer.dense_shape[1]), "float32")
    if mixtures:
        table = layer.to_dense()
        sums = np.stack([m.weights @ table[m.ids] for m in mixtures])
    if resizing.fit is None:
        _copy_rows(layer, new, rows, resizing.words_per_row)
    else:
        _fit_anew(layer, new, rows, resizing, mixtures, sums)
    if mixtures:
        new._mix(mixtures, sums)
        if new.bias is not None:
            bias = ops.convert_to_numpy(new.bias).copy()
            mix_rows(bias, ops.convert_to_numpy(layer.bias), mixtures)
            new.bias.assign(bias)
    return new


def mix_rows(
    new: Array, old: Array, mixtures: Sequence[Mixture], axis: int = 0
) -> None:
    """Writes weighted sums of rows into an array.

    Args:
        new: Array that is changed.
        old: Array that has the rows.
        mixtures: The words.
        axis: Integer. The axis of the words.
    """
    old, new = np.moveaxis(old, axis, 0), np.moveaxis(new, axis, 0)
    for mixture in mixtures:
        new[mixture.word] = np.tensordot(
            mixture.weights, old[mixture.ids], axes=1
        )


def _fit_anew(layer, new, rows, resizing, mixtures, sums):
    """Fits a new layer to rows of an old one."""
    if layer.lora_enabled:
        raise ValueError(
            f"The rows of a `{type(layer).__name__}` are stored anew: call "
            f"`merge_lora` first. Received: layer '{layer.name}' with LoRA"
        )
    wanted = layer.to_dense()[rows]
    wanted[[mixture.word for mixture in mixtures]] = sums
    new._fit(wanted, **resizing.fit)
    if layer.bias is not None:
        new.bias.assign(ops.convert_to_numpy(layer.bias)[rows])
    if not resizing.exact:
        lost = float(np.linalg.norm(new.to_dense() - wanted))
        norm = float(np.linalg.norm(wanted))
        warnings.warn(
            f"The rows of a `{type(layer).__name__}` follow from their ids: "
            f"layer '{layer.name}' was fitted again. Its relative error is "
            f"{lost / max(norm, 1e-30):.3f}. Change the "
            "words before a model is compressed, or train it further.",
            stacklevel=4,
        )


def _copy_rows(old, new, sources, words_per_row):
    """Copies weights; those of other sizes take their rows by source.

    A factor in 8 or 4 bits keeps its integers and scales where the new one
    stores them alike. Where it does not (scales of columns are worth their
    bytes for tall factors only), its rows are rounded again.
    """
    words = old.dense_shape[0]
    same = {
        name: _stored_alike(factor, new._factors[name])
        for name, factor in old._factors.items()
    }
    if all(same.values()):
        pairs = zip(old.weights, new.weights, strict=True)
    else:
        pairs = zip(old._others(), new._others(), strict=True)

    def rows_for(values, target):
        """Returns rows of an array for a weight or factor of a new layer."""
        if values.shape[0] == target.shape[0]:
            return values
        each = 1 if values.shape[0] == words else words_per_row
        return values[sources[::each] // each]

    for before, after in pairs:
        after.assign(rows_for(ops.convert_to_numpy(before), after))
    if not all(same.values()):
        for name, factor in old._factors.items():
            after = new._factors[name]
            after.assign(rows_for(in_numpy(factor), after))


def _stored_alike(old, new):
    """Returns whether two factors have the same scales but for their rows."""
    if not isinstance(old, RoundedFactor):
        return True
    steps = [x if x is None else x.shape[1:] for x in (old.steps, new.steps)]
    alike = old.column_scales.shape == new.column_scales.shape
    return alike and steps[0] == steps[1]
