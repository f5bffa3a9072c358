"""Compiles the train step of `model.fit` for chips that are not present.

The step is `model.train_step` of Keras on JAX: forward, loss, backward, Adam,
metrics and the seeds of dropout. The compiler for TPUs comes with PyPI's
`libtpu`. The compiler for an H100 is JAX's plugin, in JAX's version, and needs
the ptxas of a CUDA toolkit:

    pip install -e ".[tpu-test]"
    python benchmarks/accelerator_compile.py
    pip install --no-deps jax-cuda13-plugin==0.10.2 jax-cuda13-pjrt==0.10.2
    python benchmarks/accelerator_compile.py --targets h100 --chips one

With `KERAS_BACKEND=tensorflow` it compiles TensorFlow's step for one TPU: pass
`--chips one`. Nothing is executed on a chip. Each program's row is printed when
it is compiled.
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import time

# Read by JAX and libtpu when they are imported.
os.environ.update(
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    JAX_PLATFORMS="cpu",
    TPU_ACCELERATOR_TYPE="v5litepod-4",
    TPU_LOG_DIR="disabled",
    TPU_SKIP_MDS_QUERY="1",
    TPU_WORKER_HOSTNAMES="localhost",
    XLA_FLAGS="--xla_force_host_platform_device_count=8"
    " --xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false",
)

os.environ.setdefault("KERAS_BACKEND", "jax")

import accelerator_layers as layers
import jax
import keras
import numpy as np
from jax.experimental import topologies
from jax.sharding import (
    Mesh,
    NamedSharding,
    PartitionSpec,
    SingleDeviceSharding,
)

from keras_embcomp import TableParallel

BATCH, LENGTH = 16, 16
SIDES = ("Embedding", "Softmax")
TARGETS, CHIPS = ("v5e", "v6e"), ("one", "all", "sharded")
H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 13 }
dnn_version_info { major: 9 minor: 12 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  clock_rate_ghz: 1.98
  l2_cache_size: 52428800
  memory_bandwidth: 3352320000000
  device_memory_size: 84929347584
}
"""
DTYPES = ("float32", "mixed_bfloat16")
SHARDED = ("tensor train", "GroupReduce")
TENSORFLOW = keras.backend.backend() == "tensorflow"
# What a chip lacks or is slow at, and what leaves the chip within a step.
FORBIDDEN = {
    "f64": r"\bf64\[",
    # TensorFlow counts the steps and the seeds of dropout in 64 bits.
    "s64": r"\bs64\[(?!2?\])" if TENSORFLOW else r"\bs64\[",
    "host call": r"host_compute|_callback|is_host_transfer=true"
    r"|\b(?:infeed|outfeed)\(",
}


def found_in(text):
    """Returns the names in `FORBIDDEN` that a compiled program has."""
    return [what for what, sign in FORBIDDEN.items() if re.search(sign, text)]


def chips_of(target, count):
    """Returns the 4 or 8 chips of a slice, or one H100, as absent devices."""
    if target == "h100":
        found = topologies.get_topology_desc(
            platform="cuda", target_config=H100, topology="1x1x1"
        )
        return np.array(found.devices)
    shape = {4: "2x2", 8: "2x4"}[count]
    return np.array(
        topologies.get_topology_desc(
            platform="tpu", topology_name=f"{target}:{shape}"
        ).devices
    )


def model_and_batch(side, name, vocabulary, width):
    """Returns a model with all of its variables, and its batch."""
    if side == "Embedding":
        layer = layers.embedding(name, vocabulary, width)
        model = layers.classifier(layer, LENGTH)
        x, y = np.zeros((BATCH, LENGTH), "int32"), np.zeros(BATCH, "int32")
    else:
        layer = layers.softmax(name, vocabulary, width)
        model = layers.language_head(layer, LENGTH, width)
        x = np.zeros((BATCH, LENGTH, width), "float32")
        y = np.zeros((BATCH, LENGTH), "int32")
    # Makes the optimizer and the metrics, as `fit` does, and takes no step:
    # that would compile it for this machine too.
    model._symbolic_build(data_batch=(x[:8], y[:8]))
    return model, (x, y)


def shapes(tree):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def state_of(model):
    """Returns what a train step takes and returns, in Keras' groups."""
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return tuple([variable.value for variable in group] for group in groups)


def layout():
    """Returns the distribution that splits factors over 4 of 2 x 4 devices."""
    mesh = keras.distribution.DeviceMesh(
        (2, 4), ("batch", "model"), keras.distribution.list_devices()
    )
    return TableParallel(mesh)


