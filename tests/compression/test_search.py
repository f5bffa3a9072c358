"""The smallest plan whose model scores well enough."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_embcomp import compress, search_plan

WORDS, WIDTH = 1_500, 16


@pytest.fixture
def model(generator):
    ids = keras.Input((4,), dtype="int32")
    tables = {
        name: layers.Embedding(WORDS, WIDTH, name=name)
        for name in ("felt", "unfelt")
    }
    rows = [
        layers.GlobalAveragePooling1D()(table(ids)) for table in tables.values()
    ]
    model = keras.Model(ids, layers.Dense(1, name="sum")(rows[0] + rows[1]))
    for table in tables.values():
        table.set_weights(
            [generator.normal(size=(WORDS, WIDTH)).astype("float32")]
        )
    return model


def similarity(model):
    """Returns a score that the table "felt" alone decides."""

    def score(other):
        one, two = (
            x.get_layer("felt")(np.arange(WORDS)[None]) for x in (model, other)
        )
        one, two = (
            np.asarray(keras.ops.convert_to_numpy(x)) for x in (one, two)
        )
        return 1 - np.linalg.norm(one - two) / np.linalg.norm(one)

    return score


def test_is_the_smallest_that_scores_enough(model):
    found = search_plan(
        model, similarity(model), max_drop=0.5, method="low_rank"
    )
    chosen = next(t for t in found.trials if t.plan is found.plan)
    assert chosen.within and chosen.score >= found.least_score == 0.5
    assert similarity(model)(found.model) == pytest.approx(chosen.score)
    all_of_them = [t for t in found.trials if t.name == "all"]
    assert chosen.plan.bytes_after == min(
        t.plan.bytes_after for t in all_of_them if t.within
    )
    # A plan of nearly as few bytes scores too low.
    failed = max(t.plan.bytes_after for t in all_of_them if not t.within)
    assert chosen.plan.bytes_after < 1.15 * failed
    assert len(found.trials) <= 12


def test_bytes_go_to_the_table_that_counts(model):
    found = search_plan(
        model, similarity(model), max_drop=0.5, method="low_rank"
    )
    names = [trial.name for trial in found.trials]
    assert set(names) == {"felt", "unfelt", "all"}
    held = {entry.layer: entry.bytes_after for entry in found.plan.tables}
    assert held["felt"] > 2 * held["unfelt"]
    text = str(found)
    assert "dense" in text.splitlines()[2] and text.count("chosen") == 1


def test_compress_takes_the_goal(model):
    small = compress(
        model, evaluate=similarity(model), max_drop=0.5, method="low_rank"
    )
    assert similarity(model)(small) >= 0.5


def test_a_score_is_the_only_goal(model):
    with pytest.raises(ValueError, match="evaluate, max_drop and ratio"):
        compress(model, ratio=4, evaluate=similarity(model), max_drop=0.5)


def test_plots(model, tmp_path):
    found = search_plan(
        model,
        similarity(model),
        min_score=0.4,
        method="low_rank",
        max_evaluations=5,
    )
    found.plot(tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({}, "One of `max_drop` and `min_score`"),
        ({"max_drop": 0.1, "min_score": 1}, "One of `max_drop`"),
        ({"max_drop": -1}, "`max_drop` must be a finite number above 0"),
        ({"min_score": float("nan")}, "`min_score` must be a finite number"),
        ({"max_drop": 0.1, "evaluate": 3}, "`evaluate` must be a function"),
        ({"max_drop": 0.1, "max_evaluations": 1}, "`max_evaluations` must"),
        (
            {"max_drop": 0.1, "evaluate": lambda _: None},
            "must return a finite number. Received: nan",
        ),
        (
            {"min_score": 2.0, "method": "low_rank"},
            "must score at least 2.0000",
        ),
    ],
)
def test_refuses_goals_that_are_none(model, goal, message):
    goal = {"evaluate": similarity(model), **goal}
    with pytest.raises(ValueError, match=message):
        search_plan(model, **goal)
