"""Every text backbone and task of keras-hub through `compress`.

Small random instances, whose tables have a decaying spectrum. Each row is
compared with the original with `to_dense()` tables put in; a fresh process
loads all files at the end. Rows are saved as they finish; the command goes on
where it stopped.

    python benchmarks/keras_hub_models.py > build/keras_hub.md
"""

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import keras_hub
import numpy as np
from keras import ops

from keras_embcomp import compress, export_litert, export_serving, to_keras
from keras_embcomp.layers.base import weight_bytes
from keras_embcomp.models.find import dense_places
from keras_embcomp.text_tables import markdown

WORDS, LENGTH, BATCH = 2_003, 8, 2
SIZES = {
    "vocabulary_size": WORDS,
    "embedding_dim": 16,
    "hidden_dim": 32,
    "hidden_size": 32,
    "intermediate_dim": 32,
    "moe_intermediate_dim": 16,
    "shared_expert_intermediate_dim": 16,
    "shared_expert_intermediate_size": 16,
    "head_dim": 16,
    "head_size": 16,
    "key_value_dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_attention_heads": 2,
    "num_query_heads": 2,
    "num_key_value_heads": 2,
    "num_experts": 2,
    "top_k": 1,
    "max_sequence_length": 32,
    "bucket_size": 8,
    "dropout": 0.0,
    "projection_dim": 32,
    "gate_lora": 8,
    "mv_lora": 8,
    "aaa_lora": 8,
    "decay_lora": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["full_attention"],
    "encoder_hidden_dim": 32,
    "encoder_intermediate_dim": 32,
    "encoder_num_layers": 1,
    "encoder_num_attention_heads": 2,
    "encoder_num_key_value_heads": 2,
    "encoder_head_dim": 16,
    "encoder_layer_types": ["full_attention"],
    "decoder_hidden_dim": 32,
    "decoder_intermediate_dim": 32,
    "decoder_num_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_num_key_value_heads": 2,
    "decoder_head_dim": 16,
    "decoder_layer_types": ["full_attention"],
    "encoder_num_heads": 2,
    "decoder_num_heads": 2,
    "filter_dim": 32,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True],
    "mlp_bias": False,
    "layer_norm_epsilon": 1e-6,
    "max_position_embeddings": 64,
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 1.0,
    "image_size": 16,
    "num_classes": 3,
}
OF_CLIP = {"max_sequence_length": LENGTH, "embedding_dim": 32}
OF_CLASS = {
    "CLIPTextEncoder": OF_CLIP,
    "MetaCLIP2TextEncoder": OF_CLIP,
    "SigLIPTextEncoder": OF_CLIP,
}
WITH_LOSS = (
    keras_hub.models.CausalLM,
    keras_hub.models.MaskedLM,
    keras_hub.models.Seq2SeqLM,
    keras_hub.models.TextClassifier,
)
COLUMNS = (
    "class",
    "tables",
    "weights before (KB)",
    "after (KB)",
    "low rank",
    "product codes",
    "fit",
    "generate",
    ".keras",
    "preset",
)
OF_EXPORTS = (
    "LiteRT before (KB)",
    "after (KB)",
    "SavedModel before (KB)",
    "after (KB)",
)


def classes():
    """Returns the text backbones and their tasks, by name."""
    models = keras_hub.models
    found = {c.__name__: c for c in vars(models).values() if inspect.isclass(c)}
    backbones = {
        name: cls
        for name, cls in sorted(found.items())
        if issubclass(cls, models.Backbone)
        and "vocabulary_size" in inspect.signature(cls.__init__).parameters
    }
    tasks = {
        name: cls
        for name, cls in sorted(found.items())
        if issubclass(cls, models.Task)
        and getattr(cls, "backbone_cls", None) in backbones.values()
    }
    return {**backbones, **tasks}


def made(cls):
    """Returns a small random model of a class."""
    if issubclass(cls, keras_hub.models.Task):
        arguments = {"backbone": made(cls.backbone_cls)}
        names = inspect.signature(cls.__init__).parameters
        arguments |= {n: SIZES[n] for n in ("num_classes",) if n in names}
        if "preprocessor" in names:
            arguments["preprocessor"] = None
        return cls(**arguments)
    names = inspect.signature(cls.__init__).parameters
    sizes = {**SIZES, **OF_CLASS.get(cls.__name__, {})}
    return cls(
        **{
            name: sizes[name]
            for name, parameter in names.items()
            if name in sizes
            and (
                parameter.default is inspect.Parameter.empty
                or name
                in ("dropout", "max_sequence_length", "bucket_size", "top_k")
                or name.endswith("_lora")
                or name.startswith("linear_")
            )
        }
    )


