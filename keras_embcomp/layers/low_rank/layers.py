"""Low rank: the table is the product of two thin matrices."""

import keras
from keras import ops

from keras_embcomp.checks import at_most, positive_int
from keras_embcomp.layers.base import CompressedEmbedding
from keras_embcomp.layers.softmax import CompressedSoftmax
from keras_embcomp.numerics.lookup import from_the_end_once, take_rows
from keras_embcomp.numerics.low_rank import truncated_svd
from keras_embcomp.numerics.streaming import RowScores, products
from keras_embcomp.layers.factors import in_numpy, times_rows, whole


@keras.saving.register_keras_serializable(package="keras_embcomp")
class LowRankEmbedding(CompressedEmbedding):
    """Embeds ids in a narrow space, then projects them to `output_dim`.

    The table is the product of `embeddings`, of shape `(input_dim, rank)`, and
    `projection`, of shape `(rank, output_dim)`: `rank * (input_dim +
    output_dim)` parameters. A lookup gathers narrow rows, then multiplies.

    Called with `reverse=True` it is the tied output layer: it returns
    `hidden @ table.T`.

    Args:
        input_dim: Integer. Size of the vocabulary.
        output_dim: Integer. Width of an embedding.
        rank: Integer. Width of the narrow space, at most `output_dim`.
        embeddings_initializer: Initializer of `embeddings`.
        projection_initializer: Initializer of `projection`. The default gives
            the table's entries the variance that `embeddings_initializer` asks
            for.
        embeddings_regularizer: Regularizer of `embeddings`.
        projection_regularizer: Regularizer of `projection`.
        embeddings_constraint: Constraint of `embeddings`.
        projection_constraint: Constraint of `projection`.
        mask_zero: Boolean. Whether id 0 is padding, to be masked.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Integer ids, or hidden states if `reverse`.
        reverse: Boolean. Whether to project hidden states to the vocabulary.

    Input shape:
        Integer tensor of any shape; with `reverse=True`, a float tensor of
        shape `(..., output_dim)`.

    Output shape:
        The input shape with `output_dim` appended; with `reverse=True`,
        `(..., input_dim)`.

    Example:

    >>> layer = LowRankEmbedding(10_000, 256, rank=32)
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 256)
    >>> round(layer.compression_ratio, 1)
    7.8

    Reference:
    - [Acharya et al., 2019](https://arxiv.org/abs/1811.00641)
    """

    def __init__(
        self,
        input_dim,
        output_dim,
        rank,
        embeddings_initializer="uniform",
        projection_initializer="lecun_normal",
        embeddings_regularizer=None,
        projection_regularizer=None,
        embeddings_constraint=None,
        projection_constraint=None,
        mask_zero=False,
        **kwargs,
    ):
        super().__init__(input_dim, output_dim, mask_zero=mask_zero, **kwargs)
        self.rank = positive_int("rank", rank)
        at_most("rank", self.rank, "output_dim", self.output_dim)
        self.set_parts(
            embeddings_initializer=embeddings_initializer,
            projection_initializer=projection_initializer,
            embeddings_regularizer=embeddings_regularizer,
            projection_regularizer=projection_regularizer,
            embeddings_constraint=embeddings_constraint,
            projection_constraint=projection_constraint,
        )

    def build(self, input_shape=None):
        self.embeddings = self.add_table_weight(
            "embeddings", (self.input_dim, self.rank)
        )
        self.projection = self.add_table_weight(
            "projection", (self.rank, self.output_dim), shared=True
        )

    def rows(self, ids):
        return _rows(ids, self.embeddings, self.projection, self.compute_dtype)

    def logits(self, hidden):
        return _logits(hidden, self.embeddings, self.projection)

    def row_scores(self, hidden):
        return [_scores(hidden, self.embeddings, self.projection)], None

    def to_dense(self):
        return _product(self.embeddings, self.projection)

    @classmethod
    def from_dense(cls, table, rank, frequencies=None, **kwargs):
        """Returns a built layer with the best table of its rank.

        The factors are those of the truncated SVD: left singular vectors times
        singular values, and right singular vectors.

        Args:
            table: Array of shape `(vocabulary, width)`.
            rank: Integer, at most `width`.
            frequencies: Counts of shape `(vocabulary,)`. If given, a row's
                squared error is weighed by its count.
            **kwargs: Other arguments of the constructor.
        """
        embeddings, projection = truncated_svd(table, rank, frequencies)
        sizes = (len(embeddings), projection.shape[1])
        layer = cls(*sizes, rank=rank, **kwargs)
        layer.build()
        layer.embeddings.assign(embeddings)
        layer.projection.assign(projection)
        return layer

    def get_config(self):
        return {**super().get_config(), "rank": self.rank}


