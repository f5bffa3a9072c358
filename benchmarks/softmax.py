"""Output layers beside the dense one: logits, the best ten, log-probabilities.

Times are medians in milliseconds of forward passes, which take turns. In
brackets is how many times faster a layer is than TensorFlow's dense layer.
PyTorch's adaptive softmax is the peer.

    pip install torch
    python benchmarks/softmax.py
    python benchmarks/softmax.py --units 200000 --width 2048 --tokens 20 \\
        --ratio 8 --layers HashedSoftmax
"""

import argparse
import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from methods import chosen, variants, zipf
from timing import medians_ms

from keras_embcomp.text_tables import markdown

BEST = 10
TASKS = ("logits", "top_k", "log_prob")
PEER = "PyTorch AdaptiveLogSoftmaxWithLoss"


class Dense(keras.layers.Dense):
    """The dense baseline, with the extra methods of our layers."""

    def top_k(self, hidden, k):
        return tf.math.top_k(self(hidden), k)

    def log_prob(self, hidden, ids):
        scores = tf.nn.log_softmax(self(hidden))
        return tf.gather(scores, ids, axis=1, batch_dims=1)


def functions_of(layer, ids, xla):
    """Returns the functions of hidden states that are timed, by task."""
    return {
        task: tf.function(function, jit_compile=xla)
        for task, function in (
            ("logits", layer),
            ("top_k", lambda hidden: layer.top_k(hidden, BEST)),
            ("log_prob", lambda hidden: layer.log_prob(hidden, ids)),
        )
    }


def adaptive(units, width, hidden, ids):
    """Returns the parameters of PyTorch's adaptive softmax, and functions."""
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


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--ratio", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--layers", nargs="+", help="default: all of them")
    return parser.parse_args()


def measured(layers, width, hidden, ids, repeats):
    """Returns parameters by name, and times by name, XLA and task."""
    functions, parameters = {}, {}
    for name, layer in layers.items():
        layer.build((None, width))
        parameters[name] = layer.count_params()
        for xla in (False, True):
            functions[name, xla] = functions_of(layer, tf.constant(ids), xla)
    units = layers["Dense"].units
    parameters[PEER], functions[PEER, False] = adaptive(
        units, width, hidden, ids
    )
    states = tf.constant(hidden)
    calls = {
        (*key, task): functools.partial(own[task], states)
        for key, own in functions.items()
        for task in TASKS
    }
    return parameters, medians_ms(calls, repeats)


def main():
    options = parse_options()
    units, width = options.units, options.width
    found = {
        variant.softmax_name: variant
        for variant in variants("softmax", units, width, options.ratio)
    }
    layers = {"Dense": Dense(units)}
    for name, variant in chosen(found, options.layers).items():
        layers[name] = variant.softmax(units)
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(options.tokens, width)).astype("float32")
    ids = generator.choice(
        units, options.tokens, p=zipf(units) / zipf(units).sum()
    )
    parameters, times = measured(layers, width, hidden, ids, options.repeats)
    lines = [
        ["layer", "parameters", "XLA", "logits", "top 10", "log-probability"]
    ]
    for name, xla in dict.fromkeys(key[:2] for key in times):
        cells = [f"{parameters[name]:,}", "yes" if xla else "no"]
        for task in TASKS:
            own, dense = times[name, xla, task], times["Dense", xla, task]
            cells.append(f"{own:.1f} ({dense / own:.1f})")
        lines.append([name, *cells])
    print(markdown(lines, left=1))


if __name__ == "__main__":
    main()
