"""The methods that `compress` chooses among, each with sizes for a budget."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from keras_embcomp.layers.base import Compressed, weight_bytes
from keras_embcomp.layers.product_quantized.table import coded_table
from keras_embcomp.layers.distilled.layers import DistilledEmbedding, DistilledSoftmax
from keras_embcomp.layers.group_reduce.layers import (
    GroupReduceEmbedding,
    GroupReduceSoftmax,
)
from keras_embcomp.layers.hashed.layers import HashedEmbedding, HashedSoftmax
from keras_embcomp.layers.low_rank.layers import LowRankEmbedding, LowRankSoftmax
from keras_embcomp.layers.product_quantized.layers import (
    ProductQuantizedEmbedding,
    ProductQuantizedSoftmax,
)
from keras_embcomp.layers.tensor_train.layers import TTEmbedding, TTSoftmax
from keras_embcomp.numerics.group_reduce.budgets import (
    distilled_rank,
    group_ranks_by_error,
    growing_groups,
    low_rank_from_fraction,
    tensor_train_rank,
)
from keras_embcomp.numerics.product_quantized.budgets import code_sizes

_BYTES = {None: 4.0, "int8": 1.0, "int4": 0.5}
_GROUPS, _HIDDEN = 8, 512


class Method(NamedTuple):
    """How a method is fitted to a table.

    Attributes:
        embedding: The class of its input side.
        softmax: The class of its output side.
        sizes: A function of a table, a number of parameters and weights that
            returns the structural arguments of `from_dense`.
        least: A function of a table's shape: the arguments of the smallest
            layer.
        operations: A function of the arguments, a table's shape and whether it
            is an output layer: operations of a lookup, or of a token's logits.
        formats: The number formats it is tried in; `None` is float32.
        shows_progress: Whether `from_dense` takes `verbose`.
    """

    embedding: type[Compressed]
    softmax: type[Compressed]
    sizes: Callable
    least: Callable
    operations: Callable
    formats: tuple = (None, "int8", "int4")
    shows_progress: bool = False


def _low_rank(table, parameters, weights):
    fraction = min(max(parameters / table.size, 1e-9), 1)
    return {"rank": low_rank_from_fraction(*table.shape, fraction)}


def _low_rank_operations(arguments, shape, output):
    return 2 * arguments["rank"] * (shape[1] + output * shape[0])


def _group_reduce(table, parameters, weights):
    sizes = growing_groups(len(table), min(_GROUPS, len(table)))
    ranks = group_ranks_by_error(table, sizes, int(parameters), weights)
    return {
        "group_sizes": sizes,
        "group_ranks": ranks,
        "permuted": bool((np.diff(weights) > 0).any()),  # stores places
    }


def _group_reduce_least(shape):
    return {"group_sizes": (shape[0],), "group_ranks": (1,)}


def _group_reduce_operations(arguments, shape, output):
    sizes, ranks = arguments["group_sizes"], arguments["group_ranks"]
    return sum(
        2 * rank * (shape[1] + output * size)
        for size, rank in zip(sizes, ranks, strict=True)
    )


def _hashed(table, parameters, weights):
    least = _hashed_least(table.shape)
    parts = least["num_parts"]
    subvectors = int(parameters * parts / table.shape[1])
    most = len(table) * parts
    return {**least, "num_subvectors": min(max(subvectors, parts), most)}


def _hashed_least(shape):
    parts = next(p for p in (8, 10, 6, 4, 5, 3, 2, 1) if shape[1] % p == 0)
    return {"num_subvectors": parts, "num_parts": parts}


def _hashed_operations(arguments, shape, output):
    parts, pool = arguments["num_parts"], arguments["num_subvectors"]
    products = 2 * pool * shape[1] // parts
    return output * (products + shape[0] * parts)


def _distilled(table, parameters, weights):
    vocabulary, width = table.shape
    hidden = max(min(_HIDDEN, int(parameters / (8 * width))), 1)
    rank = distilled_rank(vocabulary, width, parameters, hidden)
    return {"rank": min(rank, width), "hidden_dim": hidden}


def _distilled_operations(arguments, shape, output):
    rank, hidden = arguments["rank"], arguments["hidden_dim"]
    row = 2 * (rank * hidden + hidden * shape[1] + rank * shape[1])
    return shape[0] * (row + 2 * shape[1]) if output else row


def _tensor_train(table, parameters, weights):
    rank = tensor_train_rank(*table.shape, parameters, num_cores=2)
    return {"tt_ranks": rank, "num_cores": 2}


def _tensor_train_operations(arguments, shape, output):
    row = 2 * arguments["tt_ranks"] * shape[1]
    return shape[0] * (row + 2 * shape[1]) if output else row


def _product_codes(table, parameters, weights):
    coded_table(table)
    least = _product_codes_least(table.shape)
    size = least["codebook_size"]
    found = code_sizes(table, 4 * parameters, weights, size, factor_bytes=1)
    return {**least, **found}


def _product_codes_least(shape):
    size = 256 if shape[0] >= 2_560 else max(shape[0] // 10, 2)
    return {
        "num_parts": 1,
        "part_width": 1,
        "codebook_size": size,
        "factors_dtype": "int8",
    }


def _product_codes_operations(arguments, shape, output):
    parts = arguments["num_parts"]
    directions = parts * arguments["part_width"]
    if output:
        products = 2 * directions * (shape[1] + arguments["codebook_size"])
        return products + shape[0] * parts
    return 2 * directions * shape[1]


METHODS = {
    "product_codes": Method(
        ProductQuantizedEmbedding,
        ProductQuantizedSoftmax,
        _product_codes,
        _product_codes_least,
        _product_codes_operations,
        formats=(None,),  # its bytes are chosen by an argument
        shows_progress=True,
    ),
    "low_rank": Method(
        LowRankEmbedding,
        LowRankSoftmax,
        _low_rank,
        lambda shape: {"rank": 1},
        _low_rank_operations,
    ),
    "group_reduce": Method(
        GroupReduceEmbedding,
        GroupReduceSoftmax,
        _group_reduce,
        _group_reduce_least,
        _group_reduce_operations,
    ),
    "distilled": Method(
        DistilledEmbedding,
        DistilledSoftmax,
        _distilled,
        lambda shape: {"rank": 1, "hidden_dim": 1},
        _distilled_operations,
        shows_progress=True,
    ),
    "tensor_train": Method(
        TTEmbedding,
        TTSoftmax,
        _tensor_train,
        lambda shape: {"tt_ranks": 1, "num_cores": 2},
        _tensor_train_operations,
    ),
    "hashed": Method(
        HashedEmbedding,
        HashedSoftmax,
        _hashed,
        _hashed_least,
        _hashed_operations,
    ),
}
# Pairs of a method and a format that may win on a trained table: see
# benchmarks/frontier.py.
AUTO = (
    ("product_codes", None),
    ("low_rank", "int8"),
    ("low_rank", "int4"),
    ("group_reduce", "int8"),
)


def arguments_for(method, number_format, table, max_bytes, weights):
    """Returns arguments of `from_dense` that keep to so many bytes.

    Returns:
        The arguments, and the bytes of a layer with them; `None` if the
        method's smallest layer takes more.
    """
    parameters = max_bytes / _BYTES[number_format]
    for _ in range(6):
        try:
            arguments = METHODS[method].sizes(table, parameters, weights)
        except ValueError:  # the smallest layer has more parameters
            return None
        held = structure_bytes(method, number_format, arguments, table.shape)
        if held <= max_bytes:
            return arguments, held
        excess = (held - max_bytes) / _BYTES[number_format]
        parameters -= max(1.005 * excess, 0.01 * parameters)
        if parameters < 1:
            return None
    return None


def least_bytes(method, number_format, shape):
    """Returns the bytes of a method's smallest layer."""
    arguments = METHODS[method].least(shape)
    return structure_bytes(method, number_format, arguments, shape)


def structure_bytes(method, number_format, arguments, shape):
    """Returns the bytes of a layer with such arguments."""
    dtype = "float32"
    if number_format is not None:
        dtype = f"{number_format}_from_float32"
    layer = METHODS[method].embedding(*shape, **arguments, dtype=dtype)
    layer.build()
    return weight_bytes(layer.weights)


def fitted(
    method, number_format, arguments, table, counts, like=None, verbose=0
):
    """Returns a layer fitted to a table, to put in the place of `like`."""
    method = METHODS[method]
    arguments = {**arguments, "frequencies": counts}
    if method.shows_progress:
        arguments["verbose"] = verbose
    if like is None:
        layer = method.embedding.from_dense(table, **arguments)
    elif isinstance(like, keras.layers.Embedding):
        layer = method.embedding.from_layer(like, **arguments)
    else:
        layer = method.softmax.from_layer(like, **arguments)
    if number_format is not None:
        layer.quantize(number_format)
    return layer
