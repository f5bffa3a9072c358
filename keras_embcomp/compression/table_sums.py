"""Sums over all calls of a table's layer, of ids and hidden states."""

import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import activations, ops

from keras_embcomp._compat import get_mask
from keras_embcomp._types import Array
from keras_embcomp.models.find import LEAST_UNITS, Table
from keras_embcomp.models.recorded import Call
from keras_embcomp.numerics.ragged import densified, is_jagged, is_ragged

_MOST = 0.5  # of all ids: one that has more is told


class TableStatistics(NamedTuple):
    """What data do to one table.

    Args:
        counts: float64 array of shape `(vocabulary,)`. How often each row is
            looked up; rows that the data do not have share what Good and Turing
            expect of them, as many as were seen once. Of an output layer, the
            sum of `p (1 - p)` over the hidden states, with `p` what the model
            gives a word: how much the loss feels an error of its logit. `None`
            if neither is known.
        covariance: Second moments `E[h h^T]` of shape `(width, width)`, or
            `None`: of the hidden states that reach an output layer; of the
            gradients of the loss in the rows that were looked up. Those of a
            tied table are the mean of both.
        mean: Their mean, of shape `(width,)`, or `None`.
        positions: How many ids and hidden states there were, without padding.
    """

    counts: Array | None
    covariance: Array | None = None
    mean: Array | None = None
    positions: int = 0


class TableSums:
    """Sums over all calls of a table's layer."""

    def __init__(self, table: Table) -> None:
        self.path, self.is_input = table.path, table.is_input
        self.layer: Any = table.layer
        self.skipped = 0 if getattr(self.layer, "mask_zero", False) else None
        vocabulary, width = table.values.shape
        self.lookups = np.zeros(vocabulary)
        self.felt = np.zeros(vocabulary)
        self.weights = np.zeros(vocabulary)
        self.moments = np.zeros((width, width))
        self.total = np.zeros(width)
        self.gradients = np.zeros((width, width))
        self.states = 0.0

    # Within the compiled program.

    def of_call(self, call: Call) -> dict[str, Any]:
        """Returns what a call adds."""
        if isinstance(self.layer, keras.layers.Dense):
            return self._of_states(call)
        reverse = call.others.get("reverse", call.others.get(1)) is True
        tied = getattr(self.layer, "tie_weights", True)
        if not tied and self.is_input == reverse:
            return {}  # of the layer's other table
        return self._of_states(call) if reverse else {"ids": _flat_ids(call)}

    def _of_states(self, call):
        states, outputs = map(_flat, (call.inputs, call.outputs))
        mask = get_mask(call.inputs)
        if mask is None:
            there = ops.ones_like(states[:, :1])
        else:
            there = ops.cast(ops.reshape(mask, (-1, 1)), "float32")
            # What is left out may be anything.
            states = ops.where(there > 0, states, 0.0)
        found = {
            "states": ops.sum(there),
            "total": ops.sum(states, axis=0),
            "moments": ops.matmul(ops.transpose(states), states),
        }
        shares = self._shares(outputs)
        if shares is not None:
            variances = ops.where(there > 0, shares * (1 - shares), 0.0)
            found["weights"] = ops.sum(variances, axis=0)
        return found

    def _shares(self, outputs):
        """Returns probabilities of words, or `None` for other outputs."""
        activation = getattr(self.layer, "activation", None)
        if activation in (activations.softmax, activations.sigmoid):
            return outputs
        if activation in (None, activations.linear):
            return ops.softmax(outputs)
        return None

    # Outside.

    def add(self, record: dict[str, Array]) -> None:
        """Adds what was recorded of a call."""
        if "ids" in record:
            ids, size = record["ids"].astype("int64"), len(self.lookups)
            known = (ids >= 0) & (ids < size)
            if self.skipped is not None:
                known &= ids != self.skipped
            self.lookups += np.bincount(ids[known], minlength=size)
            felt = record.get("felt", known)
            if len(felt) == len(ids):
                known &= felt
            self.felt += np.bincount(ids[known], minlength=size)
        if "gradients" in record:
            self._check_finite(record["gradients"], "gradients")
            self.gradients += record["gradients"]
        if "states" in record:
            self._check_finite(record["moments"], "hidden states")
            self.states += float(record["states"])
            self.total += record["total"]
            self.moments += record["moments"]
            self.weights += record.get("weights", 0.0)

    def _check_finite(self, moments, what):
        if not np.isfinite(moments).all():
            raise ValueError(
                f"`data` must give finite {what}. Received: NaN or infinity "
                f"at '{self.path}'"
            )

    def statistics(self) -> TableStatistics:
        """Returns the statistics of all that was added."""
        if self.felt.any():  # without what has no gradient, such as padding
            self.lookups = self.felt
        looked_up = self.lookups.sum()
        if not looked_up and not self.states:
            raise ValueError(
                "`data` must reach every table of the model. Received: data "
                f"without an id or a hidden state for '{self.path}'"
            )
        self._warn(looked_up)
        moments = [
            x / np.trace(x)
            for x in (self.moments, self.gradients)
            if np.trace(x) > 0
        ]
        covariance = sum(moments) / len(moments) if moments else None
        mean = None
        if self.states and not self.gradients.any():
            covariance, mean = (
                x / self.states for x in (self.moments, self.total)
            )
        positions = int(looked_up + self.states)
        return TableStatistics(
            self._counts(positions), covariance, mean, positions
        )

    def _counts(self, positions):
        """Returns how much each row counts, or `None` if it is not known."""
        lookups = with_unseen(self.lookups) if self.lookups.any() else None
        if not self.weights.any():
            return lookups
        known = [x for x in (lookups, self.weights) if x is not None]
        return positions * sum(x / x.sum() for x in known) / len(known)

    def _warn(self, looked_up):
        """Warns of data that say little, or of one id alone."""
        rows, width = len(self.lookups), len(self.total)
        most = int(self.lookups.argmax())
        if rows >= LEAST_UNITS and self.lookups[most] > _MOST * looked_up:
            warnings.warn(
                f"Id {most} of '{self.path}' has "
                f"{self.lookups[most] / looked_up:.0%} of the data's ids, so "
                "its row decides the error. If it is padding, make the layer "
                "with `mask_zero=True`, or give targets.",
                stacklevel=4,
            )
        if 0 < self.states < width:
            warnings.warn(
                f"'{self.path}' has {width} columns, and `data` "
                f"{int(self.states)} hidden states for it: directions that "
                "they do not show count little. Give more data.",
                stacklevel=4,
            )


