"""An output layer that is trained without logits."""

from typing import Any

import keras
from keras import ops

from keras_embcomp._compat import get_mask, given_to, producer, set_mask
from keras_embcomp._types import Tensor
from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.softmax import CompressedSoftmax
from keras_embcomp.numerics.lookup import widened
from keras_embcomp.training.crossentropy import (
    check_head,
    check_options,
    compressed_crossentropy,
)


@keras.saving.register_keras_serializable(package="keras_embcomp")
class CrossentropyHead(keras.layers.Layer):
    """Ends a model that is trained by `compressed_crossentropy`.

    It returns what it is given, so that the model's output is hidden states,
    and makes the output layer `head` a part of the model. Its `loss` goes to
    `compile`; labels are integers, masks and sample weights do what they do
    with any loss. `num_sampled` counts in training only: `evaluate` has the
    loss over all units, and its exponential is the perplexity.

    `predictor(model)` returns a model of the same layers that predicts. A
    loaded model must be compiled again, with the `loss` of its last layer.

    Args:
        head: A layer of this package: a `...Softmax`, or an embedding of the
            model, whose table is then tied.
        label_smoothing: Number, see `compressed_crossentropy`.
        num_sampled: Integer or `None`, see `compressed_crossentropy`.
        seed: Integer or `None`. Seed of the units that are drawn.
        block_size: Integer or `None`, see `compressed_crossentropy`.
        ignore_class: Integer or `None`, see `compressed_crossentropy`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Input shape:
        Float tensor of shape `(batch, ..., width)`.

    Output shape:
        That of the input.

    Example:

    >>> ids = keras.Input((None,), dtype="int32")
    >>> states = LowRankEmbedding(10_000, 64, rank=16)(ids)
    >>> states = keras.layers.GRU(64, return_sequences=True)(states)
    >>> end = CrossentropyHead(LowRankSoftmax(10_000, rank=16))
    >>> model = keras.Model(ids, end(states))
    >>> model.compile("adam", loss=end.loss)
    >>> predictor = keras.Model(ids, end.head(states))
    """

    def __init__(
        self,
        head: Compressed,
        label_smoothing: float = 0.0,
        num_sampled: int | None = None,
        seed: int | None = None,
        block_size: int | None = None,
        ignore_class: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_options(label_smoothing, num_sampled, block_size, ignore_class)
        check_head(head)
        self.head = head
        self.label_smoothing = label_smoothing
        self.num_sampled = num_sampled
        self.seed = seed
        self.block_size = block_size
        self.ignore_class = ignore_class
        self.seed_generator = None
        if num_sampled is not None:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self._in_training = False
        self.loss = HeadCrossentropy(self)

    def build(self, input_shape):
        if not self.head.built:
            self.head.build(input_shape)

    def call(self, inputs, training=False):
        self._in_training = training  # of the step whose loss comes next
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def losses_of(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of each label, as the model is trained or not."""
        sampled = self._in_training and self.num_sampled is not None
        return compressed_crossentropy(
            self.head,
            hidden,
            labels,
            label_smoothing=self.label_smoothing,
            num_sampled=self.num_sampled if sampled else None,
            seed=self.seed_generator if sampled else None,
            block_size=self.block_size,
            ignore_class=self.ignore_class,
        )

    def predictor(self, model: keras.Model) -> keras.Model:
        """Returns a model that predicts, of one that trains with this layer.

        Both share all layers.

        Args:
            model: Functional model that ends in this layer, loaded from a file
                or not.

        Returns:
            A model from the same inputs to what `head` gives: probabilities or
            logits, as its `activation` says; logits of a tied embedding.

        Raises:
            ValueError: if the model does not end in this layer.

        Example:

        >>> ids = keras.Input((None,), dtype="int32")
        >>> states = keras.layers.Embedding(100, 16)(ids)
        >>> end = CrossentropyHead(LowRankSoftmax(100, rank=4))
        >>> end.predictor(keras.Model(ids, end(states))).output_shape
        (None, None, 100)
        """
        ends = [x for x in model.outputs if producer(x) is self]
        if len(ends) != 1 or len(model.outputs) != 1:
            raise ValueError(
                "`model` must have one output, that of this layer. "
                f"Received: model={model!r}, layer '{self.name}'"
            )
        states = given_to(ends[0])
        if isinstance(self.head, CompressedSoftmax):
            return keras.Model(model.input, self.head(states))
        return keras.Model(model.input, self.head(states, reverse=True))

    def get_config(self):
        return {
            **super().get_config(),
            "head": keras.saving.serialize_keras_object(self.head),
            "label_smoothing": self.label_smoothing,
            "num_sampled": self.num_sampled,
            "seed": self.seed,
            "block_size": self.block_size,
            "ignore_class": self.ignore_class,
        }

    @classmethod
    def from_config(cls, config):
        head = keras.saving.deserialize_keras_object(config["head"])
        return cls(**{**config, "head": head})


@keras.saving.register_keras_serializable(package="keras_embcomp")
class HeadCrossentropy(keras.losses.Loss):
    """The loss of a model that ends with a `CrossentropyHead`.

    Args:
        end: The `CrossentropyHead`. `None` is for a loss from a file, which
            does not know the layer of the model that is loaded with it.
        **kwargs: Arguments of `keras.losses.Loss`.
    """

    def __init__(
        self, end: CrossentropyHead | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**{"name": "crossentropy", **kwargs})
        # A method: Keras would follow a layer that leads back here for ever.
        self._losses_of = None if end is None else end.losses_of

    def __call__(self, y_true, y_pred, sample_weight=None):
        if self._losses_of is None:
            raise ValueError(
                "A model with a `CrossentropyHead` must be compiled again "
                "after it was loaded: model.compile(model.optimizer, "
                "model.layers[-1].loss). Received: the loss of a file"
            )
        mask = get_mask(y_pred)
        labels = _counted(y_true, mask, sample_weight)
        # Not by `Loss`, which would make floats of labels.
        losses = self._losses_of(y_pred, labels)
        own = get_mask(losses)  # without the class to ignore
        if mask is not None and own is not None:
            mask = ops.logical_and(mask, own)
        mask = own if mask is None else mask
        if mask is not None:
            set_mask(losses, mask)
        return super().__call__(losses, losses, sample_weight)

    def call(self, y_true, y_pred):
        return y_pred


def _counted(labels, mask, sample_weight):
    """Returns labels with 0 in the place of those that do not count.

    What is masked or has no weight may be out of range, as -1 often is. Its
    loss is multiplied by 0, which NaN outlives.
    """
    for counts in (mask, sample_weight):
        if counts is None:
            continue
        counts = ops.not_equal(ops.convert_to_tensor(counts), 0)
        missing = len(labels.shape) - len(counts.shape)
        for _ in range(missing):
            counts = ops.expand_dims(counts, -1)
        if missing < 0:  # weights of shape `(batch, 1)`, as for a dense target
            counts = ops.squeeze(counts, -1)
        labels = widened(labels)
        labels = ops.where(counts, labels, ops.zeros_like(labels))
    return labels
