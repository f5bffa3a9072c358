"""A loop over slices of tensors, as each backend compiles it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

from keras_embcomp._types import Tensor

# Takes what a loop carries and the slices of a step; returns what the loop
# carries on, and the outputs of the step.
Step: TypeAlias = Callable[..., tuple[list[Tensor], Sequence[Tensor]]]


class Output(NamedTuple):
    """What each step of a loop puts out.

    Attributes:
        shape: Its shape.
        dtype: Its dtype.
    """

    shape: tuple[int, ...]
    dtype: str


def scan(
    step: Step,
    carry: list[Tensor],
    tensors: Sequence[Tensor],
    outputs: Sequence[Output] = (),
) -> tuple[list[Tensor], Sequence[Tensor]]:
    """Calls `step(carry, *slices)` for the slices of tensors in turn.

    Args:
        step: Returns the next carry, and the outputs.
        carry: List of tensors.
        tensors: Tensors of equal length.
        outputs: What each step puts out.

    Returns:
        The last carry, and the stacks of the outputs.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.lax.scan(lambda c, x: step(c, *x), carry, tensors)
    if backend == "tensorflow":
        return _scan_in_tensorflow(step, carry, tensors, outputs)
    found = []
    for slices in zip(*tensors, strict=True):
        carry, own = step(carry, *slices)
        found.append(own)
    return carry, [ops.stack(one) for one in zip(*found, strict=True)]


def _scan_in_tensorflow(
    step: Step,
    carry: list[Tensor],
    tensors: Sequence[Tensor],
    outputs: Sequence[Output],
) -> tuple[list[Tensor], Sequence[Tensor]]:
    import tensorflow as tf

    count = tensors[0].shape[0]
    arrays = [
        tf.TensorArray(output.dtype, size=count, element_shape=output.shape)
        for output in outputs
    ]

    def body(
        number: Tensor, carry: list[Tensor], arrays: list[Any]
    ) -> tuple[Tensor, list[Tensor], list[Any]]:
        carry, found = step(carry, *(tensor[number] for tensor in tensors))
        arrays = [
            array.write(number, one)
            for array, one in zip(arrays, found, strict=True)
        ]
        return number + 1, carry, arrays

    _, carry, arrays = tf.while_loop(
        lambda number, *_: number < count,
        body,
        (tf.constant(0), list(carry), arrays),
        parallel_iterations=1,  # so that one block is in memory
    )
    return carry, [array.stack() for array in arrays]
