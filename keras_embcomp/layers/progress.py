"""Progress of a fit, as Keras shows that of an epoch."""

from collections.abc import Iterable, Iterator

import keras


def shown(blocks: Iterable[int]) -> Iterator[int]:
    """Yields blocks of work, and shows a bar of those that are done."""
    numbers = list(blocks)
    bar = keras.utils.Progbar(len(numbers), unit_name="block")
    for number in numbers:
        yield number
        bar.add(1)
