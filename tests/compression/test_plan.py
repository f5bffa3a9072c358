"""A plan in JSON that is wrong is refused by file, entry and field."""

import json
import math

import keras
import pytest

from keras_embcomp import CompressionPlan, compress
from keras_embcomp.compression.candidates import structure_bytes
from keras_embcomp.compression.entries import (
    check_structure,
    structural_arguments,
)
from keras_embcomp.compression.plan import TablePlan
from keras_embcomp.layers.methods import METHODS

GOOD = {
    "layer": "words",
    "shape": [1200, 16],
    "method": "low_rank",
    "number_format": None,
    "arguments": {"rank": 4},
    "bytes_before": 76_800,
    "bytes_after": 19_456,
    "error": 0.25,
    "operations": 128,
}
CODES = {"num_parts": 4, "part_width": 2, "codebook_size": 16}


def text_of(*entries):
    return json.dumps({"tables": entries})


def refusal_of(*entries):
    with pytest.raises(ValueError) as refusal:
        CompressionPlan.from_json(text_of(*entries))
    return str(refusal.value)


WRONG = {
    "layer": (None, 3, "", [], {}, True, 1.5),
    "shape": (
        None,
        "1200x16",
        [],
        [1200],
        [1200, 16, 1],
        [1200, 0],
        [-1200, 16],
        [1200.0, 16],
        [True, 16],
        ["1200", 16],
        [[1200], 16],
        {},
        1200,
        [None, 16],
        [10**30, 16],
    ),
    "method": (None, 3, "", "svd", [], {}, True),
    "number_format": (3, "", "int3", "float16", [], {}, True, "None"),
    "arguments": (None, [], "rank=4", 4, True, [["rank", 4]]),
    "bytes_before": (
        None,
        "76800",
        -1,
        0,
        True,
        1.5,
        [],
        math.nan,
        math.inf,
        10**30,
    ),
    "bytes_after": (
        None,
        "1",
        -1,
        0,
        True,
        1.5,
        [],
        math.nan,
        math.inf,
        10**30,
    ),
    "error": (None, "0.25", -0.1, True, [], math.nan, math.inf, -math.inf),
    "operations": (None, "128", -1, True, 1.5, [], math.nan, 10**30),
}


@pytest.mark.parametrize(
    "field, value",
    [(field, value) for field, values in WRONG.items() for value in values],
)
def test_a_wrong_field_is_named_with_its_entry(field, value):
    other = {**GOOD, "layer": "first"}
    text = refusal_of(other, {**GOOD, field: value})
    layer = value if field == "layer" else "words"
    assert text.startswith(f"Entry 2 of the plan ({layer!r}): `{field}` must ")
    assert "Received: " in text


@pytest.mark.parametrize("field", sorted(GOOD))
def test_a_missing_field_is_named(field):
    entry = {key: value for key, value in GOOD.items() if key != field}
    text = refusal_of(entry)
    assert f"Entry 1 of the plan ({entry.get('layer')!r}): `{field}`" in text


def test_an_unknown_field_is_named():
    text = refusal_of({**GOOD, "ranks": 3})
    assert "Entry 1 of the plan ('words'): `ranks` must not be there" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"mask_zero": True}, "the structure, which is rank for"),
        ({"trainable": False}, "Received: trainable=False"),
        ({"name": "x"}, "Received: name='x'"),
        ({"dtype": "float16"}, "Received: dtype='float16'"),
        ({"embeddings_initializer": "ones"}, "embeddings_initializer='ones'"),
        ({"embeddings_regularizer": "l2"}, "embeddings_regularizer='l2'"),
        ({"embeddings_constraint": None}, "embeddings_constraint=None"),
        ({"frequencies": [1]}, "Received: frequencies="),
        ({"verbose": 1}, "Received: verbose=1"),
        ({"weights": [1]}, "Received: weights="),
        ({"input_dim": 3}, "Received: input_dim=3"),
        ({"rank": None}, "Received: arguments={'rank': None}"),
        ({"rank": "4"}, "Received: arguments={'rank': '4'}"),
        ({"rank": 4.0}, "Received: arguments={'rank': 4.0}"),
        ({"rank": True}, "Received: arguments={'rank': True}"),
        ({"rank": -4}, "Received: arguments={'rank': -4}"),
        ({"rank": 17}, "Received: rank=17, output_dim=16"),
        ({"rank": [4]}, "Received: arguments={'rank': (4,)}"),
        ({"rank": {"class_name": "x"}}, "must be numbers, texts, None"),
        ({"rank": math.nan}, "must be numbers, texts, None"),
        ({}, "missing 1 required positional argument: 'rank'"),
    ],
)
def test_arguments_are_those_of_the_structure(arguments, message):
    text = refusal_of({**GOOD, "arguments": arguments})
    assert text.startswith("Entry 1 of the plan ('words'): `arguments` must ")
    assert message in text


def test_what_an_entry_says_of_a_method_does_not_count_for_a_kept_table():
    """So that `plan.tables[0].method = "keep"` is enough."""
    for rest in ({"arguments": CODES}, {"number_format": "int8"}):
        kept = {**GOOD, "method": "keep", **rest}
        (entry,) = CompressionPlan.from_json(text_of(kept)).tables
        assert entry.method == "keep"


