"""Trains each method on 8 virtual devices, under layouts and without one.

python tests/support/on_devices.py folder  # writes folder/found.json
"""

import json
import os
import sys
import warnings
from pathlib import Path

from xla_flags import QUICK

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("VIRTUAL_DEVICES", "8")
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count="
    f"{os.environ['VIRTUAL_DEVICES']} {QUICK}"
)

import keras
import numpy as np
from cases import EMBEDDINGS, SOFTMAXES, WIDTH
from keras import distribution as kd

from keras_embcomp import TableParallel, layout_map

VOCABULARY, LENGTH = 320, 6
PAIRS = list(zip(EMBEDDINGS, SOFTMAXES, strict=True))
# Of each method the last: it has all weights of the others, and more.
WHOLE = list({pair[0].layer: pair for pair in PAIRS}.values())
# What divides by four devices in the place of what does not.
DIVIDES = {"tt_ranks": 4, "group_sizes": (40, 120, 160)}


def mesh(*shape):
    return kd.DeviceMesh(shape, ("batch", "model"), kd.list_devices())


def model_of(cases, distribution=None, vocabulary=VOCABULARY, **changes):
    """Returns a model with both sides of a method, under a distribution."""
    keras.utils.set_random_seed(0)
    kd.set_distribution(distribution)
    structure = {
        name: changes.get(name, DIVIDES.get(name, value))
        for name, value in cases[0].structure.items()
    }
    ids = keras.Input((LENGTH,), dtype="int32")
    words = cases[0].layer(vocabulary, WIDTH, **structure, name="words")
    head = cases[1].layer(vocabulary, **structure, name="head")
    hidden = keras.ops.mean(words(ids), axis=1)
    model = keras.Model(ids, head(hidden))
    adam = keras.optimizers.Adam(1e-2, name="adam")
    model.compile(adam, "sparse_categorical_crossentropy")
    return model


def some_data(count=64):
    generator = np.random.default_rng(0)
    ids = generator.integers(0, 300, (count, LENGTH)).astype("int32")
    return ids, generator.integers(0, 300, count).astype("int32")


def losses_of(model, data=None, batch_size=16):
    settings = {"batch_size": batch_size, "shuffle": False, "verbose": 0}
    data = data or some_data()
    return model.fit(*data, epochs=2, **settings).history["loss"]


def splits_of(variables):
    """Returns the axes of the mesh that split each variable."""
    return {v.path: list(v.value.sharding.spec) for v in variables}


def numbers_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(v) for v in variables]


def trained(cases, folder):
    """Returns losses, splits, and what of a file came back elsewhere."""
    path = folder / "model.keras"
    losses = {"none": losses_of(model_of(cases))}
    data = kd.DataParallel(devices=kd.list_devices())
    if cases in WHOLE:
        losses["data"] = losses_of(model_of(cases, data))
    model = model_of(cases, TableParallel(mesh(2, 4)))
    losses["tables"] = losses_of(model)
    model.save(path)
    expected, equal = numbers_of(model), {}
    elsewhere = {"none": None, "data": data, "2": TableParallel(mesh(4, 2))}
    for name, distribution in elsewhere.items():
        kd.set_distribution(distribution)
        found = numbers_of(keras.saving.load_model(path))
        pairs = zip(found, expected, strict=True)
        equal[name] = all(np.array_equal(*pair) for pair in pairs)
    return {
        "losses": losses,
        "splits": splits_of(model.variables),
        "slots": splits_of(model.optimizer.variables[2:]),
        "parts": {
            v.path: v.value.addressable_shards[0].data.size / v.value.size
            for v in model.variables
        },
        "equal": equal,
    }


def not_dividing(cases):
    """Returns what a prime vocabulary does, for each rank."""
    found = {}
    for rank in (4, 3):
        expected = losses_of(model_of(cases, None, 307, rank=rank))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tables = TableParallel(mesh(2, 4))
            model = model_of(cases, tables, 307, rank=rank)
        found[rank] = {
            "losses": [losses_of(model), expected],
            "splits": splits_of(model.trainable_variables),
            "warnings": [
                str(w.message) for w in caught if "divide" in str(w.message)
            ],
        }
    return found


def raised(function):
    try:
        function()
    except ValueError as error:
        return str(error)
    return None


def main(folder):
    found = {str(pair[0]): trained(pair, folder) for pair in PAIRS}
    plain = kd.ModelParallel(layout_map=layout_map(mesh(2, 4)))
    by_hand = {"head/bias": ("model",), "words/embeddings": (None, "model")}
    own = model_of(PAIRS[0], TableParallel(mesh(2, 4), layouts=by_hand))
    tables = TableParallel(mesh(2, 4))
    found["special"] = {
        "plain": losses_of(model_of(PAIRS[0], plain)),
        "own": splits_of(own.trainable_variables),
        "not dividing": not_dividing(PAIRS[0]),
        "first batch": raised(
            lambda: losses_of(model_of(PAIRS[0], tables), some_data(15))
        ),
        "last batch": raised(
            lambda: losses_of(model_of(PAIRS[0], tables), some_data(31))
        ),
        "axis": raised(lambda: TableParallel(mesh(2, 4), axis="words")),
    }
    (folder / "found.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
