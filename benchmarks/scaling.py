"""A training step on paper, beside what XLA counts of compiled programs.

    python benchmarks/scaling.py sizes
    python benchmarks/scaling.py devices

- Operations of the matrix products of a layer, forward and backward, for
  `TOKENS` tokens. XLA also counts what is not a matrix product.
- Bytes that a step of Adam reads and writes: 28 for each trained number. It
  reads weight, gradient and two moments, and writes all but the gradient.
- Bytes of the gradients that chips sum up when each has a part of the batch.

Programs are compiled for this machine's CPU; the second table is for virtual
devices. Nothing is trained.
"""

import argparse
import itertools
import math
import os
import re

os.environ.update(
    JAX_PLATFORMS="cpu",
    KERAS_BACKEND="jax",
    XLA_FLAGS="--xla_force_host_platform_device_count=8",
)

import accelerator_layers as layers
import jax
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_embcomp.layers.methods import METHODS
from keras_embcomp.numerics.group_reduce.groups import stored_dense
from keras_embcomp.numerics.tensor_train.contraction import (
    grouped,
    merged_shape,
    merged_shapes,
    plan_logits,
    plan_rows,
)

SIZES = ((5_000, 64), (20_000, 128), (80_000, 256))
TOKENS, SIDES = 1_024, ("Embedding", "Softmax")
LEFT_OUT = ("GroupReduce, permuted", "product codes, kept")
NAMES = [
    name
    for name in (layers.DENSE, *layers.layers(*SIZES[0]))
    if name not in LEFT_OUT
]
# The gradient of each side of a product costs as much as the product.
BOTH = 3


def low_rank(layer, vocabulary, width, tokens, side):
    rows = tokens * (width if side == "Embedding" else width + vocabulary)
    return BOTH * 2 * layer.rank * rows


def tensor_train(layer, vocabulary, width, tokens, side):
    shapes = tuple(tuple(core.shape) for core in layer.cores)
    plan = (plan_rows if side == "Embedding" else plan_logits)(shapes, tokens)
    merges = sum(
        2 * math.prod(merged_shape(group[:size])) * group[size - 1][1]
        for group in grouped(shapes, plan)
        for size in range(2, len(group) + 1)
    )
    merged = merged_shapes(shapes, plan)
    if side == "Embedding":
        chain, columns = [], merged[0][2]
        for _, rank, mode, next_rank in merged[1:]:
            chain.append(2 * columns * rank * mode * next_rank)
            columns *= mode
        # All but the last product are computed again for the gradients.
        each = BOTH * sum(chain) + sum(chain[:-1])
        return BOTH * merges + tokens * each
    each, rows, columns = 0, 1, width
    for mode, rank, column_mode, next_rank in reversed(merged):
        columns //= column_mode
        each += 2 * columns * rank * mode * rows * column_mode * next_rank
        rows *= mode
    return BOTH * (merges + tokens * each)


def hashed(layer, vocabulary, width, tokens, side):
    if side == "Embedding":
        return 0
    if tokens > width:
        return BOTH * 2 * tokens * vocabulary * width
    part = width // layer.num_parts
    return BOTH * 2 * tokens * layer.num_subvectors * part


def group_reduce(layer, vocabulary, width, tokens, side):
    total = 0
    for size, rank in zip(layer.group_sizes, layer.group_ranks, strict=True):
        dense = stored_dense(size, rank, width)
        if side == "Softmax":
            total += size * width if dense else rank * (size + width)
        elif not dense:
            total += rank * width
    return BOTH * 2 * tokens * total


def decoded(layer, vocabulary, width, tokens, side):
    """Counts low rank, and the features that a hidden layer adds."""
    if not layer.hidden_dim:
        return low_rank(layer, vocabulary, width, tokens, side)
    features = 2 * layer.rank * layer.hidden_dim
    both = 2 * (layer.rank + layer.hidden_dim)
    if side == "Embedding":
        return BOTH * tokens * (features + both * width)
    # Features of the vocabulary are computed again for their gradients.
    logits = tokens * both * (vocabulary + width)
    return BOTH * logits + (BOTH + 1) * vocabulary * features


def product_codes(layer, vocabulary, width, tokens, side):
    directions = layer.num_parts * layer.part_width
    turned = 2 * tokens * directions * width
    if side == "Embedding":
        return BOTH * turned
    # Words are decoded and multiplied; the products are not computed again.
    return BOTH * (turned + 2 * tokens * vocabulary * directions)


def own_count(layer, vocabulary, width, tokens, side):
    """Takes the operations that the method itself counts, forward."""
    method = next(
        method
        for method in METHODS
        if type(layer) in (method.embedding, method.softmax)
    )
    config = layer.get_config()
    shape = vocabulary, width
    return BOTH * tokens * method.operations(config, shape, side == "Softmax")


def dense(layer, vocabulary, width, tokens, side):
    products = 2 * tokens * vocabulary * width
    return 0 if side == "Embedding" else BOTH * products