def test_two_entries_for_one_table_are_refused():
    codes = {**GOOD, "method": "product_codes", "arguments": CODES}
    text = refusal_of(GOOD, {**GOOD, "layer": "other"}, codes)
    assert text == (
        "Entry 3 of the plan ('words'): `layer` must be in one entry only. "
        "Received: layer='words', as in entry 1"
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "as `to_json` writes it"),
        ("{", "as `to_json` writes it"),
        ("[" * 100_000, "recursion"),
        ("null", "must have the field `tables` and no other. Received: None"),
        ("[]", "Received: []"),
        ("{}", "Received: {}"),
        ('{"tables": [], "x": 1}', "no other. Received: {'tables'"),
        ('{"tables": null}', "must be a list of entries. Received: tables=N"),
        ('{"tables": {"0": 1}}', "must be a list of entries"),
        ('{"tables": "words"}', "must be a list of entries"),
        ('{"tables": [null]}', "Entry 1 of the plan must have fields"),
        ('{"tables": [[1]]}', "Entry 1 of the plan must have fields"),
        ('{"tables": [], "tables": []}', "'tables' is there twice"),
        ('{"tables": [{"layer": "a", "layer": "b"}]}', "'layer' is there"),
        ('{"tables": [' + "9" * 5000 + "]}", "as `to_json` writes it"),
    ],
)
def test_other_json_is_refused(text, message):
    with pytest.raises(ValueError) as refusal:
        CompressionPlan.from_json(text)
    assert message in str(refusal.value)
    assert "Received: " in str(refusal.value)


def test_a_file_is_named(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(text_of({**GOOD, "error": -1}))
    with pytest.raises(ValueError) as refusal:
        CompressionPlan.load(path)
    assert str(refusal.value) == (
        f"{path}: Entry 1 of the plan ('words'): `error` must be a finite "
        "number, 0 or more. Received: error=-1"
    )
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=f"UTF-8. Received: path={path}"):
        CompressionPlan.load(path)
    path.write_bytes(b"\xef\xbb\xbf" + text_of(GOOD).encode())
    assert CompressionPlan.load(path).tables[0].arguments == {"rank": 4}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    ids = keras.Input((3,), dtype="int32")
    words = keras.layers.Embedding(1200, 16, name="words")(ids)
    label = keras.layers.Dense(1200, name="label")(words)
    return keras.Model(ids, label)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layer": "other"}, "be a table of the model, which are words, label"),
        ({"shape": [1200, 8]}, "be that of the table, (1200, 16)"),
        ({"shape": [16, 1200]}, "be that of the table, (1200, 16)"),
    ],
)
def test_an_entry_that_is_not_of_the_model_is_named(model, change, message):
    (field,) = change
    plan = CompressionPlan.from_json(text_of({**GOOD, **change}))
    with pytest.raises(ValueError) as refusal:
        compress(model, plan)
    assert f"({plan.tables[0].layer!r}): `{field}` must " in (
        str(refusal.value)
    )
    assert message in str(refusal.value)


def test_an_entry_that_is_edited_is_checked_again(model):
    plan = CompressionPlan.from_json(text_of(GOOD))
    plan.tables[0].arguments = {"rank": 4, "mask_zero": True}
    with pytest.raises(ValueError, match="Received: mask_zero=True"):
        compress(model, plan)
    plan.tables[0].arguments = None
    with pytest.raises(ValueError, match="Received: arguments=None"):
        compress(model, plan)
    plan.tables = None
    with pytest.raises(ValueError, match="Received: tables=None"):
        compress(model, plan)
    plan.tables = [GOOD]
    with pytest.raises(ValueError, match="must be a `TablePlan`"):
        compress(model, plan)


def test_arguments_of_the_other_side_are_refused(model):
    entry = {
        **GOOD,
        "method": "hashed",
        "arguments": {
            "num_subvectors": 40,
            "num_parts": 4,
            "shared_pool": False,
        },
    }
    compress(model, CompressionPlan.from_json(text_of(entry)))
    plan = CompressionPlan.from_json(text_of({**entry, "layer": "label"}))
    with pytest.raises(ValueError, match="for `HashedSoftmax`. Received: shar"):
        compress(model, plan)


def test_what_would_take_all_memory_is_refused():
    huge = {"rank": 4, "hidden_dim": 10**12}
    text = refusal_of({**GOOD, "method": "distilled", "arguments": huge})
    assert "must make the table smaller. Received: arguments={'rank'" in text
    codes = {**CODES, "num_parts": 10**12}
    text = refusal_of({**GOOD, "method": "product_codes", "arguments": codes})
    assert "num_parts=1000000000000" in text


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_bytes_are_counted_without_a_layer(method):
    for number_format in method.formats:
        arguments = method.smallest((2_000, 32))
        assert set(arguments) <= set(structural_arguments(method.embedding))
        how = method.name, number_format, arguments, (2_000, 32)
        expected = structure_bytes(method, *how[1:])
        assert check_structure(*how) == expected


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_plans_of_every_method_are_read_back(method):
    shape = (1200, 16)
    plan = CompressionPlan(
        [
            TablePlan(
                f"{method.name}_{number_format}",
                shape,
                method.name,
                number_format,
                method.smallest(shape),
                bytes_before=76_800,
                bytes_after=1_000,
                error=0.5,
                operations=0,
            )
            for number_format in method.formats
        ]
    )
    assert CompressionPlan.from_json(plan.to_json()) == plan
