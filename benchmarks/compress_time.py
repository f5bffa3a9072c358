"""Seconds to plan and to compress, for tables of two sizes.

Rows are Gaussian with falling variances, mixed by a rotation.

    python benchmarks/compress_time.py
"""

import time

import keras
import numpy as np

from keras_embcomp import compress, plan_compression

SIZES = ((400_000, 50), (100_000, 256))
RATIOS = (8, 32)


def model_of(vocabulary, width):
    """Returns a model of one embedding."""
    generator = np.random.default_rng(0)
    table = generator.normal(size=(vocabulary, width)).astype("float32")
    rotation = np.linalg.qr(generator.normal(size=(width, width)))[0]
    table = table / np.sqrt(np.arange(1, width + 1)) @ rotation
    layer = keras.layers.Embedding(vocabulary, width, name="words")
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer])
    layer.set_weights([table])
    return model


def main():
    print("| table | ratio | method | plan | compress | error |")
    print("|---|---:|---|---:|---:|---:|")
    for vocabulary, width in SIZES:
        model = model_of(vocabulary, width)
        for ratio in RATIOS:
            start = time.time()
            plan = plan_compression(model, ratio=ratio)
            planned = time.time() - start
            small = compress(model, plan)
            seconds = time.time() - start - planned
            table = model.layers[0].get_weights()[0]
            lost = small.layers[0].to_dense() - table
            error = np.linalg.norm(lost) / np.linalg.norm(table)
            print(
                f"| {vocabulary:,} x {width} | {ratio} | "
                f"{plan.tables[0].method} | {planned:.0f} s | {seconds:.0f} s "
                f"| {error:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