def decay(model, generator):
    """Gives the tables of a model a spectrum that decays."""
    for _, layer in dense_places(model):
        table = layer.weights[0]
        values = generator.normal(size=table.shape)
        values *= 0.1 / np.sqrt(1 + np.arange(table.shape[1]))
        table.assign(values)


def inputs_of(model, generator):
    found = {}
    for spec in model.inputs:
        sizes = (BATCH, LENGTH, LENGTH, LENGTH)
        shape = [size or sizes[axis] for axis, size in enumerate(spec.shape)]
        if "mask_positions" in spec.name:
            value = np.zeros(shape) + np.arange(shape[-1]) % LENGTH
        elif "mask" in spec.name:
            value = np.ones(shape)
        elif "segment" in spec.name:
            value = np.zeros(shape)
        elif keras.backend.is_int_dtype(spec.dtype):
            value = generator.integers(1, WORDS, shape)
        else:
            value = generator.normal(size=shape)
        found[spec.name] = value.astype(spec.dtype)
    return found


def flat(outputs):
    return [
        ops.convert_to_numpy(x).astype("float32")
        for x in keras.tree.flatten(outputs)
    ]


def difference(one, other):
    """Returns the largest difference, relative to the largest number."""
    largest = max(np.abs(x).max() for x in one)
    return max(
        float(np.abs(x - y).max() / largest)
        for x, y in zip(one, other, strict=True)
    )


def prompt_of(model):
    names = {spec.name for spec in model.inputs}
    ids = np.array([[5, 6, 7, 0, 0, 0]], "int32")
    inputs = {"token_ids": ids, "padding_mask": (ids > 0).astype("int32")}
    if names == set(inputs):
        return inputs
    if "decoder_token_ids" in names:
        return {
            f"{side}_{name}": value
            for side in ("encoder", "decoder")
            for name, value in inputs.items()
        }
    return None


def generated(original, models):
    """Returns whether models write the same tokens; `None` if none can."""
    prompt = prompt_of(models[0])
    if not hasattr(models[0], "generate") or prompt is None:
        return None
    key = "token_ids" if "token_ids" in prompt else "decoder_token_ids"
    try:
        original.compile(sampler="greedy")
        original.generate(prompt, stop_token_ids=None)
    except Exception as error:
        return f"the original fails: {type(error).__name__}"
    tokens = []
    for model in models:
        model.compile(sampler="greedy")
        found = model.generate(prompt, stop_token_ids=None)
        tokens.append(ops.convert_to_numpy(found[key]))
    return all(np.array_equal(tokens[0], one) for one in tokens)


def through_preset(model, cls, inputs, expected):
    with tempfile.TemporaryDirectory() as folder:
        model.save_to_preset(folder)
        if not issubclass(cls, keras_hub.models.Task):
            return None  # read by its tasks
        read = cls.from_preset(folder)
    return difference(expected, flat(read(inputs)))


def exported(model, inputs):
    sizes = {"batch": BATCH, "sequence": LENGTH}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        export_litert(model, path, samples=inputs, **sizes)
        served = export_serving(
            model, Path(folder) / "served", samples=inputs, **sizes
        )
        files = [x for x in served.rglob("*") if x.is_file()]
        return path.stat().st_size, sum(x.stat().st_size for x in files)


