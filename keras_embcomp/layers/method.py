"""What a method says of itself to what plans, shards and compares methods."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from keras_embcomp.layers.base import Compressed
from keras_embcomp.numerics.quantized import MODES

EFFORTS = "low", "high"  # of a fit: time against error
SIDES = "embedding", "softmax", "tied"  # of a model, that a table is for

Shape = tuple[int, int]
Arguments = dict[str, Any]


class FromScratch(NamedTuple):
    """A form of a method that is trained from scratch.

    Attributes:
        sizes: A function of a table's shape, a number of parameters, counts of
            the rows or `None`, and one of `SIDES`. It returns the structural
            arguments of the largest layer within the parameters, or of the
            smallest layer if that has more.
        known: What was measured of its quality and where to read it, by side.
        name: What tells it from other forms of the method.
    """

    sizes: Callable[[Shape, float, Any, str], Arguments]
    known: Mapping[str, str] = MappingProxyType({})
    name: str = ""


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
        takes_covariance: Whether `from_dense` takes `covariance`.
        efforts: What `sizes` also gets, by effort: each of `EFFORTS` if there
            is one, or nothing.
        from_scratch: Its forms that are trained from scratch. A method that
            has none is fitted to a trained table.
    """

    name: str
    embedding: type[Compressed]
    softmax: type[Compressed]
    sizes: Callable[..., Arguments]
    smallest: Callable[[Shape], Arguments]
    operations: Callable[[Arguments, Shape, bool], int]
    device_axes: Mapping[str, int]
    formats: tuple[str | None, ...] = (None, *MODES)
    formats_of_auto: tuple[str | None, ...] = ()
    slow_fit: bool = False
    expected_loss: Callable[..., float] | None = None
    takes_covariance: bool = True
    efforts: Mapping[str, Arguments] = MappingProxyType({})
    from_scratch: tuple[FromScratch, ...] = ()
