"""Lookups, heads and training steps on the device of this machine.

Needs Keras, one backend, NumPy and this package. Run it once per backend:

    KERAS_BACKEND=jax python benchmarks/accelerator.py
    KERAS_BACKEND=torch python benchmarks/accelerator.py

Each row is measured in a process of its own and printed when it is done:
median milliseconds, and in brackets the ratio to the dense layer. Memory is the
peak of the device, or of the process if the device is the CPU.
"""

import argparse
import json
import platform
import subprocess
import sys

import accelerator_layers as layers
import keras
import numpy as np
from memory import peak_bytes
from papers.dense import DenseGradientEmbedding
from timing import median_ms

BACKEND = keras.backend.backend()
SIDES = {"embeddings": "lookup", "heads": "logits"}


def torch_cuda():
    """Returns `torch.cuda` if PyTorch has a GPU, else `None`."""
    import torch

    return torch.cuda if torch.cuda.is_available() else None


def device():
    """Returns the name of the device, and the versions of the software."""
    if BACKEND == "jax":
        import jax as module

        name = module.devices()[0].device_kind
    elif BACKEND == "torch":
        import torch as module

        name = torch_cuda().get_device_name() if torch_cuda() else "cpu"
    else:
        import tensorflow as module

        name = module.config.list_logical_devices()[-1].device_type
    return (
        f"{name}, {BACKEND} {module.__version__}, Keras {keras.__version__}, "
        f"Python {platform.python_version()}"
    )


def peak_megabytes():
    if BACKEND == "jax":
        import jax

        statistics = jax.devices()[0].memory_stats()
        if statistics:
            return statistics["peak_bytes_in_use"] / 1e6
    elif BACKEND == "torch" and torch_cuda():
        return torch_cuda().max_memory_allocated() / 1e6
    return peak_bytes() / 1e6


def forward_of(layer, inputs):
    """Returns a function that runs a layer once and waits for its device."""
    inputs = keras.ops.convert_to_tensor(inputs)
    if BACKEND == "jax":
        import jax

        # Weights are arguments; constants would be part of the program.
        weights = [v.value for v in layer.trainable_variables]
        others = [v.value for v in layer.non_trainable_variables]
        call = jax.jit(lambda w, o, x: layer.stateless_call(w, o, x)[0])
        return lambda: call(weights, others, inputs).block_until_ready()
    if BACKEND == "torch":
        import torch

        def call():
            with torch.no_grad():
                layer(inputs)
            if torch_cuda():
                torch_cuda().synchronize()

        return call
    import tensorflow as tf

    compiled = tf.function(layer, jit_compile=True)

    def call():
        compiled(inputs)
        tf.test.experimental.sync_devices()

    return call


def embedding(name, vocabulary, width):
    if name == layers.DENSE:
        # Its gradient is dense, as on JAX and PyTorch.
        return DenseGradientEmbedding(vocabulary, width)
    return layers.embedding(name, vocabulary, width)


def measured(side, name, options):
    """Returns the measurements of one row."""
    generator = np.random.default_rng(0)
    shape = (options.batch, options.length)
    vocabulary, width = options.vocabulary, options.width
    if side == "embeddings":
        layer = embedding(name, vocabulary, width)
        model = layers.classifier(layer, options.length)
        x = generator.integers(0, vocabulary, shape).astype("int32")
        y = generator.integers(0, layers.LABELS, options.batch)
    else:
        layer = layers.softmax(name, options.units, width)
        model = layers.language_head(layer, options.length, width)
        x = generator.normal(size=(*shape, width)).astype("float32")
        y = generator.integers(0, options.units, shape)
    y = y.astype("int32")
    return {
        "parameters": layer.count_params(),
        "forward": median_ms(forward_of(layer, x), options.repeats),
        "step": median_ms(lambda: model.train_on_batch(x, y), options.repeats),
        "megabytes": peak_megabytes(),
    }


def rows(side, options):
    """Yields the lines of a table. Each layer runs in its own process."""
    rows = (
        f"vocabulary {options.vocabulary:,}"
        if side == "embeddings"
        else f"{options.units:,} units"
    )
    yield (
        f"\n{side}: {rows}, width {options.width}, "
        f"{options.batch} x {options.length} tokens\n"
    )
    yield (
        f"| layer | parameters | {SIDES[side]} ms | `train_on_batch` ms | "
        "peak MB |"
    )
    yield "|---|---|---|---|---|"
    dense = None
    sizes = options.vocabulary, options.width
    names = options.layers or (layers.DENSE, *layers.layers(*sizes))
    for name in names:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--row", side, name],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        row = json.loads(done.stdout.splitlines()[-1])
        dense = dense or row
        times = (
            f"{row[key]:.2f} ({row[key] / dense[key]:.2f})"
            for key in ("forward", "step")
        )
        yield (
            f"| {name} | {row['parameters']:,} | {' | '.join(times)} | "
            f"{row['megabytes']:,.0f} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocabulary", type=int, default=1_000_000)
    parser.add_argument("--units", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--layers", nargs="+", help="default: all of them")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measured(*options.row, options)))
        return
    print(device(), flush=True)
    for side in options.sides:
        for line in rows(side, options):
            print(line, flush=True)


if __name__ == "__main__":
    main()
