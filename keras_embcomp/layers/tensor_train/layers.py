"""Tensor train: the table is a product of small cores."""

from collections.abc import Sequence
from typing import Any, Self

import keras

from keras_embcomp.layers.base import CompressedEmbedding
from keras_embcomp.layers.softmax import CompressedSoftmax
from keras_embcomp.layers.tensor_train.table import TensorTrainTable
from keras_embcomp.numerics.tensor_train.decomposition import from_t3f


@keras.saving.register_keras_serializable(package="keras_embcomp")
class TTEmbedding(TensorTrainTable, CompressedEmbedding):
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
        input_dim: int,
        output_dim: int,
        tt_ranks: int | Sequence[int] = 16,
        num_cores: int = 3,
        tt_shape: Any = None,
        embeddings_stddev: float | None = None,
        cores_initializer: Any = None,
        cores_regularizer: Any = None,
        cores_constraint: Any = None,
        mask_zero: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, mask_zero=mask_zero, **kwargs)
        self._set_structure(
            tt_ranks,
            num_cores,
            tt_shape,
            embeddings_stddev,
            cores_initializer=cores_initializer,
            cores_regularizer=cores_regularizer,
            cores_constraint=cores_constraint,
        )
        self._check_width("output_dim", self.output_dim)

    @classmethod
    def from_tensor_train(
        cls, tensor_train: Any, input_dim: int | None = None, **kwargs: Any
    ) -> Self:
        """Returns a built layer with the cores of a `t3f.TensorTrain`.

        Args:
            tensor_train: A TT-matrix of t3f.
            input_dim: Integer. `None` is the number of its rows.
            **kwargs: Other arguments of the constructor.
        """
        cores = from_t3f(tensor_train)
        if input_dim is None:
            input_dim = tensor_train.get_shape().as_list()[0]
        return cls._with_cores(cores, input_dim, kwargs)


@keras.saving.register_keras_serializable(package="keras_embcomp")
class TTSoftmax(TensorTrainTable, CompressedSoftmax):
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
        cores_regularizer: Regularizer of each core.
        cores_constraint: Constraint of each core.
        **kwargs: `bias_initializer`, `bias_regularizer` and `bias_constraint`
            as for `keras.layers.Dense`, and base layer keyword arguments, such
            as `name` and `dtype`.

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
        units: int,
        tt_ranks: int | Sequence[int] = 16,
        num_cores: int = 3,
        tt_shape: Any = None,
        activation: Any = "softmax",
        use_bias: bool = True,
        embeddings_stddev: float | None = None,
        cores_initializer: Any = None,
        cores_regularizer: Any = None,
        cores_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation=activation, use_bias=use_bias, **kwargs
        )
        self._set_structure(
            tt_ranks,
            num_cores,
            tt_shape,
            embeddings_stddev,
            cores_initializer=cores_initializer,
            cores_regularizer=cores_regularizer,
            cores_constraint=cores_constraint,
        )