def attempt(row, name, function):
    """Puts what a function returns into a row, or the first line of why not."""
    try:
        row[name] = function()
    except Exception as error:
        row[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        row[name] = row[name][:160]


def measured(name, cls, folder, with_exports):
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    row = {"class": name}
    try:
        model = made(cls)
    except Exception as error:
        words = " ".join(str(error).split())[:160]
        return {**row, "left out": f"{type(error).__name__}: {words}"}
    decay(model, generator)
    inputs = inputs_of(model, generator)
    row["tables"] = len(dense_places(model))
    row["before"] = weight_bytes(model.weights)

    def alike(method, **goal):
        small = compress(model, method=method, **goal)
        assert isinstance(small, cls) and type(small).__name__ == name
        dense = to_keras(small)
        assert type(dense) is cls, type(dense)
        found = difference(flat(dense(inputs)), flat(small(inputs)))
        return small, dense, found

    try:
        small, dense, row["low rank"] = alike("low_rank", ratio=8)
    except Exception as error:
        words = " ".join(str(error).split())[:160]
        return {**row, "left out": f"{type(error).__name__}: {words}"}
    attempt(row, "codes", lambda: alike("product_codes", ratio=8)[2])
    row["after"] = int(
        sum(
            np.prod(w.shape) * np.dtype(w.dtype).itemsize for w in small.weights
        )
    )
    attempt(row, "generate", lambda: generated(model, [dense, small]))
    expected = flat(small(inputs))
    attempt(row, "preset", lambda: through_preset(small, cls, inputs, expected))

    def save():
        small.save(folder / f"{name}.keras")
        np.savez(folder / f"{name}.inputs.npz", **inputs)
        np.savez(folder / f"{name}.outputs.npz", *expected)

    attempt(row, "saved", save)

    def fit():
        outputs = small(inputs)
        if issubclass(
            cls, WITH_LOSS
        ):  # a task, with the loss that it compiles by itself
            targets = np.zeros(outputs.shape[:-1], "int32")
            small.compile()
        else:
            targets = keras.tree.map_structure(
                lambda x: np.zeros(x.shape, "float32"), outputs
            )
            small.compile("adam", "mse")
        small.fit(inputs, targets, verbose=0)
        return True

    attempt(row, "fit", fit)
    if with_exports:
        attempt(row, "exports before", lambda: exported(model, inputs))
        attempt(row, "exports after", lambda: exported(small, inputs))
    return row


LOAD = """
import json, sys
from pathlib import Path
import keras, keras_embcomp, keras_hub, numpy as np
folder, found = Path(sys.argv[1]), {}
for path in sorted(folder.glob("*.keras")):
    name = path.stem
    try:
        model = keras.saving.load_model(path)
        assert isinstance(model, getattr(keras_hub.models, name))
        inputs = dict(np.load(folder / f"{name}.inputs.npz"))
        expected = np.load(folder / f"{name}.outputs.npz")
        outputs = [keras.ops.convert_to_numpy(x).astype("float32")
                   for x in keras.tree.flatten(model(inputs))]
        found[name] = max(float(np.abs(x - expected[f"arr_{i}"]).max())
                          for i, x in enumerate(outputs))
    except Exception as error:
        found[name] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    print(json.dumps(found), file=open(folder / "loaded.json", "w"))
"""


def shown(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:.0e}"


def cells(row, loaded, with_exports):
    before, after = (row.get(f"exports {x}") for x in ("before", "after"))
    sizes = []
    for kind in (0, 1) if with_exports else ():
        for one in (before, after):
            held = isinstance(one, list | tuple)
            sizes.append(f"{one[kind] / 1e3:.0f}" if held else shown(one))
    return (
        row["class"],
        str(row["tables"]),
        f"{row['before'] / 1e3:.0f}",
        f"{row['after'] / 1e3:.0f}",
        shown(row["low rank"]),
        shown(row["codes"]),
        shown(row["fit"]),
        shown(row["generate"]),
        shown(row["saved"] or loaded.get(row["class"])),
        shown(row["preset"]),
        *sizes,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--folder", type=Path, default="build/keras_hub")
    parser.add_argument("--exports", action="store_true")
    parser.add_argument("--classes", nargs="+", help="default: all of them")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "rows.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = {row["class"]: row for row in map(json.loads, lines)}
    every = classes()
    for name in options.classes or every:
        if name in rows:
            continue
        keras.utils.clear_session()
        row = measured(name, every[name], options.folder, options.exports)
        rows[name] = json.loads(json.dumps(row, default=float))
        with open(path, "a") as file:
            file.write(json.dumps(rows[name]) + "\n")
        print(json.dumps(rows[name]), file=sys.stderr)
    subprocess.run(
        [sys.executable, "-c", LOAD, str(options.folder)], check=True
    )
    loaded = json.loads((options.folder / "loaded.json").read_text())
    chosen = [rows[name] for name in options.classes or every]
    exports = options.exports
    table = [cells(r, loaded, exports) for r in chosen if "left out" not in r]
    print(markdown([(*COLUMNS, *(OF_EXPORTS if exports else ())), *table]))
    print()
    for row in chosen:
        if "left out" in row:
            print(f"- {row['class']}: {row['left out']}")


if __name__ == "__main__":
    main()
