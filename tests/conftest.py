"""What every test shares: seeds, and a compiler for the backend in use."""

import collections
import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _same_seed():
    # To collect garbage before each test would take half of their time.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def compiled():
    """Returns a function that compiles a function of arrays with XLA.

    On PyTorch it changes nothing: there is no XLA, and Keras runs eagerly.
    """
    if keras.backend.backend() == "torch":
        return lambda function: function
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit
    import tensorflow as tf

    return lambda function: tf.function(function, jit_compile=True)


def pytest_collection_finish():
    gc.freeze()  # what is imported by now: it stays


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    if keras.backend.backend() != "tensorflow":
        skip = pytest.mark.skip(reason="needs the TensorFlow backend")
        for item in items:
            if "tensorflow_only" in item.keywords:
                item.add_marker(skip)


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "tensorflow_only: exports, and what uses them"
    )
    config.addinivalue_line(
        "markers", "long: half a minute, so it starts first: none ends alone"
    )


def pytest_terminal_summary(terminalreporter):
    """Prints the files that took longest: what to look at if a run is slow."""
    seconds = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                seconds[report.nodeid.split("::")[0]] += report.duration
    if sum(seconds.values()) > 60:
        terminalreporter.section("seconds by file")
        for name, total in seconds.most_common(25):
            terminalreporter.line(f"{total:7.0f}  {name}")
