"""Trellis-coded: a row is a string of bits, as few as it is worth."""

from typing import Any

import keras

from keras_embcomp.layers.base import CompressedEmbedding
from keras_embcomp.layers.softmax import CompressedSoftmax
from keras_embcomp.layers.trellis.table import TrellisCodedTable


@keras.saving.register_keras_serializable(package="keras_embcomp")
class TrellisCodedEmbedding(TrellisCodedTable, CompressedEmbedding):
    """Stores a row as a string of bits, of which each number reads a window.

    At each of `num_parts` steps a row reads some new bits of its string. The
    last `state_bits` bits are the state of the step, and a table that all steps
    share has `part_width` numbers for each state. The numbers are scaled and
    projected: a row is `(values[states] * scales) @ projection + mean`.

    States that follow each other share bits, so the numbers of a row are chosen
    together, by a Viterbi search. On trained tables this is nearer to the table
    than any other method of the same size. `from_dense` gives long and frequent
    rows more bytes, and directions of much variance more bits. Values, scales,
    projection and mean train; the strings do not.

    A lookup gathers the bytes of its ids, then the values. Called with
    `reverse=True` it is the tied output layer: it returns `hidden @ table.T`.

    Args:
        input_dim: Integer. Size of the vocabulary.
        output_dim: Integer. Width of an embedding.
        group_bytes: Integer, or one for each group, falling: the bytes of a
            row, at most `state_bits` bits for each step. Rows of 0 bytes are
            all alike.
        group_sizes: Integers that sum to `input_dim`: the rows of each of at
            most 16 groups. `None` puts all rows into one. A group's rows follow
            each other in a new layer; `from_dense` chooses them.
        num_parts: Integer. Steps of a row. `None` has enough for `output_dim`.
        part_width: Integer. Numbers of a step.
        step_bits: 1, 4 or 8. New bits of a step are multiples of it. With 8 and
            a `part_width` of 4 or so a row is read as fast as product codes;
            with 1 it is nearest to the table.
        state_bits: Integer, at most 15. Bits of a state: two more halve what is
            left to the limit, and take four times as long to fit.
        factors_dtype: `"float32"`, or `"int8"` for a projection in 8 bits and
            values in 16. These do not train then; scales and mean do.
        seed: Integer. Seed of the strings of a layer that is trained from
            scratch, which are random; and of the rows that a fit samples.
        values_initializer: Initializer of the values.
        projection_initializer: Initializer of the projection. The default gives
            the table's entries the variance that `values_initializer` asks
            for.
        values_regularizer: Regularizer of the values.
        projection_regularizer: Regularizer of the projection.
        values_constraint: Constraint of the values.
        projection_constraint: Constraint of the projection.
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

    >>> layer = TrellisCodedEmbedding(30_000, 384, group_bytes=96)
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 384)
    >>> round(layer.compression_ratio, 1)
    13.2

    Reference:
    - [Marcellin and Fischer, 1990](https://doi.org/10.1109/26.46532)
    - [Tseng et al., 2024](https://arxiv.org/abs/2406.11235)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        group_bytes: Any,
        group_sizes: Any = None,
        num_parts: int | None = None,
        part_width: int = 1,
        step_bits: int = 1,
        state_bits: int = 12,
        factors_dtype: str = "float32",
        seed: int = 0,
        values_initializer: Any = "uniform",
        projection_initializer: Any = "lecun_normal",
        values_regularizer: Any = None,
        projection_regularizer: Any = None,
        values_constraint: Any = None,
        projection_constraint: Any = None,
        mask_zero: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, mask_zero=mask_zero, **kwargs)
        self._set_structure(
            group_bytes,
            group_sizes,
            num_parts,
            part_width,
            step_bits,
            state_bits,
            factors_dtype,
            seed,
            values_initializer=values_initializer,
            projection_initializer=projection_initializer,
            values_regularizer=values_regularizer,
            projection_regularizer=projection_regularizer,
            values_constraint=values_constraint,
            projection_constraint=projection_constraint,
        )
        self._check_width("output_dim", self.output_dim)


@keras.saving.register_keras_serializable(package="keras_embcomp")
class TrellisCodedSoftmax(TrellisCodedTable, CompressedSoftmax):
    """A softmax over the vocabulary whose units are strings of bits.

    The table, a `Dense` kernel transposed, is that of `TrellisCodedEmbedding`.
    Blocks of it are decoded and multiplied with the hidden states.

    Args:
        units: Integer. Size of the vocabulary.
        group_bytes: Integer, or one for each group: the bytes of a unit. See
            `TrellisCodedEmbedding`.
        group_sizes: Integers that sum to `units`, or `None`: see
            `TrellisCodedEmbedding`.
        num_parts: Integer. Steps of a unit. `None` has enough for the width of
            the input.
        part_width: Integer. Numbers of a step.
        step_bits: 1, 4 or 8. New bits of a step are multiples of it.
        state_bits: Integer, at most 15. Bits of a state.
        factors_dtype: `"float32"` or `"int8"`: see `TrellisCodedEmbedding`.
        seed: Integer. Seed of random strings, and of a fit's sample.
        activation: Activation function. `None` gives logits.
        use_bias: Boolean. Whether each unit has a bias.
        values_initializer: Initializer of the values.
        projection_initializer: Initializer of the projection.
        values_regularizer: Regularizer of the values.
        projection_regularizer: Regularizer of the projection.
        values_constraint: Constraint of the values.
        projection_constraint: Constraint of the projection.
        **kwargs: `bias_initializer`, `bias_regularizer` and `bias_constraint`
            as for `keras.layers.Dense`, and base layer keyword arguments, such
            as `name` and `dtype`.

    Input shape:
        Float tensor of shape `(batch, ..., width)`.

    Output shape:
        `(batch, ..., units)`.

    Example:

    >>> layer = TrellisCodedSoftmax(10_000, group_bytes=32)
    >>> layer(np.zeros((2, 256), "float32")).shape
    (2, 10000)

    Reference:
    - [Marcellin and Fischer, 1990](https://doi.org/10.1109/26.46532)
    - [Tseng et al., 2024](https://arxiv.org/abs/2406.11235)
    """

    def __init__(
        self,
        units: int,
        group_bytes: Any,
        group_sizes: Any = None,
        num_parts: int | None = None,
        part_width: int = 1,
        step_bits: int = 1,
        state_bits: int = 12,
        factors_dtype: str = "float32",
        seed: int = 0,
        activation: Any = "softmax",
        use_bias: bool = True,
        values_initializer: Any = "uniform",
        projection_initializer: Any = "lecun_normal",
        values_regularizer: Any = None,
        projection_regularizer: Any = None,
        values_constraint: Any = None,
        projection_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation=activation, use_bias=use_bias, **kwargs
        )
        self._set_structure(
            group_bytes,
            group_sizes,
            num_parts,
            part_width,
            step_bits,
            state_bits,
            factors_dtype,
            seed,
            values_initializer=values_initializer,
            projection_initializer=projection_initializer,
            values_regularizer=values_regularizer,
            projection_regularizer=projection_regularizer,
            values_constraint=values_constraint,
            projection_constraint=projection_constraint,
        )
