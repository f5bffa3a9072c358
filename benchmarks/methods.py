"""One table of methods for all benchmarks, and the sizes of their layers.

`variants` yields every method of the library. `SIZES` has the sizes that
published numbers depend on. A method that has no sizes there for a benchmark
gets the sizes that it chooses itself for an eighth of the table.

Imports nothing beyond Keras, NumPy and this package.
"""

from typing import NamedTuple

import numpy as np

from keras_embcomp.budgets import (
    group_ranks_by_frequency,
    growing_groups,
    low_rank_from_fraction,
)
from keras_embcomp.layers.method import Method
from keras_embcomp.layers.methods import METHODS

TITLES = {
    "low_rank": "low rank",
    "tensor_train": "tensor train",
    "hashed": "hashed",
    "group_reduce": "GroupReduce",
    "distilled": "distilled",
    "product_codes": "product codes",
    "trellis_codes": "trellis codes",
}


class Variant(NamedTuple):
    """A method at a size.

    Attributes:
        method: The method.
        arguments: Its structural arguments.
        note: What tells two variants of a method apart, or nothing.
    """

    method: Method
    arguments: dict
    note: str = ""

    @property
    def title(self):
        return self._noted(title(self.method))

    @property
    def embedding_name(self):
        return self._noted(self.method.embedding.__name__)

    @property
    def softmax_name(self):
        return self._noted(self.method.softmax.__name__)

    def _noted(self, name):
        return f"{name}, {self.note}" if self.note else name

    def embedding(self, rows, width, **kwargs):
        return self.method.embedding(rows, width, **self.arguments, **kwargs)

    def softmax(self, rows, **kwargs):
        """Returns an output layer that gives logits."""
        kwargs = {"activation": None, **kwargs}
        return self.method.softmax(rows, **self.arguments, **kwargs)


def title(method):
    """Returns what tables call a method."""
    return TITLES.get(method.name, method.name.replace("_", " "))


def zipf(rows):
    """Returns the frequencies of Zipf's law."""
    return 1 / np.arange(1, rows + 1)


def zipf_groups(rows, width, ratio):
    """Returns five groups of words that follow Zipf's law, for GroupReduce."""
    sizes = growing_groups(rows, 5)
    ranks = group_ranks_by_frequency(
        sizes, width, int(rows * width / ratio), zipf(rows)
    )
    return {"group_sizes": sizes, "group_ranks": ranks}


