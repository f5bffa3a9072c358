"""Tensor train: the table is a product of small cores."""

import keras

from keras_embcomp.layers.base import CompressedEmbedding
from keras_embcomp.layers.softmax import CompressedSoftmax
from keras_embcomp.layers.tensor_train.table import TensorTrainCores, decomposed
from keras_embcomp.numerics.tensor_train.decomposition import (
    from_t3f,
    structure_of,
    width_of,
)
from keras_embcomp.numerics.tensor_train.lookups import tt_logits


@keras.saving.register_keras_serializable(package="keras_embcomp")
class TTEmbedding(TensorTrainCores, CompressedEmbedding):
    """Embeds ids by a product of small matrices, one for each digit of the id.

    The table is a tensor train: an id has one digit for each core, and a digit
    picks a slice of its core. The product of the slices is the row. It holds
    `sum(R[k] * I[k] * J[k] * R[k + 1])` parameters, often hundreds of times
    fewer than the table, and is meant to be trained from scratch.

    Called with `reverse=True` it is the tied output layer: it returns
    `hidden @ table.T`.

    Args:
        input_dim: Integer. Size of the vocabulary.
        output_dim: Integer. Width of an embedding.
        tt_ranks: Integer, the rank between any two cores, or a list of
            `num_cores - 1` integers. Ranks above what the modes allow are
            clipped, with a warning.
        num_cores: Integer from 2 to 6. More cores are fewer parameters.
        tt_shape: Pair of tuples, such as `((25, 30, 40), (4, 8, 8))`: row
            modes, whose product is at least `input_dim`, and column modes,
            whose product is `output_dim`. `None` picks balanced ones for
            `num_cores`, which pad any vocabulary by few rows.
        embeddings_stddev: Standard deviation of the table's entries at the
            start. `None` is that of Glorot, `sqrt(2 / (input_dim +
            output_dim))`.
        cores_initializer: Initializer of each core. `None` gives the table
            its `embeddings_stddev`.
        cores_regularizer: Regularizer of each core.
        cores_constraint: Constraint of each core.
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

    >>> layer = TTEmbedding(25_000, 256, tt_ranks=16, num_cores=4)
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 256)
    >>> layer.tt_shape
    ((11, 11, 13, 16), (4, 4, 4, 4))
    >>> round(layer.compression_ratio)
    243

    Reference:
    - [Khrulkov et al., 2019](https://arxiv.org/abs/1901.10787)
    """

    def __init__(
        self,
        input_dim,
        output_dim,
        tt_ranks=16,
        num_cores=3,
        tt_shape=None,
        embeddings_stddev=None,
        cores_initializer=None,
        cores_regularizer=None,
        cores_constraint=None,
        mask_zero=False,
        **kwargs,
    ):
        super().__init__(input_dim, output_dim, mask_zero=mask_zero, **kwargs)
        self.set_structure(
            tt_ranks,
            num_cores,
            tt_shape,
            embeddings_stddev,
            cores_initializer=cores_initializer,
            cores_regularizer=cores_regularizer,
            cores_constraint=cores_constraint,
        )
        self.resolve_structure("input_dim", self.input_dim, self.output_dim)

    def build(self, input_shape=None):
        self.add_cores(self.input_dim, self.output_dim)

    def logits(self, hidden):
        cores = self.cast_cores(hidden.dtype, hidden)
        return tt_logits(hidden, cores, self.input_dim)

    @classmethod
    def from_dense(
        cls,
        table,
        tt_ranks=None,
        max_error=None,
        num_cores=3,
        tt_shape=None,
        frequencies=None,
        **kwargs,
    ):
        """Returns a built layer near a table, by `t3f.to_tt_matrix`.

        Args:
            table: Array of shape `(vocabulary, width)`.
            tt_ranks: Integer or list of integers, the largest ranks.
            max_error: In the place of `tt_ranks`: relative Frobenius error
                that is not exceeded, between 0 and 1.
            num_cores: Integer from 2 to 6.
            tt_shape: Pair of tuples, row and column modes.
            frequencies: Counts of shape `(vocabulary,)`. If given, errors are
                weighed by what a product of one weight for each digit of an
                id can say of the counts.
            **kwargs: Other arguments of the constructor.
        """
        cores = decomposed(
            table, tt_ranks, max_error, num_cores, tt_shape, frequencies
        )
        return cls._with(cores, len(table), kwargs)

    @classmethod
    def from_tensor_train(cls, tensor_train, input_dim=None, **kwargs):
        """Returns a built layer with the cores of a `t3f.TensorTrain`.

        Args:
            tensor_train: A TT-matrix of t3f.
            input_dim: Integer. `None` is the number of its rows.
            **kwargs: Other arguments of the constructor.
        """
        cores = from_t3f(tensor_train)
        if input_dim is None:
            input_dim = tensor_train.get_shape().as_list()[0]
        return cls._with(cores, input_dim, kwargs)

    @classmethod
    def _with(cls, cores, input_dim, arguments):
        sizes = (input_dim, width_of(cores))
        layer = cls(*sizes, **structure_of(cores), **arguments)
        layer.build()
        layer.set_cores(cores)
        return layer