def with_unseen(counts: Array) -> Array:
    """Returns counts in which rows that were not seen have a share.

    The next id is one that was not seen about as often as ids were seen once
    (Good, 1953). Without a share, such a row would be given up.

    Args:
        counts: Array of shape `(vocabulary,)`.

    Reference:
    - [Good, 1953](https://doi.org/10.1093/biomet/40.3-4.237), Eq. 9
    """
    unseen = counts == 0
    if not unseen.any():
        return counts
    share = np.sum(counts == 1) / np.sum(unseen)
    return np.where(unseen, min(share, 1.0), counts)


def with_gradient(record: dict[str, Any], gradient: Any) -> dict[str, Any]:
    """Returns a record of a lookup with the moments of its gradient."""
    if "ids" not in record:
        return record
    rows = _flat(gradient)
    found = {**record, "gradients": ops.matmul(ops.transpose(rows), rows)}
    if rows.shape[0] is None or rows.shape[0] == record["ids"].shape[0]:
        found["felt"] = ops.any(rows != 0, axis=-1)
    return found


def _flat(tensor):
    tensor = densified(tensor)
    tensor = getattr(tensor, "flat_values", tensor)
    return ops.reshape(ops.cast(tensor, "float32"), (-1, int(tensor.shape[-1])))


def _flat_ids(call):
    """Returns the ids of a lookup; those of a bag that weigh nothing are -1."""
    ids = call.inputs
    if is_ragged(ids):
        ids = ids.flat_values
    elif is_jagged(ids):
        ids = ids.values()
    ids = ops.cast(ops.reshape(densified(ids), (-1,)), "int32")
    weights = call.others.get("weights", call.others.get(1))
    if weights is not None and getattr(weights, "shape", None) is not None:
        weights = getattr(weights, "flat_values", weights)
        ids = ops.where(ops.reshape(weights, (-1,)) != 0, ids, -1)
    return ids
