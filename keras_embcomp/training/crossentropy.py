"""Cross-entropy over a vocabulary whose logits would not fit into memory."""

import numbers
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp._compat import log_sum_exp, set_mask
from keras_embcomp._types import Tensor
from keras_embcomp.checks import positive_int
from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.execution import known_values
from keras_embcomp.numerics.lookup import likely_count, take_rows, widened
from keras_embcomp.numerics.score_blocks import inverse
from keras_embcomp.numerics.streaming import default_block_size, sums_of_scores


def compressed_crossentropy(
    head: Compressed,
    hidden: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    num_sampled: int | None = None,
    seed: Any = None,
    block_size: int | None = None,
    ignore_class: int | None = None,
) -> Tensor:
    """Returns the softmax cross-entropy of each label, without the logits.

    It is that of `keras.losses.sparse_categorical_crossentropy` of the head's
    logits, and has its gradients. The logits of `block_size` units are in
    memory at once; they are computed again for the gradients. Sums are in
    float32, whatever the head computes in.

    With `num_sampled` the loss is estimated from units drawn at random, the
    same for all labels: unit `i` with a probability that falls as
    `1 / (i + 1)`, which fits a vocabulary sorted by frequency. The estimate of
    the sum over all units has no bias; the loss, its logarithm, is too low on
    average, and less so for more samples. Use it to train, not to evaluate.

    Args:
        head: A built layer of this package: a `...Softmax`, whose `activation`
            plays no part, or an embedding that is tied (`reverse=True`).
        hidden: Float tensor of shape `(..., width)`: what the head would be
            called with.
        labels: Integer tensor of the shape of `hidden` without the width. One
            out of range is refused, or has a loss of NaN in a function that is
            compiled, where its value is not known.
        label_smoothing: Number from 0, below 1. Each unit gets its share of
            this part of a label. Not with `num_sampled`.
        num_sampled: Integer or `None`. How many units are drawn.
        seed: Integer or `keras.random.SeedGenerator`, for `num_sampled`.
        block_size: Integer, or `None` for one that suits the number of tokens.
            Smaller blocks take less memory.
        ignore_class: Integer or `None`. A label whose loss is 0, in range or
            not. As with Keras' loss, the result then has a mask, so that a
            mean of `keras.losses.Loss` is over the other labels.

    Returns:
        Tensor of the shape of `labels`, float32 at least.

    Raises:
        ValueError: if the head is not built, shapes do not fit, or an argument
            or a label is out of range.

    Example:

    >>> head = LowRankSoftmax(10_000, rank=32)
    >>> head.build((None, 256))
    >>> hidden = np.ones((2, 7, 256), "float32")
    >>> labels = np.full((2, 7), 42)
    >>> compressed_crossentropy(head, hidden, labels).shape
    (2, 7)

    Reference:
    - [Wijmans et al., 2024](https://arxiv.org/abs/2411.09009)
    - [Jean et al., 2015](https://arxiv.org/abs/1412.2007), for `num_sampled`
    """
    check_options(label_smoothing, num_sampled, block_size, ignore_class)
    hidden, labels, counted = _checked(head, hidden, labels, ignore_class)
    units, width = head.dense_shape
    shape = ops.shape(labels)
    tokens = ops.reshape(ops.cast(hidden, head.compute_dtype), (-1, width))
    known = ops.reshape(ops.logical_and(labels >= 0, labels < units), (-1,))
    ids = ops.reshape(ops.cast(ops.clip(labels, 0, units - 1), "int32"), (-1,))
    own = _scores_of_labels(head, tokens, ids)
    if num_sampled is not None:
        losses = _sampled(head, tokens, ids, own, num_sampled, seed) - own
    else:
        if block_size is None:
            block_size = default_block_size(
                likely_count(hidden.shape[:-1]), width
            )
        logsumexp, totals = _sums(
            head, tokens, block_size, bool(label_smoothing)
        )
        losses = logsumexp - (1 - label_smoothing) * own
        if label_smoothing:
            losses = losses - label_smoothing / units * totals
    losses = ops.where(known, losses, float("nan"))
    losses = ops.reshape(losses, shape)
    if counted is not None:
        losses = ops.where(counted, losses, 0)
        set_mask(losses, counted)
    return losses


def check_options(
    label_smoothing: float,
    num_sampled: int | None,
    block_size: int | None,
    ignore_class: int | None = None,
) -> None:
    """Raises if the options of the loss are out of range."""
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            "`label_smoothing` must be from 0, and below 1. "
            f"Received: label_smoothing={label_smoothing}"
        )
    if num_sampled is not None:
        positive_int("num_sampled", num_sampled)
        if label_smoothing:
            raise ValueError(
                "`label_smoothing` must be 0 with `num_sampled`. Received: "
                f"label_smoothing={label_smoothing}, num_sampled={num_sampled}"
            )
    if block_size is not None:
        positive_int("block_size", block_size)
    if ignore_class is not None and (
        isinstance(ignore_class, bool)
        or not isinstance(ignore_class, numbers.Integral)
    ):
        raise ValueError(
            "`ignore_class` must be an integer or None. "
            f"Received: ignore_class={ignore_class}"
        )


