"""Suggested layers take what they promise, and within the budget."""

import random
import re

import keras
import numpy as np
import pytest

from keras_embcomp import suggest_layers
from keras_embcomp.from_scratch.times import _LARGEST_DENSE
from keras_embcomp.layers.method import SIDES
from keras_embcomp.layers.methods import METHODS
from keras_embcomp.reporting import costs

FORMS = {
    ", ".join(filter(None, (method.name, form.name)))
    for method in METHODS
    for form in method.from_scratch
}
SHAPES = ((2, 1), (2, 7), (3, 64), (37, 1), (100, 12), (307, 127), (2_003, 40))


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(costs, "_SECONDS", 0.05)


def built(suggestion, **kwargs):
    layer = suggestion.layer(**kwargs)
    layer.build((None, suggestion.shape[1]))
    return layer


def bytes_of(layer):
    return sum(weight.nbytes for weight in layer.get_weights())


def check_promises(found, budget):
    assert {entry.name for entry in found} | set(found.unsuited) == FORMS
    for entry in found:
        layer = built(entry)
        assert bytes_of(layer) == entry.bytes <= budget
        numbers = sum(np.size(w) for w in layer.trainable_weights)
        assert numbers == entry.parameters == layer.count_params()
        assert layer.dense_shape == entry.shape


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", SHAPES)
def test_layers_take_the_promised_bytes_and_no_more_than_allowed(shape, side):
    dense = 4 * (shape[0] * shape[1] + shape[0] * (side == "softmax"))
    met = 0
    for budget in (dense - 1, dense / 1.5, dense / 4, dense / 10, dense / 50):
        try:
            found = suggest_layers(*shape, max_bytes=budget, side=side)
        except ValueError as error:
            assert "must be allowed more bytes" in str(error)
            continue
        met += 1
        check_promises(found, budget)
        assert all(entry.dense_bytes == dense for entry in found)
    assert met or shape == (2, 1)


def test_every_method_that_trains_is_suggested_and_no_other():
    for side in SIDES:
        found = suggest_layers(5_000, 64, ratio=5, side=side)
        assert {entry.name for entry in found} == FORMS
        assert not found.unsuited
    trained = {method.name for method in METHODS if method.from_scratch}
    assert trained == {
        "low_rank",
        "group_reduce",
        "distilled",
        "tensor_train",
        "hashed",
    }


@pytest.mark.parametrize("ratio", [3, 10, 30])
def test_budgets_are_used(ratio):
    # A rank more is 4 * (vocabulary + width) bytes: a large part at 30 times.
    for entry in suggest_layers(4_000, 128, ratio=ratio):
        step = 4 * (4_000 + 128) * (entry.name != "tensor_train")
        budget = 4 * 4_000 * 128 / ratio
        assert 0.85 * budget - 1.2 * step < entry.bytes <= budget, entry.name
        assert entry.ratio >= ratio


def test_the_smallest_layer_is_within_reach_and_nothing_smaller_is():
    with pytest.raises(ValueError) as refusal:
        suggest_layers(2_003, 40, max_bytes=3)
    least = int(re.search(r"reachable are ([\d,]+)", str(refusal.value))[1])
    (entry,) = suggest_layers(2_003, 40, max_bytes=least)
    assert entry.bytes == least
    with pytest.raises(ValueError, match=f"reachable are {least}. Received: "):
        suggest_layers(2_003, 40, max_bytes=least - 1)
    with pytest.raises(ValueError, match="8,172, 8,012 of them for the bias"):
        suggest_layers(2_003, 40, ratio=100, side="softmax")


@pytest.mark.parametrize("side", SIDES)
def test_a_form_that_is_not_suggested_is_said_to_take_its_least_bytes(side):
    bare = {"use_bias": False} if side == "softmax" else {}
    found = suggest_layers(2_003, 40, ratio=60, side=side, **bare)
    assert found.unsuited
    for name, why in found.unsuited.items():
        least = int(re.search(r"at least ([\d,]+)", why)[1].replace(",", ""))
        assert least > 4 * 2_003 * 40 / 60
        for budget, there in ((least, True), (least - 1, False)):
            again = suggest_layers(
                2_003, 40, max_bytes=budget, side=side, **bare
            )
            assert (name in [entry.name for entry in again]) == there
        check_promises(again, least - 1)


@pytest.mark.parametrize("side", SIDES)
def test_layers_give_rows_and_logits(side):
    for entry in suggest_layers(307, 12, ratio=3, side=side):
        layer = built(entry, name="words")
        assert layer.name == "words"
        if side != "softmax":
            assert layer(np.array([[3, 306]])).shape == (1, 2, 12)
        reverse = {"reverse": True} if side == "tied" else {}
        if side != "embedding":
            hidden = np.ones((2, 12), "float32")
            assert layer(hidden, **reverse).shape == (2, 307)


def test_an_output_layer_has_a_bias_or_none():
    for use_bias in (True, False):
        found = suggest_layers(
            307, 12, max_bytes=3_000, side="softmax", use_bias=use_bias
        )
        assert found[0].dense_bytes == 4 * 307 * (12 + use_bias)
        for entry in found:
            assert (built(entry).bias is not None) == use_bias
    assert not suggest_layers(307, 12, ratio=3)[0].use_bias


