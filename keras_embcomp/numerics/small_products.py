"""Products of many small matrices."""

from keras import ops

from keras_embcomp._types import Tensor
from keras_embcomp.numerics.execution import Execution

# Beyond this many products for each of `n`, XLA stores them.
_FUSED = 2**14


def batched_product(
    execution: Execution, left: Tensor, right: Tensor
) -> Tensor:
    """Returns the products of `(n, a, r)` and `(n, r, b)`: `(n, a, b)`.

    XLA for CPUs, as TensorFlow has it, is slow at the small products of their
    gradients, and faster at sums, which it fuses. Elsewhere sums are slower.
    """
    few = left.shape[1] * left.shape[2] * right.shape[2] <= _FUSED
    if few and execution.in_xla and _only_cpus():
        return _product_with_sums_for_gradients(left, right)
    return ops.matmul(left, right)


def _product_with_sums_for_gradients(left, right):
    @ops.custom_gradient
    def product(left, right):
        def gradients(upstream):
            upstream = upstream[:, :, None, :]
            return (
                ops.sum(upstream * right[:, None, :, :], axis=3),
                ops.sum(upstream * left[:, :, :, None], axis=1),
            )

        return ops.matmul(left, right), gradients

    return product(left, right)


def _only_cpus():
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")
