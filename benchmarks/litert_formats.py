"""Files of every layer in every format: bytes, error and time of a call.

    python benchmarks/litert_formats.py --output litert_formats.jsonl

A table of 20,000 rows of 128 normal numbers, on the input side (64 ids) and on
the output side (one hidden state). The dense layer is the first of each side.
The error is that of the outputs against float32; compressed layers have random
factors, so that it is what the format loses, not the method.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import keras_embcomp

VOCABULARY, WIDTH, TOKENS = 20_000, 128, 64
FORMATS = ("float32", "float16", "int8", "int4")
GROUPS = {"group_sizes": (2_000, 18_000), "group_ranks": (64, 16)}
METHODS = {
    "LowRank": {"rank": 32},
    "TT": {"tt_ranks": 16},
    "Hashed": {"num_subvectors": 10_000},
    "GroupReduce": GROUPS,
    "Distilled": {"rank": 32},
    "ProductQuantized": {
        "num_parts": 16,
        "part_width": 8,
        "factors_dtype": "float32",
    },
}


def models():
    """Yields names, and models of one layer."""
    ids = keras.Input((TOKENS,), dtype="int32", name="ids")
    dense = keras.layers.Embedding(VOCABULARY, WIDTH)
    yield "Embedding", keras.Model(ids, dense(ids))
    for method, structure in METHODS.items():
        cls = getattr(keras_embcomp, f"{method}Embedding")
        layer = cls(VOCABULARY, WIDTH, **structure)
        yield cls.__name__, keras.Model(ids, layer(ids))
    hidden = keras.Input((WIDTH,), name="hidden")
    dense = keras.layers.Dense(VOCABULARY)
    yield "Dense", keras.Model(hidden, dense(hidden))
    for method, structure in METHODS.items():
        cls = getattr(keras_embcomp, f"{method}Softmax")
        layer = cls(VOCABULARY, activation=None, **structure)
        yield cls.__name__, keras.Model(hidden, layer(hidden))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    keras.utils.set_random_seed(0)
    print("| layer | format | bytes | error | ms |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models():
            for table_format in FORMATS:
                path = Path(folder) / "model.tflite"
                written = keras_embcomp.export_litert(
                    model, path, table_format, batch=1
                )
                row = {
                    "layer": name,
                    "format": table_format,
                    "bytes": written.bytes,
                    "error": written.error,
                    "milliseconds": written.latency_ms,
                }
                print(
                    f"| {name} | {table_format} | {written.bytes:,} | "
                    f"{written.error:.1e} | {written.latency_ms:.3f} |",
                    flush=True,
                )
                if output is not None:
                    with output.open("a") as lines:
                        lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
