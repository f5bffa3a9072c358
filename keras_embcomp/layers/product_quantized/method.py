"""Product codes, as plans and devices see them."""

from keras_embcomp.layers.method import Method
from keras_embcomp.layers.product_quantized.layers import (
    ProductQuantizedEmbedding,
    ProductQuantizedSoftmax,
)
from keras_embcomp.numerics.product_quantized.budgets import (
    code_sizes,
    sampled_loss,
)
from keras_embcomp.numerics.product_quantized.fitting import check_rows_differ


def _sizes(table, parameters, weights):
    check_rows_differ(table)
    smallest = _smallest(table.shape)
    size = smallest["codebook_size"]
    found = code_sizes(table, 4 * parameters, weights, size, factor_bytes=1)
    return {**smallest, **found}


def _smallest(shape):
    size = 256 if shape[0] >= 2_560 else max(shape[0] // 10, 2)
    return {
        "num_parts": 1,
        "part_width": 1,
        "codebook_size": size,
        "factors_dtype": "int8",
    }


def _operations(arguments, shape, output):
    parts = arguments["num_parts"]
    directions = parts * arguments["part_width"]
    if output:
        products = 2 * directions * (shape[1] + arguments["codebook_size"])
        return products + shape[0] * parts
    return 2 * directions * shape[1]


PRODUCT_QUANTIZED = Method(
    name="product_codes",
    embedding=ProductQuantizedEmbedding,
    softmax=ProductQuantizedSoftmax,
    sizes=_sizes,
    smallest=_smallest,
    operations=_operations,
    device_axes={"codes": 0, "kept": 0},
    formats=(None,),  # its bytes are chosen by an argument
    slow_fit=True,
    expected_loss=sampled_loss,
)
