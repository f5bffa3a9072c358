"""Lookups and training steps of tensor trains, beside dense and a peer.

Each row runs in a process of its own, one after the other, and prints medians.
Gradients are with respect to all cores, or the whole dense table. The peer, the
block-TT of tensorly-torch, needs

    pip install torch tensorly tensorly-torch opt_einsum packaging

and is left out if it is missing.

    python benchmarks/lookup.py > build/lookup.md
"""

import argparse
import importlib.util
import json
import subprocess
import sys

import numpy as np
from memory import peak_bytes
from timing import median_ms

VOCABULARY, WIDTH, SHAPE = 100_000, 128, ((40, 50, 50), (4, 4, 8))
COUNTS, DISTRIBUTIONS = (16_384, 64), ("uniform", "Zipf")
TRAINED = {"vocabulary": 500_000, "width": 64, "ids": (1_024, 10)}
PEER = "tensorly-torch block-TT"
MERGED = "TTEmbedding, merged(16 MB)"
DENSE = "keras.layers.Embedding"
LOOKUPS = {
    DENSE: [None],
    "TTEmbedding": [16, 32],
    "TTEmbedding, no XLA": [16, 32],
    MERGED: [16, 32],
    PEER: [16, 32],
}
STEPS = {
    f"{DENSE}, dense gradient": None,
    DENSE: None,
    "TTEmbedding": 16,
    "LowRankEmbedding": 8,
}


def some_ids(distribution, count):
    generator = np.random.default_rng(0)
    if distribution == "uniform":
        return generator.integers(0, VOCABULARY, count).astype("int32")
    ids = generator.zipf(1.2, 4 * count) - 1
    return ids[ids < VOCABULARY][:count].astype("int32")


def keras_functions(name, rank):
    """Returns a lookup and a lookup with gradients, as compiled functions."""
    import keras
    import tensorflow as tf

    from keras_embcomp import TTEmbedding

    if rank is None:
        layer = keras.layers.Embedding(VOCABULARY, WIDTH)
    else:
        layer = TTEmbedding(VOCABULARY, WIDTH, tt_ranks=rank, tt_shape=SHAPE)
    layer.build()
    if name == MERGED:
        layer = layer.merged(16_000_000)
    jit_compile = "no XLA" not in name

    def gradients(ids, upstream):
        with tf.GradientTape() as tape:
            rows = layer(ids)
        weights = [variable.value for variable in layer.trainable_variables]
        found = tape.gradient(rows, weights, output_gradients=upstream)
        return [tf.convert_to_tensor(gradient) for gradient in found]

    return (
        tf.function(layer, jit_compile=jit_compile),
        tf.function(gradients, jit_compile=jit_compile),
        tf.constant,
    )


def peer_functions(rank):
    import tltorch
    import torch

    layer = tltorch.FactorizedEmbedding(
        VOCABULARY,
        WIDTH,
        auto_tensorize=False,
        tensorized_num_embeddings=SHAPE[0],
        tensorized_embedding_dim=SHAPE[1],
        factorization="blocktt",
        rank=rank,
    )

    def lookup(ids):
        with torch.no_grad():
            return layer(ids)

    def gradients(ids, upstream):
        layer.zero_grad()
        layer(ids).backward(upstream)

    return lookup, gradients, torch.from_numpy


def time_lookups(name, rank):
    """Yields `{key: milliseconds}` for a row of the first table."""
    if name == PEER:
        lookup, gradients, to_tensor = peer_functions(rank)
    else:
        lookup, gradients, to_tensor = keras_functions(name, rank)
    for count in COUNTS:
        upstream = np.random.default_rng(1).normal(size=(count, WIDTH))
        upstream = to_tensor(upstream.astype("float32"))
        repeats = 15 if count > 1_000 else 100
        for distribution in DISTRIBUTIONS:
            ids = to_tensor(some_ids(distribution, count))
            yield {
                "ids": f"{count:,} {distribution}",
                "forward": median_ms(lambda i=ids: lookup(i), repeats),
                "both": median_ms(
                    lambda i=ids, u=upstream: gradients(i, u), repeats
                ),
            }


def time_step(name, rank):
    """Yields milliseconds and peak megabytes of a training step."""
    import keras
    import tensorflow as tf
    from papers.dense import DenseGradientEmbedding

    from keras_embcomp import LowRankEmbedding, TTEmbedding

    tf.zeros(1)
    before = peak_bytes()
    sizes = TRAINED["vocabulary"], TRAINED["width"]
    if name == "TTEmbedding":
        layer = TTEmbedding(*sizes, tt_ranks=rank)
    elif name == "LowRankEmbedding":
        layer = LowRankEmbedding(*sizes, rank=rank)
    elif name == DENSE:
        layer = keras.layers.Embedding(*sizes)
    else:
        layer = DenseGradientEmbedding(*sizes)
    entry = keras.Input(TRAINED["ids"][1:], dtype="int32")
    pooled = keras.layers.GlobalAveragePooling1D()(layer(entry))
    model = keras.Model(entry, keras.layers.Dense(1)(pooled))
    model.compile(keras.optimizers.Adam(), "mse")
    generator = np.random.default_rng(0)
    x = generator.integers(0, sizes[0], TRAINED["ids"]).astype("int32")
    y = generator.normal(size=len(x)).astype("float32")
    yield {
        "parameters": layer.count_params(),
        "step": median_ms(lambda: model.train_on_batch(x, y), 15),
        "megabytes": (peak_bytes() - before) / 2**20,
    }


def measured(kind, name, rank):
    """Returns the measurements of a row, which runs in its own process."""
    found = subprocess.run(
        [sys.executable, __file__, "--row", json.dumps([kind, name, rank])],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return [json.loads(line) for line in found.stdout.splitlines()]


def lookup_table():
    yield (
        f"Vocabulary {VOCABULARY:,}, width {WIDTH}, shape {SHAPE}; "
        "milliseconds (ratio to the first row).\n"
    )
    yield "| rank | ids | layer | forward | forward and backward |"
    yield "|---|---|---|---|---|"
    dense = {}
    for name, ranks in LOOKUPS.items():
        if name == PEER and not importlib.util.find_spec("tltorch"):
            continue
        for rank in ranks:
            for row in measured("lookup", name, rank):
                base = dense.setdefault(row["ids"], row)
                forward, both = (
                    f"{row[key]:.2f} ({row[key] / base[key]:.1f})"
                    for key in ("forward", "both")
                )
                yield (
                    f"| {rank or ''} | {row['ids']} | {name} | {forward} | "
                    f"{both} |"
                )


def step_table():
    yield (
        f"\n`train_on_batch` with Adam: vocabulary {TRAINED['vocabulary']:,}, "
        f"width {TRAINED['width']}, {np.prod(TRAINED['ids']):,} ids.\n"
    )
    yield "| layer | rank | parameters | ms (ratio) | peak MB |"
    yield "|---|---|---|---|---|"
    dense = None
    for name, rank in STEPS.items():
        (row,) = measured("step", name, rank)
        dense = dense or row["step"]
        yield (
            f"| {name} | {rank or ''} | {row['parameters']:,} | "
            f"{row['step']:.1f} ({row['step'] / dense:.2f}) | "
            f"{row['megabytes']:.0f} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        kind, name, rank = json.loads(options.row)
        rows = {"lookup": time_lookups, "step": time_step}[kind](name, rank)
        for row in rows:
            print(json.dumps(row), flush=True)
        return
    for table in (lookup_table(), step_table()):
        for line in table:
            print(line, flush=True)


if __name__ == "__main__":
    main()
