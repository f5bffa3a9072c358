"""Lookups and logits of product codes, in TensorFlow and LiteRT.

Sizes are the ones chosen for MiniLM's table at a ratio of 14. Times are medians
of one run, in microseconds, with the ratio to the dense layer of the same
runtime.

    python benchmarks/product_codes.py
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from timing import medians_ms

from keras_embcomp import (
    ProductQuantizedEmbedding,
    ProductQuantizedSoftmax,
    export_litert,
)
from keras_embcomp.text_tables import markdown

VOCABULARY, WIDTH, PARTS, PART_WIDTH, KEPT = 30_522, 384, 100, 4, 1_000
COUNTS, TOKENS, REPEATS = (1, 64, 4_096), (1, 64), 30
LAYERS = {
    "float32 factors": {"factors_dtype": "float32"},
    "int8 factors": {"factors_dtype": "int8"},
    "int8 factors, 1,000 rows kept": {
        "factors_dtype": "int8",
        "num_kept": KEPT,
    },
}


def embeddings():
    """Returns the layers from ids to rows."""
    sizes = VOCABULARY, WIDTH
    return {"dense": keras.layers.Embedding(*sizes)} | {
        name: ProductQuantizedEmbedding(*sizes, PARTS, PART_WIDTH, **arguments)
        for name, arguments in LAYERS.items()
    }


def heads():
    """Returns the layers from hidden states to logits."""
    return {"dense": keras.layers.Dense(VOCABULARY)} | {
        name: ProductQuantizedSoftmax(
            VOCABULARY, PARTS, PART_WIDTH, activation=None, **arguments
        )
        for name, arguments in LAYERS.items()
    }


def calls_of(layer, inputs, folder):
    """Returns a call of each runtime."""
    entry = keras.Input(batch_shape=inputs.shape, dtype=inputs.dtype.name)
    model = keras.Model(entry, layer(entry))
    function = tf.function(layer, jit_compile=True)
    tensor = tf.constant(inputs)
    path = Path(folder) / f"{layer.name}.tflite"
    export_litert(model, path)
    interpreter = Interpreter(model_path=str(path), num_threads=2)
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]

    def lite():
        interpreter.set_tensor(place, inputs)
        interpreter.invoke()

    return {
        "TensorFlow": lambda: function(tensor),
        "LiteRT": lite,
    }


def table(title, layers, make_inputs, counts):
    """Prints a table: a line per layer and runtime, a column per count."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            calls = {}
            for name, layer in layers().items():
                found = calls_of(layer, make_inputs(count), folder)
                calls |= {(name, runtime): f for runtime, f in found.items()}
            for key, found in medians_ms(calls, REPEATS).items():
                times.setdefault(key, []).append(1e3 * found)
            keras.utils.clear_session()
    lines = [[title, "runtime", *(f"{count:,}" for count in counts)]]
    for runtime in ("TensorFlow", "LiteRT"):
        for (name, own), found in times.items():
            if own != runtime:
                continue
            cells = (
                f"{x:,.0f} ({x / base:.1f})"
                for x, base in zip(found, times["dense", runtime], strict=True)
            )
            lines.append([name, runtime, *cells])
    print(f"\n{markdown(lines, left=2)}")


def main():
    generator = np.random.default_rng(0)
    table(
        "lookup of ids",
        embeddings,
        lambda n: generator.integers(0, VOCABULARY, n).astype("int32"),
        COUNTS,
    )
    table(
        "logits of tokens",
        heads,
        lambda n: generator.normal(size=(n, WIDTH)).astype("float32"),
        TOKENS,
    )


if __name__ == "__main__":
    main()