@keras.saving.register_keras_serializable(package="keras_embcomp")
class LowRankSoftmax(CompressedSoftmax):
    """A softmax over the vocabulary through a narrow space.

    The table, a `Dense` kernel transposed, is the product of `embeddings`, of
    shape `(units, rank)`, and `projection`, of shape `(rank, width)`, where
    `width` is the last dimension of the input. A token costs
    `2 * rank * (units + width)` operations in place of `2 * units * width`.

    Args:
        units: Integer. Size of the vocabulary.
        rank: Integer. Width of the narrow space, at most that of the input.
        activation: Activation function. `None` gives logits.
        use_bias: Boolean. Whether each unit has a bias.
        embeddings_initializer: Initializer of `embeddings`.
        projection_initializer: Initializer of `projection`. The default gives
            the table's entries the variance that `embeddings_initializer` asks
            for.
        bias_initializer: Initializer of the bias.
        embeddings_regularizer: Regularizer of `embeddings`.
        projection_regularizer: Regularizer of `projection`.
        bias_regularizer: Regularizer of the bias.
        embeddings_constraint: Constraint of `embeddings`.
        projection_constraint: Constraint of `projection`.
        bias_constraint: Constraint of the bias.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Input shape:
        Float tensor of shape `(batch, ..., width)`.

    Output shape:
        `(batch, ..., units)`.

    Example:

    >>> layer = LowRankSoftmax(10_000, rank=32)
    >>> layer(np.zeros((2, 256), "float32")).shape
    (2, 10000)

    Reference:
    - [Acharya et al., 2019](https://arxiv.org/abs/1811.00641)
    """

    def __init__(
        self,
        units,
        rank,
        activation="softmax",
        use_bias=True,
        embeddings_initializer="glorot_uniform",
        projection_initializer="lecun_normal",
        bias_initializer="zeros",
        embeddings_regularizer=None,
        projection_regularizer=None,
        bias_regularizer=None,
        embeddings_constraint=None,
        projection_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(
            units,
            activation=activation,
            use_bias=use_bias,
            bias_initializer=bias_initializer,
            bias_regularizer=bias_regularizer,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.rank = positive_int("rank", rank)
        self.set_parts(
            embeddings_initializer=embeddings_initializer,
            projection_initializer=projection_initializer,
            embeddings_regularizer=embeddings_regularizer,
            projection_regularizer=projection_regularizer,
            embeddings_constraint=embeddings_constraint,
            projection_constraint=projection_constraint,
        )

    def build_table(self, width):
        at_most("rank", self.rank, "width", width)
        self.embeddings = self.add_table_weight(
            "embeddings", (self.units, self.rank)
        )
        self.projection = self.add_table_weight(
            "projection", (self.rank, width), shared=True
        )

    def rows(self, ids):
        return _rows(ids, self.embeddings, self.projection, self.compute_dtype)

    def logits(self, hidden):
        return _logits(hidden, self.embeddings, self.projection)

    def row_scores(self, hidden):
        return [_scores(hidden, self.embeddings, self.projection)], None

    def to_dense(self):
        return _product(self.embeddings, self.projection)

    @classmethod
    def from_dense(cls, table, rank, bias=None, frequencies=None, **kwargs):
        """Returns a built layer with the best table of its rank.

        Args:
            table: Array of shape `(vocabulary, width)`: a `Dense` kernel
                transposed.
            rank: Integer, at most `width`.
            bias: Array of shape `(vocabulary,)`. `None` starts from
                `bias_initializer`.
            frequencies: Counts of shape `(vocabulary,)`. If given, a row's
                squared error is weighed by its count.
            **kwargs: Other arguments of the constructor.
        """
        embeddings, projection = truncated_svd(table, rank, frequencies)
        layer = cls(len(embeddings), rank=rank, **kwargs)
        layer.build((None, projection.shape[1]))
        layer.embeddings.assign(embeddings)
        layer.projection.assign(projection)
        layer.set_bias(bias)
        return layer

    def get_config(self):
        return {**super().get_config(), "rank": self.rank}


def _rows(ids, embeddings, projection, dtype):
    ids = from_the_end_once(ids, embeddings.shape[0])
    narrow = ops.cast(take_rows(embeddings, ids), dtype)
    return ops.matmul(narrow, whole(projection, dtype, ids))


def _scores(hidden, embeddings, projection):
    return RowScores(
        products,
        (times_rows(hidden, projection),),
        (whole(embeddings, hidden.dtype),),
        units=embeddings.shape[0],
    )


def _logits(hidden, embeddings, projection):
    return times_rows(times_rows(hidden, projection), embeddings)


def _product(embeddings, projection):
    return in_numpy(embeddings) @ in_numpy(projection)
