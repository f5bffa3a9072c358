"""Products of many small matrices."""

from collections.abc import Callable

from keras import ops

from keras_embcomp._types import Tensor
from keras_embcomp.numerics.execution import Execution

# XLA stores the products if there are more than this for each of `n`.
_FUSED = 2**14


def batched_product(
    execution: Execution, left: Tensor, right: Tensor
) -> Tensor:
    """Returns the products of `(n, a, r)` and `(n, r, b)`: `(n, a, b)`.

    In TensorFlow, XLA for CPUs is slow at the small products of the gradients.
    There the gradients are sums, which XLA fuses. Elsewhere sums are slower.
    """
    few = left.shape[1] * left.shape[2] * right.shape[2] <= _FUSED
    if few and execution.in_xla and _only_cpus():
        return _product_with_sums_for_gradients(left, right)
    return ops.matmul(left, right)


def _product_with_sums_for_gradients(left: Tensor, right: Tensor) -> Tensor:
    @ops.custom_gradient
    def product(
        left: Tensor, right: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        def gradients(upstream: Tensor) -> tuple[Tensor, Tensor]:
            upstream = upstream[:, :, None, :]
            return (
                ops.sum(upstream * right[:, None, :, :], axis=3),
                ops.sum(upstream * left[:, :, :, None], axis=1),
            )

        return ops.matmul(left, right), gradients

    return product(left, right)


def _only_cpus() -> bool:
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")