def _three_groups(rows, width, ratio):
    """Returns groups of a hundredth, of a tenth, and of the other words."""
    first = (rows // 100, rows // 10)
    sizes = (*first, rows - sum(first))
    ranks = (width // 2, width // 4, width // 16)
    return {"group_sizes": sizes, "group_ranks": tuple(map(min, sizes, ranks))}


def _rank(rows, width, ratio):
    return {"rank": low_rank_from_fraction(rows, width, 1 / ratio)}


def _codes_of_a_byte(rows, width, ratio):
    parts = min(int(4 * width / ratio), width)
    return {"num_parts": parts, "part_width": width // parts}


def _bytes_of_groups(rows, width, ratio):
    """Returns three groups of strings whose steps have a byte."""
    return {
        "group_bytes": (width // 4, width // 8, width // 16),
        "group_sizes": _three_groups(rows, width, ratio)["group_sizes"],
        "num_parts": width // 4,
        "part_width": 4,
        "step_bits": 8,
        "state_bits": 12,
    }


def _parts_of_eight(rows, width, ratio):
    return {"num_parts": width // 8, "part_width": 8, "codebook_size": 256}


# By method, from "benchmark" or "benchmark, note" to the structural arguments,
# or to a function of the rows, the width and the ratio. `None` leaves it out.
SIZES = {
    "low_rank": {
        "accelerator": lambda rows, width, ratio: {"rank": width // 16},
        "formats": {"rank": 64},
        "litert": {"rank": 32},
        "serving": {"rank": 32},
        "softmax": _rank,
    },
    "tensor_train": {
        "accelerator": {"tt_ranks": 16},
        "formats": {"tt_ranks": 64},
        "litert": {"tt_ranks": 16},
        "litert, merged": {"tt_ranks": 16},
        "serving": {"tt_ranks": 16},
        "softmax": {"tt_ranks": 16},
    },
    "hashed": {
        "accelerator": lambda rows, width, ratio: {
            "num_subvectors": rows // 4,
            "num_parts": 8,
        },
        "accelerator, private": lambda rows, width, ratio: {
            "num_subvectors": rows // 4,
            "num_parts": 8,
            "num_private": rows // 100,
        },
        "formats": lambda rows, width, ratio: {"num_subvectors": rows},
        "litert": {"num_subvectors": 25_000},
        "serving": {"num_subvectors": 50_000},
        "softmax": lambda rows, width, ratio: {
            "num_subvectors": int(rows * 8 / ratio),
            "num_parts": 8,
        },
    },
    "trellis_codes": {
        "accelerator": lambda rows, width, ratio: {
            "group_bytes": width // 4,
            "state_bits": 12,
        },
        "accelerator, groups": _bytes_of_groups,
    },
    "group_reduce": {
        "accelerator": _three_groups,
        "accelerator, permuted": lambda *sizes: {
            **_three_groups(*sizes),
            "permuted": True,
        },
        "formats": lambda rows, width, ratio: {
            "group_sizes": (3_000, rows - 3_000),
            "group_ranks": (256, 48),
        },
        "litert": {"group_sizes": (5_000, 45_000), "group_ranks": (64, 16)},
        "serving": {
            "group_sizes": (2_000, 8_000, 40_000),
            "group_ranks": (256, 64, 16),
        },
        "softmax": zipf_groups,
        "softmax, permuted": lambda *sizes: {
            **zipf_groups(*sizes),
            "permuted": True,
        },
    },
    "distilled": {
        "accelerator": lambda rows, width, ratio: {"rank": width // 16},
        "accelerator, hidden": lambda rows, width, ratio: {
            "rank": width // 16,
            "hidden_dim": width // 4,
        },
        "formats": None,  # a fit of many minutes for each number format
        "litert": {"rank": 32},
        "serving": {"rank": 32, "hidden_dim": 64},
        "softmax": _rank,
    },
    "product_codes": {
        "accelerator": _parts_of_eight,
        "accelerator, kept": lambda rows, *sizes: {
            **_parts_of_eight(rows, *sizes),
            "num_kept": rows // 1_000,
        },
        "formats": {"num_parts": 32, "part_width": 12},
        "litert": {"num_parts": 16, "part_width": 8},
        "serving": {"num_parts": 32, "part_width": 8},
        "softmax": _codes_of_a_byte,
    },
}


def own_sizes(method, rows, width, ratio):
    """Returns the arguments that a method chooses for a random table.

    The table is `ratio` times larger, and its words follow Zipf's law.
    """
    generator = np.random.default_rng(0)
    table = generator.standard_normal((rows, width), "float32")
    return method.sizes(table, table.size / ratio, zipf(rows))


def in_order(methods=METHODS):
    """Returns methods in the order of tables; those without a title last."""
    places = {name: place for place, name in enumerate(TITLES)}
    return sorted(methods, key=lambda m: places.get(m.name, len(places)))


def variants(benchmark, rows, width, ratio=8, methods=METHODS):
    """Yields the variants of every method in a benchmark.

    Args:
        benchmark: Its name in `SIZES`.
        rows: Rows of the dense table.
        width: Its width.
        ratio: How many times smaller layers are, where sizes follow a ratio.
        methods: The methods.
    """
    for method in in_order(methods):
        own = {
            key.partition(", ")[2]: sizes
            for key, sizes in SIZES.get(method.name, {}).items()
            if key.partition(", ")[0] == benchmark
        }
        if not own:
            yield Variant(method, own_sizes(method, rows, width, ratio))
        for note, sizes in own.items():
            if callable(sizes):
                sizes = sizes(rows, width, ratio)
            if sizes is not None:
                yield Variant(method, sizes, note)


def chosen(found, names):
    """Returns the entries with these names, or all if no name is given.

    Raises:
        SystemExit: if a name is unknown.
    """
    unknown = set(names or ()) - set(found)
    if unknown:
        raise SystemExit(
            f"Names must be among {list(found)}. Received: {sorted(unknown)}"
        )
    return {name: found[name] for name in names or found}
