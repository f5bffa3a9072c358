"""Any text is a plan or a `ValueError` that says what was received."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_embcomp import CompressionPlan

# The layer clips ranks and says so: no error.
pytestmark = pytest.mark.filterwarnings("ignore:`tt_ranks` above what")
few = settings(
    derandomize=True,
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 150)),
)
GOOD = {
    "layer": "words",
    "shape": [600, 16],
    "method": "low_rank",
    "number_format": "int8",
    "arguments": {"rank": 4},
    "bytes_before": 38_400,
    "bytes_after": 2_500,
    "error": 0.25,
    "operations": 128,
}
# Arguments that fit a table of 600 x 16.
STRUCTURES = {
    "product_codes": {"num_parts": 4, "part_width": 2, "codebook_size": 16},
    "low_rank": {"rank": 3},
    "group_reduce": {"group_sizes": [200, 400], "group_ranks": [5, 2]},
    "distilled": {"rank": 3, "hidden_dim": 8},
    "tensor_train": {"tt_ranks": [4], "num_cores": 2},
    "hashed": {"num_subvectors": 50, "num_parts": 4},
}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 700)
    | st.sampled_from([2**31, 10**12, 10**30, -1])
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["keep", "int4", "rank", *STRUCTURES]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6), inner, max_size=2)
    ),
    max_leaves=5,
)


def refused_or_plan(text):
    """Returns a plan, or `None` if it is refused in words."""
    try:
        plan = CompressionPlan.from_json(text)
    except ValueError as error:
        assert "Received: " in str(error)
        return None
    assert str(plan)
    assert CompressionPlan.from_json(plan.to_json()) == plan
    return plan


@few
@given(st.sampled_from(sorted(GOOD)), values)
def test_any_value_of_a_field(field, value):
    refused_or_plan(json.dumps({"tables": [{**GOOD, field: value}]}))


@few
@given(
    st.sampled_from(sorted(STRUCTURES)),
    st.data(),
    values,
    st.sampled_from([None, "int8", "int4", "int2", "ternary"]),
)
def test_any_value_of_an_argument(method, data, value, number_format):
    structure = STRUCTURES[method]
    others = ["seed", "mask_zero", "trainable", "dtype", "tt_shape", "x"]
    name = data.draw(st.sampled_from([*structure, *others]))
    entry = {
        **GOOD,
        "method": method,
        "number_format": number_format,
        "arguments": {**structure, name: value},
    }
    refused_or_plan(json.dumps({"tables": [entry]}))


@few
@given(st.lists(st.sampled_from(sorted(GOOD)), unique=True), values, values)
def test_missing_and_other_fields(missing, name, value):
    entry = {k: v for k, v in GOOD.items() if k not in missing}
    entry[str(name)] = value
    plan = refused_or_plan(json.dumps({"tables": [entry]}))
    assert plan is None or set(entry) == set(GOOD)


@few
@given(values | st.fixed_dictionaries({"tables": values}))
def test_any_json(value):
    refused_or_plan(json.dumps(value))


@few
@given(st.integers(0, 400), st.integers(0, 400), st.text(max_size=4))
def test_any_text_in_the_place_of_some(start, length, text):
    good = json.dumps({"tables": [GOOD]}, indent=2)
    refused_or_plan(good[:start] + text + good[start + length :])
