"""A training step with the loss of logits, and with `compressed_crossentropy`.

Each row runs in a process of its own: its peak of memory beyond what the
process had before the model was built (VmHWM), and the median time of a step.
A dense layer with logits that would not fit is estimated from its tensors.

    python benchmarks/crossentropy.py --units 100000 --output small.md
    python benchmarks/crossentropy.py --units 800000 --output large.md
    KERAS_BACKEND=jax python benchmarks/crossentropy.py --units 100000
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROWS = ("dense, logits", "GroupReduce, logits", "GroupReduce, blocks")
COLUMNS = "| head | parameters | peak, MiB | step, s | loss |"


def status(name):
    """Returns a number of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(name + ":"))
    return int(line.split()[1]) / 1024


def dense_mebibytes(options):
    """Returns what a dense head takes with Adam, at the least.

    Kernel and bias four times, as weights, gradients and two moments; logits
    twice, as they are and as their gradients.
    """
    weights = options.units * (options.width + 1)
    logits = options.units * options.tokens
    return 4 * (4 * weights + 2 * logits) / 2**20


def model_of(row, options):
    import keras
    import numpy as np

    from keras_embcomp import CrossentropyHead, GroupReduceSoftmax
    from keras_embcomp.budgets import (
        group_ranks_by_frequency,
        growing_groups,
    )

    units, width = options.units, options.width
    states = keras.Input((width,))
    if row.startswith("dense"):
        head = keras.layers.Dense(units)
    else:
        sizes = growing_groups(units, 5)
        zipf = 1 / np.arange(1, units + 1)
        most = int(units * width / options.ratio)
        ranks = group_ranks_by_frequency(sizes, width, most, zipf)
        head = GroupReduceSoftmax(units, sizes, ranks, activation=None)
    # What the head is given has a gradient, as in any model.
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
    start, times = status("VmRSS"), []
    model, head = model_of(row, options)
    for _ in range(2 + options.repeats):
        begin = time.perf_counter()
        loss = model.train_on_batch(states, labels.astype("int32"))
        times.append(time.perf_counter() - begin)
    peak = status("VmHWM") - start
    seconds = np.median(times[2:])
    print(
        f"| {row} | {head.count_params():,} | {peak:,.0f} | {seconds:.2f} "
        f"| {loss:.3f} |"
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
