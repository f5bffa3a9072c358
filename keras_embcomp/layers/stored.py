"""Factors that a constructor's argument stores in integers."""

from typing import Any

import numpy as np
from keras import ops

from keras_embcomp.checks import one_of
from keras_embcomp.layers.base import Compressed

_STORED = ("float32", "int8")


class StoredFactors(Compressed):
    """A table whose factors are floats that train, or integers of a file."""

    def _set_factors_dtype(self, factors_dtype: str) -> None:
        one_of("factors_dtype", factors_dtype, _STORED)
        self.factors_dtype = factors_dtype

    def _add_integers(
        self, name: str, shape: tuple[int, ...], dtype: str = "int8"
    ) -> Any:
        """Adds integers that wait for those of a file or of a fit."""
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=_signs,
            trainable=False,
            autocast=False,
        )

    def get_config(self):
        return {**super().get_config(), "factors_dtype": self.factors_dtype}


def _signs(shape, dtype):
    numbers = np.arange(np.prod(shape)).reshape(shape) % 3 - 1
    return ops.convert_to_tensor(numbers.astype(dtype))
