"""What is asked of the logits of all units, which need not be one tensor."""

from typing import Any

from keras import ops

from keras_embcomp._types import Tensor
from keras_embcomp.checks import at_most, positive_int
from keras_embcomp.layers.lora import Adaptable
from keras_embcomp.numerics.lookup import widened
from keras_embcomp.numerics.score_blocks import (
    inverse,
    largest,
    log_probabilities,
    with_bias,
)


class Scored(Adaptable):
    """A layer whose table makes logits: an output layer, or a tied one."""

    # What a side, or its table, writes.
    _vocabulary_name: str
    _adapted_blocks: Any

    def top_k(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Returns the `k` best units, exactly, without sorting all scores.

        Args:
            hidden: Float tensor of shape `(..., width)`.
            k: Integer, at most the vocabulary.

        Returns:
            As `keras.ops.top_k` of the scores, which are logits with the bias:
            the scores, falling, and the units, both of shape `(..., k)`. Ties
            go to the lower id (with `permuted`, to the earlier group).
        """
        at_most(
            "k", positive_int("k", k), self._vocabulary_name, self._vocabulary
        )
        blocks, places = self._score_blocks(hidden)
        scores, found = largest(blocks, k)
        if places is not None:
            found = ops.take(inverse(places), found, axis=0)
        return scores, found

    def log_prob(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Returns the log-probabilities of given units under the softmax.

        The logits are never one tensor if they come in parts, and nothing but
        the results has their size. An `activation` plays no part.

        Args:
            hidden: Float tensor of shape `(..., width)`.
            ids: Integer tensor of the shape of `hidden` without the width. An
                id out of range gives NaN.

        Returns:
            Tensor of the shape of `ids`, float32 at least.
        """
        blocks, places = self._score_blocks(hidden)
        ids = widened(ids)
        if len(ids.shape) != len(hidden.shape) - 1 or not all(
            None in sizes or sizes[0] == sizes[1]
            for sizes in zip(ids.shape, hidden.shape[:-1], strict=True)
        ):
            raise ValueError(
                "`ids` must have the shape of `hidden` without the width. "
                f"Received: ids of shape {tuple(ids.shape)}, hidden of shape "
                f"{tuple(hidden.shape)}"
            )
        known = ops.logical_and(ids >= 0, ids < self._vocabulary)
        ids = ops.cast(ops.clip(ids, 0, self._vocabulary - 1), "int32")
        if places is not None:
            ids = ops.take(places, ids, axis=0)
        return ops.where(known, log_probabilities(blocks, ids), float("nan"))

    def _score_blocks(self, hidden):
        width = self.dense_shape[1]  # says so if the layer is not built
        if hidden.shape[-1] != width:
            raise ValueError(
                "`hidden` must have the width that the layer was built with. "
                f"Received: hidden of shape {tuple(hidden.shape)}, "
                f"width={width}"
            )
        if not self.built:
            raise ValueError(
                "The layer must be built before it is asked for scores. "
                f"Received: layer '{self.name}', not built"
            )
        hidden = ops.cast(hidden, self.compute_dtype)
        blocks, places = self._adapted_blocks(hidden)
        if self.bias is None:
            return blocks, places
        bias = ops.cast(self.bias, hidden.dtype)
        if places is not None:
            bias = ops.take(bias, inverse(places), axis=0)
        return with_bias(blocks, bias), places
