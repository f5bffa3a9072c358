"""Compiles TensorFlow functions for a TPU that this machine does not have.

TensorFlow gives the HLO of a function. JAX hands it to the compiler for TPUs,
through private modules of JAX: its version is the one in the extra `tpu-test`.
"""

import re

import numpy as np
import tensorflow as tf
from jax._src.interpreters import mlir
from jax._src.lib import _jax, xla_client
from jax._src.lib.mlir import ir

_COPY = re.compile(r"mhlo\.copy (%\w+) : (tensor<[^>]*>)")


def compiled(function, arguments, device):
    """Returns the text and the memory of a function's program for one chip."""
    traced = tf.function(function, jit_compile=True)
    hlo = traced.experimental_get_compiler_ir(*arguments)("hlo_serialized")
    text = _jax.mlir.xla_computation_to_mlir_module(
        xla_client.XlaComputation(hlo)
    )
    # TensorFlow asks for copies, an operation that this path lacks.
    text = _COPY.sub(r"stablehlo.bitcast_convert \1 : (\2) -> \2", text)
    options = xla_client.CompileOptions()
    options.executable_build_options.device_assignment = (
        xla_client.DeviceAssignment.create(np.array([[device.id]]))
    )
    with mlir.make_ir_context():
        program = device.client.compile(
            ir.Module.parse(text), xla_client.DeviceList((device,)), options
        )
    (module,) = program.hlo_modules()
    return module.to_string(), program.get_compiled_memory_stats()
