"""What the compiler of TPUs and our scan must refuse; prints it as JSON.

PYTHONPATH=benchmarks python tests/support/tpu_controls.py
"""

import json

import accelerator_compile  # first: it sets what JAX reads when it is imported

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding


def outcome(function, *shapes):
    """Returns what is found in a program, or the error of the compiler."""
    sharding = SingleDeviceSharding(accelerator_compile.chips_of("v5e", 4)[0])
    arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    jitted = jax.jit(function, in_shardings=sharding, out_shardings=sharding)
    try:
        text = jitted.lower(*arguments).compile().as_text()
    except jax.errors.JaxRuntimeError as error:
        return str(error)
    return accelerator_compile.found_in(text)


def main():
    vector = ((8,), "float32")
    found = {
        "nothing": outcome(jnp.sin, vector),
        "too large": outcome(
            jax.grad(lambda table, ids: table[ids].sum()),
            ((5_000_000, 1_024), "float32"),
            ((64,), "int32"),
        ),
        "callback": outcome(lambda x: jax.pure_callback(np.sin, x, x), vector),
    }
    jax.config.update("jax_enable_x64", True)
    square = ((128, 128), "float64")
    found["float64"] = outcome(lambda x: x @ x, square)
    found["int64"] = outcome(lambda ids: ids // 3, ((4_096,), "int64"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