def check_head(head: Any) -> None:
    """Raises unless a layer has what the loss is computed from."""
    if not isinstance(head, Compressed):
        raise ValueError(
            "`head` must be a layer of keras_embcomp with a table. "
            f"Received: head={head}"
        )


def _checked(head, hidden, labels, ignore_class):
    """Returns hidden states and labels as tensors that fit the head.

    Labels have 32 bits or more. The third value says which of them are not of
    the class to ignore, which label 0 stands for; `None` if there is none.
    """
    check_head(head)
    if not head.built:
        raise ValueError(
            f"`head` must be built. Received: layer '{head.name}', not built"
        )
    hidden = ops.convert_to_tensor(hidden)
    if isinstance(hidden, keras.KerasTensor):
        raise ValueError(
            "`hidden` must be a tensor with values; for a model of the "
            "functional API there is `CrossentropyHead`. "
            f"Received: hidden={hidden}"
        )
    units, width = head.dense_shape
    values = known_values(labels)
    if values is not None and values.dtype.kind in "iu":
        if ignore_class is not None:
            values = values[values != ignore_class]
        least, most = values.min(initial=0), values.max(initial=0)
        if least < 0 or most >= units:
            raise ValueError(
                f"`labels` must be from 0 to {units - 1}. "
                f"Received: labels from {least} to {most}"
            )
    if not keras.backend.is_int_dtype(labels.dtype):
        raise ValueError(
            "`labels` must be integers. "
            f"Received: labels of dtype {labels.dtype}"
        )
    labels = widened(labels)
    fits = hidden.shape[-1] == width and (
        len(labels.shape) == len(hidden.shape) - 1
    )
    if not fits or not all(
        None in sizes or sizes[0] == sizes[1]
        for sizes in zip(labels.shape, hidden.shape[:-1], strict=True)
    ):
        raise ValueError(
            "`hidden` must have the width of the head, and `labels` its shape "
            "without the width. Received: hidden of shape "
            f"{tuple(hidden.shape)}, labels of shape {tuple(labels.shape)}, "
            f"width={width}"
        )
    if ignore_class is None:
        return hidden, labels, None
    counted = ops.not_equal(labels, ignore_class)
    return hidden, ops.where(counted, labels, 0), counted


def _summed_in(head):
    return "float64" if head.compute_dtype == "float64" else "float32"


def _scores_of_labels(head, tokens, ids):
    """Returns the logit of each token's label."""
    dtype = _summed_in(head)
    rows = ops.cast(head.rows(ids), dtype)
    own = ops.sum(ops.cast(tokens, dtype) * rows, axis=-1)
    if head.bias is None:
        return own
    return own + ops.cast(take_rows(head.bias, ids), dtype)


def _sums(head, tokens, block_size, with_totals):
    """Returns the logsumexp of all logits of each token, and their sum."""
    scores, places = head._adapted_scores(tokens)
    bias = head.bias
    if bias is not None and places is not None:
        bias = take_rows(bias, inverse(places))
    logsumexps, start = [], 0
    totals: Any = 0
    for part in scores:
        end = start + part.units
        logsumexp, total = sums_of_scores(
            part,
            None if bias is None else bias[start:end],
            head.compute_dtype,
            block_size,
            with_totals,
        )
        logsumexps.append(logsumexp)
        if with_totals:
            totals = totals + total
        start = end
    if len(logsumexps) > 1:
        logsumexps = [log_sum_exp(ops.stack(logsumexps), axis=0)]
    return logsumexps[0], totals


def _sampled(head, tokens, ids, own, num_sampled, seed):
    """Returns an estimate of the logsumexp of all logits of each token."""
    units, dtype = head.dense_shape[0], _summed_in(head)
    drawn, log_counts = log_uniform_units(units, num_sampled, seed)
    logits = ops.matmul(tokens, ops.transpose(head.rows(drawn)))
    logits = ops.cast(logits, dtype)
    if head.bias is not None:
        logits = logits + ops.cast(take_rows(head.bias, drawn), dtype)
    logits = logits - ops.cast(log_counts, dtype)
    other = ops.not_equal(ops.expand_dims(ids, 1), drawn)
    logits = ops.where(other, logits, -1e30)
    every = ops.concatenate([ops.expand_dims(own, 1), logits], axis=1)
    return log_sum_exp(every, axis=1)


def log_uniform_units(
    units: int, count: int, seed: Any
) -> tuple[Tensor, Tensor]:
    """Draws units with replacement, unit `i` as often as `log(1 + 1/(i + 1))`.

    Returns:
        The units, int32, and the logarithms of how often each was to come.
    """
    uniform = keras.random.uniform((count,), seed=seed)
    drawn = ops.exp(uniform * np.log(units + 1.0)) - 1
    drawn = ops.clip(ops.cast(drawn, "int32"), 0, units - 1)
    chances = ops.log1p(1 / (ops.cast(drawn, "float32") + 1))
    return drawn, ops.log(chances * (count / np.log(units + 1.0)))
