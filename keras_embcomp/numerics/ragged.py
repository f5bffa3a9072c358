"""Ragged and sparse tensors: what layers of Keras take beside dense ones."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_embcomp._types import Tensor


def on_flat_values(function: Callable[[Tensor], Tensor], inputs: Any) -> Any:
    """Returns a function of a tensor, of the values alone where it is ragged.

    Args:
        function: From a tensor to one that may differ in the last dimensions.
        inputs: Tensor, array, `tf.RaggedTensor` or jagged tensor of PyTorch.

    Returns:
        What the function returns, ragged in the same way as the inputs.
    """
    if is_ragged(inputs):
        return inputs.with_flat_values(function(inputs.flat_values))
    if is_jagged(inputs):
        import torch

        return torch.nested.nested_tensor_from_jagged(
            function(inputs.values()), inputs.offsets(), inputs.lengths()
        )
    return function(inputs)


def densified(inputs: Any) -> Any:
    """Returns a sparse tensor as a dense one, and others as they are.

    Entries that a sparse tensor does not have are 0.
    """
    if is_sparse(inputs):
        return ops.convert_to_tensor(inputs, sparse=False)
    return inputs


def is_ragged(inputs: Any) -> bool:
    """Returns whether inputs are a `tf.RaggedTensor`."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(inputs, tf.RaggedTensor)


def is_jagged(inputs: Any) -> bool:
    """Returns whether inputs are a nested tensor of PyTorch in one buffer."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return (
        isinstance(inputs, torch.Tensor)
        and inputs.is_nested
        and inputs.layout == torch.jagged
    )


def is_sparse(inputs: Any) -> bool:
    """Returns whether inputs are a sparse tensor that Keras knows."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return isinstance(inputs, tf.SparseTensor)
    if backend == "jax":
        from jax.experimental.sparse import JAXSparse

        return isinstance(inputs, JAXSparse)
    return False
