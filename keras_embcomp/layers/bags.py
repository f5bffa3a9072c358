"""Bags: the embeddings of the ids of a bag, combined into one."""

from typing import Any

import keras
from keras import ops

from keras_embcomp.checks import one_of
from keras_embcomp.layers.base import CompressedEmbedding, NarrowTable
from keras_embcomp.layers.execution import naming_ids
from keras_embcomp.numerics.bags import Bags, bags_of
from keras_embcomp.numerics.lookup import widened
from keras_embcomp.numerics.ragged import is_ragged, is_sparse

_COMBINERS = ("mean", "sum", "sqrtn")


@keras.saving.register_keras_serializable(package="keras_embcomp")
class EmbedReduce(keras.layers.Wrapper):
    """Embeds the ids of a bag, and combines their embeddings into one.

    It is `keras_rs.layers.EmbedReduce` around an embedding of any kind. The
    last dimension of the ids is the bag. Ids may be dense, padded (if the
    embedding has `mask_zero=True`, padding counts in no combiner), ragged or
    sparse, whose absent entries are in no bag. Of ragged and sparse ids only
    those that are there are looked up. Where an embedding ends in a
    linear step, such as the projection of a low rank, the narrow rows are
    combined before it.

    A bag without ids gives zeros. Ids of one dimension, unless they are
    sparse, are embedded and not combined.

    Args:
        layer: `keras.layers.Embedding`, or a compressed embedding.
        combiner: `"mean"`, `"sum"` or `"sqrtn"`. With weights, the weighted
            sum is divided by the sum of the weights, by nothing, or by the
            square root of the sum of their squares.
        **kwargs: Base layer keyword arguments, such as `name`.

    Call arguments:
        inputs: Integer ids.
        weights: Float weights of the shape of `inputs`, or `None`: all are 1.
            They are ragged if `inputs` are; with sparse `inputs` they are
            sparse or dense.

    Input shape:
        Integer tensor of shape `(..., length)`.

    Output shape:
        `(..., output_dim)`. Dense, unless a dimension before the last is
        ragged too.

    Example:

    >>> embedding = LowRankEmbedding(10_000, 256, rank=32, mask_zero=True)
    >>> layer = EmbedReduce(embedding, combiner="mean")
    >>> layer(np.array([[1, 2, 3], [4, 0, 0]])).shape
    (2, 256)

    Reference:
    - [keras_rs.layers.EmbedReduce](
      https://keras.io/keras_rs/api/embedding_layers/embed_reduce/)
    """

    def __init__(
        self, layer: keras.Layer, combiner: str = "mean", **kwargs: Any
    ) -> None:
        if not isinstance(layer, (keras.layers.Embedding, CompressedEmbedding)):
            raise ValueError(
                "`layer` must be an `Embedding` of Keras or a compressed one. "
                f"Received: layer={layer!r}"
            )
        one_of("combiner", combiner, _COMBINERS)
        super().__init__(layer, **kwargs)
        self.combiner = combiner
        self.supports_masking = True
        # As in an embedding: ids, of floats too, must not be rounded.
        self.autocast = False

    def build(self, inputs_shape=None, weights_shape=None):
        super().build(inputs_shape)

    def call(self, inputs, weights=None):
        self._check_weights(inputs, weights)
        if is_ragged(inputs) and len(inputs.values.shape) > 1:
            # The bag is a later dimension.
            if weights is not None:
                weights = weights.values
            return inputs.with_values(self.call(inputs.values, weights))
        if len(inputs.shape) == 1 and self.combiner != "sum":
            weights = None  # one id for a bag: it is what it is
        if len(inputs.shape) == 1 and not is_sparse(inputs):
            rows = self.layer(inputs)
            if weights is None:
                return rows
            return rows * ops.expand_dims(ops.cast(weights, rows.dtype), -1)
        bags = bags_of(inputs, weights)
        if self.layer.mask_zero:
            bags = _without_padding(bags)
        sums = self._sums(bags)
        if self.combiner == "sum":
            return sums
        divisors = bags.divisors(self.combiner)
        return ops.cast(sums / ops.cast(divisors, sums.dtype), sums.dtype)

    def _sums(self, bags):
        layer = self.layer
        plain = isinstance(layer, NarrowTable) and not layer.lora_enabled
        if not plain or layer.activity_regularizer:
            return bags.sums(layer(bags.ids))
        ids = bags.ids
        if not keras.backend.is_int_dtype(ids.dtype):
            ids = ops.cast(ids, "int32")
        with naming_ids(layer, ids):
            ids = widened(ids)
            narrow = layer._narrow_rows(ids)
        return layer._projected(bags.sums(narrow), ids)

    def _check_weights(self, inputs, weights):
        if weights is None:
            return
        if is_ragged(inputs) != is_ragged(weights):
            kinds = [type(x).__name__ for x in (inputs, weights)]
            raise ValueError(
                "`weights` must be ragged if, and only if, `inputs` are. "
                f"Received: inputs of {kinds[0]}, weights of {kinds[1]}"
            )
        shapes = tuple(inputs.shape), tuple(weights.shape)
        alike = len(shapes[0]) == len(shapes[1]) and all(
            one is None or other is None or one == other
            for one, other in zip(*shapes, strict=True)
        )
        if not alike:
            raise ValueError(
                "`weights` must have the shape of `inputs`. Received: inputs "
                f"of shape {shapes[0]}, weights of shape {shapes[1]}"
            )

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, inputs_shape, weights_shape=None):
        leading = inputs_shape if len(inputs_shape) == 1 else inputs_shape[:-1]
        return (*leading, self.layer.output_dim)

    def compute_output_spec(self, inputs, weights=None):
        self._check_weights(inputs, weights)
        ragged = getattr(inputs, "ragged", False) and len(inputs.shape) > 2
        return keras.KerasTensor(
            self.compute_output_shape(inputs.shape),
            dtype=self.layer.compute_dtype,
            ragged=ragged,
        )

    def get_config(self):
        return {**super().get_config(), "combiner": self.combiner}


def _without_padding(bags: Bags) -> Bags:
    """Returns bags with weight 0 for id 0."""
    kept = ops.cast(ops.not_equal(bags.ids, 0), "float32")
    if bags.weights is not None:
        kept = kept * ops.cast(bags.weights, "float32")
    return bags._replace(weights=kept)
