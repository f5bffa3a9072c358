"""Trains in two processes of two virtual devices each.

python tests/support/two_processes.py 0 PORT folder &
python tests/support/two_processes.py 1 PORT folder  # each writes losses
"""

import json
import os
import sys
from pathlib import Path

os.environ["VIRTUAL_DEVICES"] = "2"

import on_devices
from jax.experimental.multihost_utils import process_allgather
from keras import distribution as kd

from keras_embcomp import TableParallel

PROCESSES, BATCH = 2, 16


def part_of(data, process):
    """Returns the part of each batch that a process feeds."""
    return tuple(
        x.reshape(-1, PROCESSES, BATCH // PROCESSES, *x.shape[1:])[
            :, process
        ].reshape(-1, *x.shape[1:])
        for x in data
    )


def main(process, port, folder):
    kd.initialize(f"127.0.0.1:{port}", PROCESSES, process)
    part = part_of(on_devices.some_data(), process)
    found = {}
    for pair in on_devices.PAIRS[:2]:
        data = kd.DataParallel(auto_shard_dataset=False)
        # Each process has all of the tables, each device half of them.
        tables = TableParallel(on_devices.mesh(2, 2), auto_shard_dataset=False)
        expected = on_devices.losses_of(on_devices.model_of(pair))
        for distribution in (data, tables):
            model = on_devices.model_of(pair, distribution)
            losses = on_devices.losses_of(model, part, BATCH // PROCESSES)
            found.setdefault(str(pair[0]), [expected]).append(losses)
    model.save(folder / f"{process}.keras")
    # Each device has a quarter, so no process has all of them.
    across = TableParallel(on_devices.mesh(1, 4), auto_shard_dataset=False)
    model = on_devices.model_of(pair, across)
    found["across"] = [expected, on_devices.losses_of(model)]
    gathered = [process_allgather(w.value, tiled=True) for w in model.weights]
    model = on_devices.model_of(pair)
    model.set_weights(gathered)
    model.save_weights(folder / f"{process}-across.weights.h5")
    (folder / f"{process}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
