"""Names for what annotations say of arrays and tensors."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
# What `np.asarray` takes.
ArrayLike: TypeAlias = Any
# A tensor of the backend in use, or a variable of Keras.
Tensor: TypeAlias = Any
# A tensor, or a quantized matrix that stands for one.
Factor: TypeAlias = Any
