"""Output layers beside the dense one: logits, the best ten, log-probabilities.

Medians of forward passes that take turns, in milliseconds, and how many times
faster than the dense layer of TensorFlow, in brackets. PyTorch's adaptive
softmax is the peer.

    pip install torch
    python benchmarks/softmax.py
    python benchmarks/softmax.py --units 200000 --width 2048 --tokens 20 \\
        --ratio 8 --layers HashedSoftmax
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from keras_embcomp import (
    DistilledSoftmax,
    GroupReduceSoftmax,
    HashedSoftmax,
    LowRankSoftmax,
    ProductQuantizedSoftmax,
    TTSoftmax,
)
from keras_embcomp.budgets import (
    group_ranks_by_frequency,
    growing_groups,
    low_rank_from_fraction,
)

PARTS, BEST = 8, 10


def zipf(units):
    return 1 / np.arange(1, units + 1)


def low_rank(units, width, ratio):
    rank = low_rank_from_fraction(units, width, 1 / ratio)
    return LowRankSoftmax(units, rank, activation=None)


def group_reduce(units, width, ratio, permuted=False):
    sizes = growing_groups(units, 5)
    ranks = group_ranks_by_frequency(
        sizes, width, int(units * width / ratio), zipf(units)
    )
    return GroupReduceSoftmax(
        units, sizes, ranks, permuted=permuted, activation=None
    )


def hashed(units, width, ratio):
    size = int(units * PARTS / ratio)
    return HashedSoftmax(units, size, num_parts=PARTS, activation=None)


def distilled(units, width, ratio):
    rank = low_rank_from_fraction(units, width, 1 / ratio)
    return DistilledSoftmax(units, rank, activation=None)


def product_quantized(units, width, ratio):
    parts = min(int(4 * width / ratio), width)  # a byte each
    return ProductQuantizedSoftmax(
        units, parts, width // parts, activation=None
    )


LAYERS = {
    "GroupReduceSoftmax": group_reduce,
    "GroupReduceSoftmax, permuted": lambda *a: group_reduce(*a, permuted=True),
    "LowRankSoftmax": low_rank,
    "HashedSoftmax": hashed,
    "DistilledSoftmax": distilled,
    "ProductQuantizedSoftmax": product_quantized,
    "TTSoftmax": lambda units, *_: TTSoftmax(units, activation=None),
}


class Dense(keras.layers.Dense):
    """The baseline, with what our layers offer written as users write it."""

    def top_k(self, hidden, k):
        return tf.math.top_k(self(hidden), k)

    def log_prob(self, hidden, ids):
        scores = tf.nn.log_softmax(self(hidden))
        return tf.gather(scores, ids, axis=1, batch_dims=1)


def functions_of(layer, ids, xla):
    """Returns what is timed of a layer, each a function of hidden states."""
    return {
        task: tf.function(function, jit_compile=xla)
        for task, function in (
            ("logits", layer),
            ("top_k", lambda hidden: layer.top_k(hidden, BEST)),
            ("log_prob", lambda hidden: layer.log_prob(hidden, ids)),
        )
    }


def adaptive(units, width, hidden, ids):
    """Returns PyTorch's adaptive softmax, and what is timed of it."""
    import torch

    torch.set_num_threads(2)
    cutoffs = [units // 50, units // 5]
    layer = torch.nn.AdaptiveLogSoftmaxWithLoss(width, units, cutoffs)
    states, targets = torch.from_numpy(hidden), torch.from_numpy(ids).long()

    def timed(function):
        def call(_):
            with torch.no_grad():
                return function()

        return call

    return sum(weight.numel() for weight in layer.parameters()), {
        "logits": timed(lambda: layer.log_prob(states)),
        "top_k": timed(lambda: layer.log_prob(states).topk(BEST)),
        "log_prob": timed(lambda: layer(states, targets).output),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--ratio", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=LAYERS)
    options = parser.parse_args()
    units, width = options.units, options.width
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(options.tokens, width)).astype("float32")
    ids = generator.choice(
        units, options.tokens, p=zipf(units) / zipf(units).sum()
    )
    layers = {"Dense": Dense(units)}
    for name in options.layers:
        layers[name] = LAYERS[name](units, width, options.ratio)
    timed, parameters = {}, {}
    for name, layer in layers.items():
        layer.build((None, width))
        parameters[name] = layer.count_params()
        for xla in (False, True):
            timed[name, xla] = functions_of(layer, tf.constant(ids), xla)
    name = "PyTorch AdaptiveLogSoftmaxWithLoss"
    parameters[name], timed[name, False] = adaptive(units, width, hidden, ids)
    states = tf.constant(hidden)
    times = {
        (key, task): []
        for key, functions in timed.items()
        for task in functions
    }
    for turn in range(2 + options.repeats):
        for key, task in times:
            start = time.perf_counter()
            timed[key][task](states)
            if turn > 1:
                times[key, task].append(1e3 * (time.perf_counter() - start))
    print("| layer | parameters | XLA | logits | top 10 | log-probability |")
    print("|---|---|---|---|---|---|")
    for key in timed:
        cells = []
        for task in ("logits", "top_k", "log_prob"):
            own = np.median(times[key, task])
            dense = np.median(times[("Dense", key[1]), task])
            cells.append(f"{own:.1f} ({dense / own:.1f})")
        name, xla = key[0], "yes" if key[1] else "no"
        cells = " | ".join(cells)
        print(f"| {name} | {parameters[name]:,} | {xla} | {cells} |")


if __name__ == "__main__":
    main()