@keras.saving.register_keras_serializable(package="keras_embcomp")
class TTSoftmax(TensorTrainCores, CompressedSoftmax):
    """A softmax over the vocabulary whose kernel is a tensor train.

    For few tokens the hidden states are contracted with the cores, and the
    table is never built; for many, it is built once in a step and multiplied
    as a `Dense` kernel, whichever is cheaper. It saves memory rather than
    time. The rows that pad the table have no unit, hence no probability.

    Args:
        units: Integer. Size of the vocabulary.
        tt_ranks: Integer, the rank between any two cores, or a list of
            `num_cores - 1` integers. Ranks above what the modes allow are
            clipped, with a warning.
        num_cores: Integer from 2 to 6. More cores are fewer parameters.
        tt_shape: Pair of tuples: row modes, whose product is at least `units`,
            and column modes, whose product is the width of the input. `None`
            picks balanced ones.
        activation: Activation function. `None` gives logits.
        use_bias: Boolean. Whether each unit has a bias.
        embeddings_stddev: Standard deviation of the table's entries at the
            start. `None` is that of Glorot, `sqrt(2 / (units + width))`.
        cores_initializer: Initializer of each core. `None` gives the table
            its `embeddings_stddev`.
        bias_initializer: Initializer of the bias.
        cores_regularizer: Regularizer of each core.
        bias_regularizer: Regularizer of the bias.
        cores_constraint: Constraint of each core.
        bias_constraint: Constraint of the bias.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Input shape:
        Float tensor of shape `(batch, ..., width)`.

    Output shape:
        `(batch, ..., units)`.

    Example:

    >>> layer = TTSoftmax(10_000, tt_ranks=16)
    >>> layer(np.zeros((2, 256), "float32")).shape
    (2, 10000)
    >>> round(layer.compression_ratio)
    46

    Reference:
    - [Khrulkov et al., 2019](https://arxiv.org/abs/1901.10787)
    """

    def __init__(
        self,
        units,
        tt_ranks=16,
        num_cores=3,
        tt_shape=None,
        activation="softmax",
        use_bias=True,
        embeddings_stddev=None,
        cores_initializer=None,
        bias_initializer="zeros",
        cores_regularizer=None,
        bias_regularizer=None,
        cores_constraint=None,
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
        self.set_structure(
            tt_ranks,
            num_cores,
            tt_shape,
            embeddings_stddev,
            cores_initializer=cores_initializer,
            cores_regularizer=cores_regularizer,
            cores_constraint=cores_constraint,
        )

    def build_table(self, width):
        self.resolve_structure("units", self.units, width)
        self.add_cores(self.units, width)

    def logits(self, hidden):
        cores = self.cast_cores(hidden.dtype, hidden)
        return tt_logits(hidden, cores, self.units)

    @classmethod
    def from_dense(
        cls,
        table,
        tt_ranks=None,
        max_error=None,
        num_cores=3,
        tt_shape=None,
        bias=None,
        frequencies=None,
        **kwargs,
    ):
        """Returns a built layer near a table, by `t3f.to_tt_matrix`.

        Args:
            table: Array of shape `(vocabulary, width)`: a `Dense` kernel
                transposed.
            tt_ranks: Integer or list of integers, the largest ranks.
            max_error: In the place of `tt_ranks`: relative Frobenius error
                that is not exceeded, between 0 and 1.
            num_cores: Integer from 2 to 6.
            tt_shape: Pair of tuples, row and column modes.
            bias: Array of shape `(vocabulary,)`. `None` starts from
                `bias_initializer`.
            frequencies: Counts of shape `(vocabulary,)`, as for
                `TTEmbedding`.
            **kwargs: Other arguments of the constructor.
        """
        cores = decomposed(
            table, tt_ranks, max_error, num_cores, tt_shape, frequencies
        )
        layer = cls(len(table), **structure_of(cores), **kwargs)
        layer.build((None, width_of(cores)))
        layer.set_cores(cores)
        layer.set_bias(bias)
        return layer
