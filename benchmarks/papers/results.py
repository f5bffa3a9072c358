"""What the papers' experiments share: options, and rows saved one by one."""

import argparse
import json
from pathlib import Path

import tensorflow as tf


def parse_options(description, name, seeds, **rows):
    """Returns the options of a table; `rows` are arguments for `--rows`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(f"benchmarks/results/{name}.jsonl"),
    )
    if rows:
        parser.add_argument("--rows", nargs="+", **rows)
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    return options


def read(results):
    """Returns the rows that are done."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def add(results, row):
    """Saves a row, and prints it."""
    with open(results, "a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)
