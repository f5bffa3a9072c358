"""The output layer of shared sub-vectors beside the dense one.

V=200,000, H=2,048 and 20 tokens, as Li et al. 2018 time it, at an eighth of the
dense layer's parameters. Medians of forward passes; the layers take turns.

    python benchmarks/hashed_softmax.py
"""

import time

import keras
import numpy as np
import tensorflow as tf

from keras_embcomp import HashedSoftmax

UNITS, WIDTH, TOKENS, PARTS, REPEATS = 200_000, 2_048, 20, 8, 15


def main():
    layers = {
        "Dense": keras.layers.Dense(UNITS),
        "HashedSoftmax": HashedSoftmax(
            UNITS, UNITS * PARTS // 8, num_parts=PARTS, activation=None
        ),
    }
    hidden = np.random.default_rng(0).normal(size=(TOKENS, WIDTH))
    hidden = tf.constant(hidden.astype("float32"))
    print("| layer | parameters | ms | ms with XLA |")
    print("|---|---|---|---|")
    functions = {}
    for name, layer in layers.items():
        layer.build((None, WIDTH))
        for xla in (False, True):
            functions[name, xla] = tf.function(layer, jit_compile=xla)
            functions[name, xla](hidden)
    times = {key: [] for key in functions}
    for _ in range(REPEATS):
        for key, function in functions.items():
            start = time.perf_counter()
            function(hidden)
            times[key].append(1e3 * (time.perf_counter() - start))
    for name, layer in layers.items():
        cells = []
        for xla in (False, True):
            own = np.median(times[name, xla])
            ratio = np.median(times["Dense", xla]) / own
            cells.append(f"{own:.0f} ({ratio:.1f} times faster)")
        print(f"| {name} | {layer.count_params():,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
