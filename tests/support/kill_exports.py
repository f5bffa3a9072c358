"""Kills what writes files, at random times, and looks at what is left.

    python tests/support/kill_exports.py --trials 200

Each trial starts `keras-embcomp compress`, `export` to LiteRT, `export` to a
served model, or `model.save` inside `written_whole`, ends it by SIGKILL after a
random share of the time that it takes, and checks that

- what was there is there, byte for byte, or is whole and new;
- nothing under the name of an output is half-written;
- a run after all kills removes what they left behind.

Packages are imported once: each trial is a fork. With `--bare`, `model.save`
writes to its path as Keras does, for comparison.
"""

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_embcomp.cli import main
from keras_embcomp.files import written_whole

ROWS, WIDTH = 20_000, 64


def save_model(path):
    ids = keras.Input((3,), dtype="int32", name="ids")
    layer = keras.layers.Embedding(ROWS, WIDTH, name="words")
    model = keras.Model(ids, layer(ids))
    generator = np.random.default_rng(0)
    layer.set_weights([generator.normal(size=(ROWS, WIDTH))])
    model.save(path)


def save_again(source, path, bare):
    model = keras.saving.load_model(source)
    if bare:
        model.save(path)
        return
    with written_whole(path) as temporary:
        model.save(temporary)


def jobs_of(folder, bare):
    """Returns the functions to kill, and what each writes."""
    source = str(folder / "model.keras")
    goal = ["--ratio", "8", "--method", "low_rank", "--overwrite"]
    small, lite = folder / "small.keras", folder / "model.tflite"
    served, saved = folder / "served", folder / "saved.keras"
    return {
        "compress": (
            lambda: main(["compress", source, str(small), *goal]),
            small,
        ),
        "litert": (
            lambda: main(["export", source, str(lite), "--overwrite"]),
            lite,
        ),
        "serving": (lambda: main(["export", source, str(served)]), served),
        "save": (lambda: save_again(source, saved, bare), saved),
    }


def forked(job, seconds=None):
    """Runs a job in a process of its own, killed after some time.

    Returns:
        Whether it ended by itself, and the seconds that it took.
    """
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = 1
        try:
            code = job() or 0
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    ended = os.WIFEXITED(status)
    if ended and os.WEXITSTATUS(status) != 0:
        raise RuntimeError(f"A job failed with {os.WEXITSTATUS(status)}.")
    return ended, time.monotonic() - start


def contents(path):
    """Returns the digest of each file of an output, by name."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        str(file.relative_to(path.parent)): hashlib.sha256(
            file.read_bytes()
        ).hexdigest()
        for file in files
        if file.is_file() and not in_progress(file)
    }


def in_progress(path):
    return any(part.startswith(".writing-") for part in path.parts)


def check(name, path):
    """Raises unless an output is whole: it is loaded and called."""
    ids = np.array([[0, 5, ROWS - 1]], "int32")
    if name == "litert":
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path)).get_signature_runner()
        assert next(iter(runner(ids=ids).values())).shape == (1, 3, WIDTH)
    elif name == "serving":
        import tensorflow as tf

        for version in path.iterdir():
            if not in_progress(version):
                loaded = tf.saved_model.load(str(version))
                loaded.signatures["serving_default"](ids=tf.constant(ids))
                assert (version / "assets.extra/keras_embcomp.json").stat()
    else:
        model = keras.saving.load_model(path)
        assert model(ids).shape == (1, 3, WIDTH)


def litter_of(folder):
    return list(folder.rglob(".writing-*"))


def run(folder, trials, bare, seed=0):
    """Prints what was found; returns the number of faults."""
    found: Counter[str] = Counter()
    forked(lambda: save_model(folder / "model.keras"))
    jobs = jobs_of(folder, bare)
    seconds = {name: forked(job)[1] for name, (job, _) in jobs.items()}
    source = contents(folder / "model.keras")
    chance = random.Random(seed)
    for trial in range(trials):
        name = list(jobs)[trial % len(jobs)]
        job, output = jobs[name]
        before, litter = contents(output), set(litter_of(folder))
        ended, _ = forked(job, chance.uniform(0.02, 1.0) * seconds[name])
        after = contents(output)
        found[f"{name}: trials"] += 1
        found[f"{name}: ended before the kill"] += ended
        new = set(litter_of(folder)) - litter
        found[f"{name}: killed while it wrote"] += bool(new and not ended)
        kept = {k: after.get(k) for k in before} == before
        if name == "serving" and not kept:
            found["FAULT serving: an old version changed"] += 1
        if not kept or len(after) > len(before):
            found[f"{name}: wrote all before the kill"] += not ended
            try:
                forked(lambda n=name, p=output: check(n, p))
            except RuntimeError:
                found[f"FAULT {name}: half-written"] += 1
                forked(job)
        if trial % 20 == 19 or trial == trials - 1:
            found["leftovers before the next runs"] += len(litter_of(folder))
            forked(jobs["compress"][0])  # beside the `.keras` and `.tflite`
            forked(jobs["serving"][0])  # in the folder of versions
            found["FAULT leftovers after them"] += len(litter_of(folder))
    found["FAULT source changed"] += contents(folder / "model.keras") != source
    for text, count in sorted(found.items()):
        if count:
            print(f"{count:5d}  {text}", flush=True)
    return sum(n for text, n in found.items() if text.startswith("FAULT"))


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bare", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    options = parsed()
    with tempfile.TemporaryDirectory() as found:
        faults = run(Path(found), options.trials, options.bare, options.seed)
    print("faults:", faults)
    sys.exit(faults > 0)
