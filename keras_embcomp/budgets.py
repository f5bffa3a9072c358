"""From a budget of parameters or bytes to the sizes of each method.

Layers take ranks and sizes, never ratios. These functions turn a ratio into
them.
"""

from keras_embcomp.numerics.distilled import distilled_rank
from keras_embcomp.numerics.group_reduce.budgets import (
    equal_groups,
    group_ranks_by_error,
    group_ranks_by_frequency,
    group_reduce_parameters,
    growing_groups,
)
from keras_embcomp.numerics.hashed.budgets import hashed_sizes
from keras_embcomp.numerics.low_rank import (
    low_rank_from_fraction,
    low_rank_from_parameters,
)
from keras_embcomp.numerics.product_quantized.budgets import code_sizes
from keras_embcomp.numerics.tensor_train.shapes import tensor_train_rank
from keras_embcomp.numerics.trellis.budgets import trellis_sizes

__all__ = [
    "code_sizes",
    "distilled_rank",
    "equal_groups",
    "group_ranks_by_error",
    "group_ranks_by_frequency",
    "group_reduce_parameters",
    "growing_groups",
    "hashed_sizes",
    "low_rank_from_fraction",
    "low_rank_from_parameters",
    "tensor_train_rank",
    "trellis_sizes",
]