def test_operations_are_those_of_the_sides():
    both = {
        side: {e.name: e for e in suggest_layers(999, 24, ratio=4, side=side)}
        for side in ("embedding", "tied")
    }
    rank = both["tied"]["low_rank"].arguments["rank"]
    assert both["embedding"]["low_rank"].operations == 2 * rank * 24
    tied = 2 * rank * (24 + 999 + 24)
    assert both["tied"]["low_rank"].operations == tied
    pool = both["tied"]["hashed"].arguments
    assert pool["shared_pool"] is False
    products = 2 * pool["num_subvectors"] * 24 // pool["num_parts"]
    logits = products + 999 * pool["num_parts"]
    assert both["tied"]["hashed"].operations == logits


def test_groups_follow_the_counts():
    ranks = [
        next(e for e in found if e.method == "group_reduce").arguments
        for found in (
            suggest_layers(4_000, 32, ratio=6),
            suggest_layers(4_000, 32, 6, frequencies=1 / np.arange(1, 4_001)),
            suggest_layers(4_000, 32, 6, frequencies=np.ones(4_000)),
        )
    ]
    assert ranks[0] == ranks[1] != ranks[2]
    assert len(set(ranks[2]["group_ranks"])) == 1


def test_a_vocabulary_too_large_for_a_table_is_suggested_for():
    found = suggest_layers(10**9, 64, max_bytes=10**7)
    assert {entry.method for entry in found} == {"tensor_train"}
    assert "below 2**31" in found.unsuited["hashed"]
    assert found.unsuited["low_rank"] == "takes at least 4,000,000,256 bytes."


def test_it_prints_sizes_quality_and_what_is_left_out():
    text = str(suggest_layers(2_003, 40, ratio=60))
    first, *_ = text.split("\n")
    assert first.split()[:4] == ["method", "arguments", "bytes", "ratio"]
    for part in (
        "- tensor_train: From scratch, 94 to 441 times smaller",
        "- low_rank: takes at least 8,172 bytes.",
        "No counts were given",
        "trellis_codes, product_codes are fitted to a trained table",
        "a dense one of 320,480 bytes",
        "`measure=True`",
    ):
        assert part in text
    rising = str(suggest_layers(100, 8, 4, frequencies=np.arange(100)))
    assert "not in the order of their counts" in rising
    falling = str(suggest_layers(100, 8, 4, frequencies=np.arange(100)[::-1]))
    assert "order of their counts" not in falling


def test_what_is_known_names_a_page_with_the_numbers():
    for method in METHODS:
        for form in method.from_scratch:
            assert set(form.known) <= set(SIDES)
            for text in form.known.values():
                assert re.search(r"\(docs/\w+\.md\)\.$", text), text


@pytest.mark.parametrize("side", SIDES)
def test_times_are_measured_beside_a_dense_layer(side):
    random.seed(3)
    before = random.getstate()
    found = suggest_layers(60, 8, ratio=4, side=side, measure=True)
    assert random.getstate() == before
    for entry in found:
        assert 0 < entry.lookup_seconds < 10 and 0 < entry.step_seconds < 10
        assert entry.lookup_ratio > 0 and entry.step_ratio > 0
    text = str(found)
    assert "lookup us" in text and "step us" in text
    assert "`measure=True`" not in text


@pytest.mark.tensorflow_only
def test_lookups_in_litert_are_measured():
    found = suggest_layers(60, 8, ratio=6, target="litert", measure=True)
    for entry in found:
        assert 0 < entry.lookup_seconds < 1 and entry.lookup_ratio > 0


def test_no_dense_layer_is_made_that_would_be_large(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a dense layer")

    monkeypatch.setattr(keras.layers, "Embedding", refuse)
    rows = _LARGEST_DENSE // 4 // 8 + 1
    found = suggest_layers(rows, 8, max_bytes=6_000, measure=True)
    assert {entry.method for entry in found} == {"tensor_train", "hashed"}
    for entry in found:
        assert entry.lookup_seconds > 0 and entry.lookup_ratio is None
    assert "x dense" not in str(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocabulary": 0}, "`vocabulary` must be a positive integer"),
        ({"width": 2.5}, "`width` must be a positive integer"),
        (
            {"side": "input"},
            "`side` must be one of embedding, softmax, tied. "
            "Received: side=input",
        ),
        (
            {"target": "tpu"},
            "`target` must be one of keras, litert. Received: target=tpu",
        ),
        (
            {"ratio": None},
            "One of `ratio` and `max_bytes` must be given. "
            "Received: none of them",
        ),
        ({"max_bytes": 9}, "Received: ratio, max_bytes"),
        ({"ratio": 1}, "`ratio` must be above 1. Received: ratio=1"),
        (
            {"ratio": None, "max_bytes": -4},
            "`max_bytes` must be a finite number above 0",
        ),
        (
            {"ratio": None, "max_bytes": 400},
            "`max_bytes` must be below the bytes of a dense layer, which are "
            "400: use that. Received: max_bytes=400",
        ),
        ({"frequencies": [1, 2]}, "`frequencies` must hold one count"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        suggest_layers(
            **{"vocabulary": 10, "width": 10, "ratio": 4, **arguments}
        )
