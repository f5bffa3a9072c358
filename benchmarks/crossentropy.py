"""A training step with the loss of logits, and with `compressed_crossentropy`.

Each row runs in a process of its own. Its memory is the peak (VmHWM) beyond
what the process had before the model was built; its time is the median of a
step. If the logits of the dense layer would not fit into memory, its row is an
estimate from the sizes of its tensors.

    python benchmarks/crossentropy.py --units 100000 --output small.md
    python benchmarks/crossentropy.py --units 800000 --output large.md
    KERAS_BACKEND=jax python benchmarks/crossentropy.py --units 100000
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from memory import status_bytes
from timing import median_ms

ROWS = ("dense, logits", "GroupReduce, logits", "GroupReduce, blocks")
COLUMNS = "| head | parameters | peak, MiB | step, s | loss |"


def dense_mebibytes(options):
    """Returns the least memory that a dense head takes with Adam.

    Kernel and bias count four times: weights, gradients and two moments. The
    logits count twice: their values and their gradients.
    """
    weights = options.units * (options.width + 1)
    logits = options.units * options.tokens
    return 4 * (4 * weights + 2 * logits) / 2**20


def model_of(row, options):
    import keras
    from methods import zipf_groups

    from keras_embcomp import CrossentropyHead, GroupReduceSoftmax

    units, width = options.units, options.width
    states = keras.Input((width,))
    if row.startswith("dense"):
        head = keras.layers.Dense(units)
    else:
        groups = zipf_groups(units, width, options.ratio)
        head = GroupReduceSoftmax(units, **groups, activation=None)
    # With this layer, the states too have a gradient, as in any model.
    hidden = keras.layers.Dense(width)(states)
    if row.endswith("logits"):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = keras.Model(states, head(hidden))
    else:
        end = CrossentropyHead(head)
        loss = end.loss
        model = keras.Model(states, end(hidden))
    model.compile("adam", loss, jit_compile=not options.no_xla)
    return model, head


def measure(row, options):
    """Prints one row of the table."""
    import keras
    import numpy as np

    generator = np.random.default_rng(0)
    states = generator.normal(size=(options.tokens, options.width))
    states = states.astype("float32")
    labels = generator.integers(0, options.units, options.tokens)
    keras.ops.matmul(np.ones((2, 2)), np.ones((2, 2)))  # starts the backend
    start, losses = status_bytes("VmRSS"), []
    model, head = model_of(row, options)

    def step():
        losses.append(model.train_on_batch(states, labels.astype("int32")))

    seconds = median_ms(step, options.repeats, warm_up=2) / 1e3
    peak = (status_bytes("VmHWM") - start) / 2**20
    print(
        f"| {row} | {head.count_params():,} | {peak:,.0f} | {seconds:.2f} "
        f"| {losses[-1]:.3f} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=2_048)
    parser.add_argument("--ratio", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-xla", action="store_true")
    parser.add_argument("--largest", type=float, default=8.0, help="in GiB")
    parser.add_argument("--output", help="a file for the rows")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if options.row:
        measure(options.row, options)
        return
    lines = [COLUMNS, "|---|---|---|---|---|"]
    print("\n".join(lines))
    for row in ROWS:
        needed = dense_mebibytes(options)
        if row.endswith("logits") and needed > 1024 * options.largest:
            line = f"| {row} | | not run | | |"
            if row.startswith("dense"):
                weights = options.units * (options.width + 1)
                line = f"| {row} | {weights:,} | {needed:,.0f} at least | | |"
        else:
            command = [sys.executable, *sys.argv, "--row", row]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            line = run.stdout.strip() or f"| {row} | | failed | | |"
        lines.append(line)
        print(line, flush=True)
        if options.output:
            Path(options.output).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