OPERATIONS = {
    layers.DENSE: dense,
    "low rank": low_rank,
    "tensor train": tensor_train,
    "hashed": hashed,
    "GroupReduce": group_reduce,
    "distilled": decoded,
    "distilled, hidden": decoded,
    "product codes": product_codes,
}


def layer_of(side, name, vocabulary, width):
    keras.utils.clear_session()
    make = layers.embedding if side == "Embedding" else layers.softmax
    layer = make(name, vocabulary, width)
    layer.build((None, width))
    return layer


def inputs_of(side, vocabulary, width):
    """Returns the shapes of inputs, and of the gradients of outputs."""
    struct = jax.ShapeDtypeStruct
    hidden = struct((TOKENS, width), "float32")
    if side == "Embedding":
        return struct((TOKENS,), "int32"), hidden
    return hidden, struct((TOKENS, vocabulary), "float32")


def numbers_of(layer):
    """Returns how many numbers of a layer are trained."""
    return sum(math.prod(v.shape) for v in layer.trainable_variables)


def summed_numbers(layer, side):
    """Returns how many numbers of gradients chips sum up.

    A tensor train sums up the gradients of its merged cores.
    """
    numbers = numbers_of(layer)
    if not hasattr(layer, "cores"):
        return numbers
    shapes = tuple(tuple(core.shape) for core in layer.cores)
    plan = (plan_rows if side == "Embedding" else plan_logits)(shapes, TOKENS)
    for shape in shapes:
        numbers -= math.prod(shape)
    return numbers + sum(map(math.prod, merged_shapes(shapes, plan)))


def update_bytes(layer):
    """Returns the bytes that XLA's step of Adam reads and writes."""
    optimizer = keras.optimizers.Adam()
    optimizer.build(layer.trainable_variables)
    weights = [v.value for v in layer.trainable_variables]
    state = [v.value for v in optimizer.variables]
    update = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
    program = update.lower(state, weights, weights).compile()
    return program.cost_analysis()["bytes accessed"]


def step_of(layer, inputs, upstream, **shardings):
    """Returns the compiled forward and backward pass of a layer."""

    def loss(weights, inputs, others, upstream):
        outputs, _ = layer.stateless_call(weights, others, inputs)
        return (outputs * upstream).sum()

    weights, others = (
        [variable.value for variable in variables]
        for variables in (
            layer.trainable_variables,
            layer.non_trainable_variables,
        )
    )
    # Hidden states have gradients, ids have none.
    to = (0,) if inputs.dtype == "int32" else (0, 1)
    step = jax.jit(jax.value_and_grad(loss, to), **shardings)
    return step.lower(weights, inputs, others, upstream).compile()


def reduced_bytes(layer, inputs, upstream, devices):
    """Returns the bytes that chips sum up in a data-parallel step."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
    whole = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    found = (whole,) if inputs.dtype == "int32" else (whole, rows)
    text = step_of(
        layer,
        inputs,
        upstream,
        in_shardings=(whole, rows, whole, rows),
        out_shardings=(whole, found),
    ).as_text()
    numbers = 0
    for results in re.findall(r"= (.*?) all-reduce(?:-start)?\(", text):
        for sizes in re.findall(r"f32\[([\d,]*)\]", results):
            numbers += math.prod(map(int, filter(None, sizes.split(","))))
    return 4 * numbers


def line(*cells):
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def compared(paper, found, unit):
    ratio = f"{found / paper:.2f}" if paper else ""
    return f"{paper / unit:.3f}", f"{found / unit:.3f}", ratio


def table_of_sizes():
    line(
        "layer",
        "V x D",
        "trained numbers",
        *("GFLOP", "XLA", "XLA / paper"),
        *("MB of Adam", "XLA", "XLA / paper"),
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for side, name, size in itertools.product(SIDES, NAMES, SIZES):
        layer, arguments = layer_of(side, name, *size), inputs_of(side, *size)
        program = step_of(layer, *arguments)
        paper = OPERATIONS.get(name, own_count)(layer, *size, TOKENS, side)
        flops = program.cost_analysis()["flops"]
        numbers = numbers_of(layer)
        line(
            f"{name}, {side}",
            f"{size[0]:,} x {size[1]}",
            f"{numbers:,}",
            *compared(paper, flops, 1e9),
            *compared(28 * numbers, update_bytes(layer), 1e6),
        )


def table_of_devices():
    line("layer", "V x D", "chips", "MB added up", "XLA", "XLA / paper")
    print("|---|---|---|---|---|---|")
    size = SIZES[1]
    for side, name, chips in itertools.product(SIDES, NAMES, (2, 8)):
        layer, arguments = layer_of(side, name, *size), inputs_of(side, *size)
        line(
            f"{name}, {side}",
            f"{size[0]:,} x {size[1]}",
            chips,
            *compared(
                4 * summed_numbers(layer, side),
                reduced_bytes(layer, *arguments, chips),
                1e6,
            ),
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", choices=("sizes", "devices"))
    if parser.parse_args().table == "sizes":
        table_of_sizes()
    else:
        table_of_devices()


if __name__ == "__main__":
    main()
