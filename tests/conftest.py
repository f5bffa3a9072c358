"""What every test shares: seeds, and a compiler for the backend in use."""

import collections
import fnmatch
import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest

from keras_embcomp import _compat


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


# What older versions of Keras lack, and the tests that need it: patterns of
# "file::test[parameters] fixtures". Nothing is skipped in the newest.
LACKING = (
    (
        hasattr(keras.layers, "ReversibleEmbedding"),
        "needs Keras 3.12, which has `ReversibleEmbedding`",
        (
            "test_embedding_contract.py::test_refuses_layers_that_it_cannot*",
            "test_frequent_head.py::*ReversibleEmbedding*",
            "test_compress.py::* model *",
            "test_compress.py::* planned *",
        ),
    ),
    (
        hasattr(keras.quantizers, "Int8QuantizationConfig"),
        "needs Keras 3.13, which has configs of quantization",
        (
            "test_quantization.py::test_keras_quantizes_the_layers_that_match*",
            "test_quantization.py::test_what_keras_does_not_know_is_asked*",
        ),
    ),
)
# Until Keras 3.12, a functional model that was loaded says so of each call.
OLDER_WARNINGS = ("ignore:(?s).*structure of .inputs. doesn't match",)


def skip_what_keras_lacks(items):
    for has_it, reason, patterns in LACKING:
        if has_it:
            continue
        for item in items:
            name = f"{item.path.name}::{item.name}"
            name = f"{name} {' '.join(item.fixturenames)} "
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    skip_what_keras_lacks(items)
    if keras.backend.backend() != "tensorflow":
        skip = pytest.mark.skip(reason="needs the TensorFlow backend")
        for item in items:
            if "tensorflow_only" in item.keywords:
                item.add_marker(skip)


def pytest_configure(config):
    if "int4" not in _compat.KERAS_MODES:
        for line in OLDER_WARNINGS:
            config.addinivalue_line("filterwarnings", line)
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
