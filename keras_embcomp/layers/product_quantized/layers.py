"""Product-quantized: a row is a few codes into small codebooks."""

from typing import Any

import keras

from keras_embcomp.layers.base import CompressedEmbedding
from keras_embcomp.layers.product_quantized.table import ProductQuantizedTable
from keras_embcomp.layers.softmax import CompressedSoftmax


@keras.saving.register_keras_serializable(package="keras_embcomp")
class ProductQuantizedEmbedding(ProductQuantizedTable, CompressedEmbedding):
    """Stores a row as codes of vectors, which a projection turns to its width.

    A row is `concatenate(codebook_p[codes[id, p]] for p) @ projection + mean`.
    The codes take `num_parts` bytes a word, which is nearly all of the layer.
    On trained tables this is nearer to the table than any other method of the
    same size. Codebooks, projection and mean train; the codes do not.

    A lookup gathers the codes of its ids, then the vectors. Called with
    `reverse=True` it is the tied output layer: it returns `hidden @ table.T`.

    Args:
        input_dim: Integer. Size of the vocabulary.
        output_dim: Integer. Width of an embedding.
        num_parts: Integer. Codes of a word, at most `output_dim`.
        part_width: Integer. Width of a codebook's vectors. `num_parts *
            part_width` may exceed `output_dim` by less than `num_parts`: some
            parts are narrower by one then.
        codebook_size: Integer, at most `input_dim`. Vectors of a codebook. A
            code takes one byte up to 256.
        num_kept: Integer. Words whose rows are kept beside the codes, which
            hold their number: the first words, or those that `from_dense` finds
            to count most. At most `codebook_size ** (num_parts - 1)`.
        factors_dtype: `"float32"`, or `"int8"` to store the codebooks, the
            projection and kept rows in a quarter, with a scale for each
            direction and row. They do not train then.
        seed: Integer. Seed of the codes of a layer that is trained from
            scratch, which are random and use all vectors alike; and of
            k-means.
        codebooks_initializer: Initializer of the codebooks.
        projection_initializer: Initializer of the projection. The default gives
            the table's entries the variance that `codebooks_initializer` asks
            for.
        codebooks_regularizer: Regularizer of the codebooks.
        projection_regularizer: Regularizer of the projection.
        codebooks_constraint: Constraint of the codebooks.
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

    >>> layer = ProductQuantizedEmbedding(30_000, 384, 96, part_width=4)
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 384)
    >>> round(layer.compression_ratio, 1)
    11.9

    Reference:
    - [Jégou et al., 2011](https://doi.org/10.1109/TPAMI.2010.57)
    - [Ge et al., 2013](https://doi.org/10.1109/CVPR.2013.379)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        num_parts: int,
        part_width: int,
        codebook_size: int = 256,
        num_kept: int = 0,
        factors_dtype: str = "float32",
        seed: int = 0,
        codebooks_initializer: Any = "uniform",
        projection_initializer: Any = "lecun_normal",
        codebooks_regularizer: Any = None,
        projection_regularizer: Any = None,
        codebooks_constraint: Any = None,
        projection_constraint: Any = None,
        mask_zero: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, mask_zero=mask_zero, **kwargs)
        self._set_structure(
            num_parts,
            part_width,
            codebook_size,
            num_kept,
            factors_dtype,
            seed,
            codebooks_initializer=codebooks_initializer,
            projection_initializer=projection_initializer,
            codebooks_regularizer=codebooks_regularizer,
            projection_regularizer=projection_regularizer,
            codebooks_constraint=codebooks_constraint,
            projection_constraint=projection_constraint,
        )
        self._check_width("output_dim", self.output_dim)


@keras.saving.register_keras_serializable(package="keras_embcomp")
class ProductQuantizedSoftmax(ProductQuantizedTable, CompressedSoftmax):
    """A softmax over the vocabulary whose units are codes of vectors.

    The table, a `Dense` kernel transposed, is that of
    `ProductQuantizedEmbedding`. For few tokens, the products of each part of a
    hidden state with its codebook are computed once, and a unit's logit is the
    sum of `num_parts` of them; for more than eight, blocks of the table are
    decoded.

    Args:
        units: Integer. Size of the vocabulary.
        num_parts: Integer. Codes of a unit.
        part_width: Integer. Width of a codebook's vectors. `num_parts *
            part_width` may exceed the width of the input by less than
            `num_parts`: some parts are narrower by one then.
        codebook_size: Integer, at most `units`. Vectors of a codebook.
        num_kept: Integer. Units whose rows are kept: see
            `ProductQuantizedEmbedding`.
        factors_dtype: `"float32"` or `"int8"`: see
            `ProductQuantizedEmbedding`.
        seed: Integer. Seed of random codes, and of k-means.
        activation: Activation function. `None` gives logits.
        use_bias: Boolean. Whether each unit has a bias.
        codebooks_initializer: Initializer of the codebooks.
        projection_initializer: Initializer of the projection.
        codebooks_regularizer: Regularizer of the codebooks.
        projection_regularizer: Regularizer of the projection.
        codebooks_constraint: Constraint of the codebooks.
        projection_constraint: Constraint of the projection.
        **kwargs: `bias_initializer`, `bias_regularizer` and `bias_constraint`
            as for `keras.layers.Dense`, and base layer keyword arguments, such
            as `name` and `dtype`.

    Input shape:
        Float tensor of shape `(batch, ..., width)`.

    Output shape:
        `(batch, ..., units)`.

    Example:

    >>> layer = ProductQuantizedSoftmax(10_000, num_parts=32, part_width=8)
    >>> layer(np.zeros((2, 256), "float32")).shape
    (2, 10000)

    Reference:
    - [Jégou et al., 2011](https://doi.org/10.1109/TPAMI.2010.57)
    """

    def __init__(
        self,
        units: int,
        num_parts: int,
        part_width: int,
        codebook_size: int = 256,
        num_kept: int = 0,
        factors_dtype: str = "float32",
        seed: int = 0,
        activation: Any = "softmax",
        use_bias: bool = True,
        codebooks_initializer: Any = "uniform",
        projection_initializer: Any = "lecun_normal",
        codebooks_regularizer: Any = None,
        projection_regularizer: Any = None,
        codebooks_constraint: Any = None,
        projection_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation=activation, use_bias=use_bias, **kwargs
        )
        self._set_structure(
            num_parts,
            part_width,
            codebook_size,
            num_kept,
            factors_dtype,
            seed,
            codebooks_initializer=codebooks_initializer,
            projection_initializer=projection_initializer,
            codebooks_regularizer=codebooks_regularizer,
            projection_regularizer=projection_regularizer,
            codebooks_constraint=codebooks_constraint,
            projection_constraint=projection_constraint,
        )
