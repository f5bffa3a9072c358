"""What the papers' experiments share: options, and rows saved one by one."""

import argparse
import json
from pathlib import Path

import tensorflow as tf


def parse_options(description, name, seeds, rows=(), **numbers):
    """Returns the options of a table.

    Args:
        description: What `--help` says.
        name: Of the file with the results.
        seeds: Default of `--seeds`.
        rows: Names that `--rows` chooses from; all by default.
        numbers: Defaults of options that take several numbers, by name.
    """
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
        rows = list(rows)
        parser.add_argument("--rows", nargs="+", choices=rows, default=rows)
    for option, values in numbers.items():
        parser.add_argument(
            f"--{option}", type=type(values[0]), nargs="+", default=values
        )
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


def missing(results, names, seeds):
    """Yields the names and seeds that have no row yet, seed by seed."""
    done = {(row["name"], row["seed"]) for row in read(results)}
    for seed in seeds:
        for name in names:
            if (name, seed) not in done:
                yield name, seed


def add(results, row):
    """Saves a row, and prints it."""
    with open(results, "a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)
