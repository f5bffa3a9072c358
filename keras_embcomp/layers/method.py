"""What a method says of itself to what plans, shards and compares methods."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from keras_embcomp._types import Array
from keras_embcomp.layers.base import Compressed

Shape = tuple[int, int]
Arguments = dict[str, Any]


class Method(NamedTuple):
    """A way to write a table in fewer numbers.

    Attributes:
        name: Its name in plans and on the command line.
        embedding: The class of its input side.
        softmax: The class of its output side.
        sizes: A function of a table, a number of parameters and weights of
            the rows that returns structural arguments of `from_dense`. It
            raises `ValueError` if its smallest layer has more parameters.
        smallest: A function of a table's shape that returns the structural
            arguments of the smallest layer.
        operations: A function of the structural arguments, a table's shape
            and whether it is an output layer. It returns the operations of a
            lookup, or of a token's logits.
        device_axes: Which axis of a weight is split over devices, by a regular
            expression of its name. Weights that are not named are replicated.
        formats: The number formats that a plan may choose; `None` is float32.
        formats_of_auto: Those that may win on a trained table, which
            `method="auto"` tries: see `benchmarks/frontier.py`.
        slow_fit: Whether `from_dense` takes `verbose` to show progress.
        expected_loss: A function of a table, weights of the rows and
            structural arguments that estimates the weighted squared errors,
            where a fit takes too long; `None` fits the layer.
    """

    name: str
    embedding: type[Compressed]
    softmax: type[Compressed]
    sizes: Callable[[Array, float, Array], Arguments]
    smallest: Callable[[Shape], Arguments]
    operations: Callable[[Arguments, Shape, bool], int]
    device_axes: Mapping[str, int]
    formats: tuple[str | None, ...] = (None, "int8", "int4")
    formats_of_auto: tuple[str | None, ...] = ()
    slow_fit: bool = False
    expected_loss: Callable[..., float] | None = None