def shardings_of(state, target, chips):
    """Returns the shardings of the state, of the batch and of the logs."""
    if chips == "one":
        one = SingleDeviceSharding(chips_of(target, 4)[0])
        return one, one, one
    if chips == "all":
        mesh = Mesh(chips_of(target, 4), ("batch",))
    else:
        mesh = Mesh(chips_of(target, 8).reshape(2, 4), ("batch", "model"))

    def on_chips(value):
        # The layout on the chips is the layout on this machine's devices.
        spec = getattr(value.sharding, "spec", PartitionSpec())
        return NamedSharding(mesh, spec)

    return (
        jax.tree.map(on_chips, state),
        NamedSharding(mesh, PartitionSpec("batch")),
        NamedSharding(mesh, PartitionSpec()),
    )


def tensorflow_programs(side, name, sizes, target):
    """Returns text and memory of the step and of predictions, for one chip."""
    import tensorflow as tf
    from tensorflow_compile import compiled

    model, batch = model_and_batch(side, name, *sizes)
    batch, (chip, *_) = tuple(map(tf.constant, batch)), chips_of(target, 4)
    return [
        compiled(lambda *batch: model.train_step(batch), batch, chip),
        compiled(model.predict_step, batch[:1], chip),
    ]


def programs(side, name, sizes, target, chips):
    """Returns text and memory of the step; of predictions too, on one chip."""
    if TENSORFLOW:
        return tensorflow_programs(side, name, sizes, target)
    distribution = contextlib.nullcontext()
    if chips == "sharded":
        distribution = layout().scope()
    with distribution:
        model, batch = model_and_batch(side, name, *sizes)
        state = state_of(model)
        own, rows, logs = shardings_of(state, target, chips)
        inputs = shapes((state, batch))
        step = jax.jit(
            model.train_step,
            in_shardings=(own, rows),
            out_shardings=(logs, own),
            donate_argnums=0,  # as Keras does
        )
        compiled = [step.lower(*inputs).compile()]
        if chips == "one":
            predict = jax.jit(model.predict_step, in_shardings=(own, rows))
            inputs = shapes((state[:2], batch[:1]))
            compiled.append(predict.lower(*inputs).compile())
    return [(each.as_text(), each.memory_analysis()) for each in compiled]


def row(side, name, sizes, target, chips, dtype):
    """Compiles for a target and returns the results by column."""
    keras.utils.clear_session()
    keras.config.set_dtype_policy(dtype)
    start = time.process_time()
    compiled = programs(side, name, sizes, target, chips)
    seconds = time.process_time() - start
    texts = [text for text, _ in compiled]
    _, memory = compiled[0]
    return {
        "layer": f"{name}, {side}",
        "target": target,
        "chips": chips,
        "dtype": dtype,
        "CPU seconds": round(seconds, 1),
        "state MB": round(memory.argument_size_in_bytes / 1e6, 2),
        "temporary MB": round(memory.temp_size_in_bytes / 1e6, 2),
        "all-reduces": len(re.findall(r" all-reduce(?:-start)?\(", texts[0])),
        "found": found_in("\n".join(texts)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--layers", nargs="+")
    parser.add_argument(
        "--targets", nargs="+", choices=(*TARGETS, "h100"), default=TARGETS
    )
    parser.add_argument("--chips", nargs="+", choices=CHIPS, default=CHIPS)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--vocabulary", type=int, default=5_003)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--json", action="store_true", help="JSON lines")
    options = parser.parse_args()
    if TENSORFLOW and (
        "h100" in options.targets or set(options.chips) != {"one"}
    ):
        parser.error(
            "`--chips` must be `one`, and `--targets` TPUs, on the TensorFlow "
            f"backend. Received: --chips {' '.join(options.chips)} --targets "
            f"{' '.join(options.targets)}"
        )
    if "h100" in options.targets and set(options.chips) != {"one"}:
        parser.error(
            "`--chips` must be `one` with `--targets h100`: the compiler is "
            f"given one GPU. Received: --chips {' '.join(options.chips)}"
        )
    sizes = options.vocabulary, options.width
    names = (layers.DENSE, *layers.layers(*sizes))
    header = False
    for combination in itertools.product(
        options.targets,
        options.dtypes,
        options.chips,
        options.sides,
        options.layers or names,
    ):
        target, dtype, chips, side, name = combination
        if chips == "sharded" and name not in SHARDED:
            continue
        found = row(side, name, sizes, target, chips, dtype)
        if options.json:
            print(json.dumps(found), flush=True)
            continue
        found["found"] = ", ".join(found["found"]) or "nothing"
        if not header:
            print(f"| {' | '.join(found)} |\n|{'---|' * len(found)}")
            header = True
        print(f"| {' | '.join(map(str, found.values()))} |", flush=True)


if __name__ == "__main__":
    main()
