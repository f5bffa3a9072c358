"""All methods: the one place that lists them."""

from keras_embcomp.layers.distilled.method import DISTILLED
from keras_embcomp.layers.group_reduce.method import GROUP_REDUCE
from keras_embcomp.layers.hashed.method import HASHED
from keras_embcomp.layers.low_rank.method import LOW_RANK
from keras_embcomp.layers.method import Method
from keras_embcomp.layers.product_quantized.method import PRODUCT_QUANTIZED
from keras_embcomp.layers.tensor_train.method import TENSOR_TRAIN
from keras_embcomp.layers.trellis.method import TRELLIS

METHODS: tuple[Method, ...] = (
    TRELLIS,
    PRODUCT_QUANTIZED,
    LOW_RANK,
    GROUP_REDUCE,
    DISTILLED,
    TENSOR_TRAIN,
    HASHED,
)


def method_named(name: str) -> Method:
    """Returns the method of a name.

    Raises:
        KeyError: if there is none.
    """
    return {method.name: method for method in METHODS}[name]
