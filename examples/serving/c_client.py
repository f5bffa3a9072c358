"""Compiles and calls `predict.c`."""

import json
import subprocess
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

_SOURCE = Path(__file__).with_name("predict.c")


def compile_client(folder):
    """Returns the path of the program, linked with TensorFlow's wheel."""
    program = Path(folder) / "predict"
    libraries = Path(tf.__file__).parent
    subprocess.run(
        [
            *("gcc", "-O2", "-Wall", "-Werror", str(_SOURCE)),
            *("-o", str(program), f"-I{libraries}/include"),
            *(f"-L{libraries}", f"-Wl,-rpath,{libraries}"),
            "-l:libtensorflow_cc.so.2",
            "-l:libtensorflow_framework.so.2",
        ],
        check=True,
        capture_output=True,
    )
    return program


def run_client(program, folder, inputs, signature="serving_default", seconds=0):
    """Returns the only output of a signature of one input, and the times.

    Raises:
        RuntimeError: with TensorFlow's message, if the program fails.
    """
    content = (Path(folder) / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    (entry,) = graph.signature_def[signature].inputs.values()
    (result,) = graph.signature_def[signature].outputs.values()
    dtype = tf.dtypes.as_dtype(entry.dtype).as_numpy_dtype
    command = [program, folder, entry.name, result.name, seconds, *inputs.shape]
    done = subprocess.run(
        [str(argument) for argument in command],
        input=inputs.astype(dtype).tobytes(),
        capture_output=True,
        env={"TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    said = done.stderr.decode()
    if done.returncode:
        raise RuntimeError(said)
    dtype = tf.dtypes.as_dtype(result.dtype).as_numpy_dtype
    return np.frombuffer(done.stdout, dtype), json.loads(said.splitlines()[-1])
