"""Every way to contract gives the same rows and logits; ids are exact."""

import numpy as np
import oracles
import pytest
from keras import ops

from keras_embcomp.layers.execution import current_execution, for_export
from keras_embcomp.numerics.execution import Execution
from keras_embcomp.numerics.tensor_train import lookups
from keras_embcomp.numerics.tensor_train.contraction import (
    partitions,
    plan_logits,
    plan_rows,
)
from keras_embcomp.numerics.tensor_train.shapes import core_shapes

SHAPE, RANKS, VOCABULARY = ((3, 4, 2, 5), (2, 1, 3, 2)), (3, 2, 4), 113


@pytest.fixture
def cores(generator):
    shapes = core_shapes(SHAPE, RANKS)
    return [generator.normal(size=shape).astype("float32") for shape in shapes]


def test_there_is_a_plan_for_every_set_of_cuts():
    assert set(partitions(3)) == {(3,), (1, 2), (2, 1), (1, 1, 1)}
    assert len(set(partitions(6))) == 2**5


@pytest.mark.parametrize("plan", partitions(4), ids=str)
def test_every_plan_gives_the_same_rows_and_logits(
    plan, cores, generator, monkeypatch
):
    monkeypatch.setattr(lookups, "plan_rows", lambda *_: plan)
    monkeypatch.setattr(lookups, "plan_logits", lambda *_: plan)
    table = oracles.tensor_train_table(VOCABULARY, *cores)
    cores = [ops.convert_to_tensor(core) for core in cores]
    ids = generator.integers(0, VOCABULARY, (7, 9)).astype("int32")
    rows = lookups.tt_rows(
        Execution(), ops.convert_to_tensor(ids), cores, VOCABULARY
    )
    np.testing.assert_allclose(rows, table[ids], rtol=1e-4, atol=1e-4)
    hidden = generator.normal(size=(6, 12)).astype("float32")
    logits = lookups.tt_logits(
        Execution(), ops.convert_to_tensor(hidden), cores, VOCABULARY
    )
    np.testing.assert_allclose(logits, hidden @ table.T, rtol=1e-4, atol=1e-3)


def test_many_ids_merge_and_few_do_not():
    shapes = core_shapes(((40, 50, 50), (4, 4, 8)), (16, 16))
    assert plan_rows(shapes, 1) == (1, 1, 1)
    assert plan_rows(shapes, 16_384) == (2, 1)
    # The whole table is for the logits of many tokens only.
    assert plan_rows(shapes, 10**9) != (3,)
    assert len(plan_logits(shapes, 1)) > 1
    wide = core_shapes(((32, 32, 32), (8, 8, 16)), (64, 64))
    assert plan_logits(wide, 1_024) == (3,)


def test_a_lookup_takes_less_memory_than_the_table():
    # A merged prefix would be as large as the table, slices of few ids not.
    shapes = core_shapes(((40, 50, 50), (4, 4, 8)), (160, 400))
    assert plan_rows(shapes, 20) == (1, 1, 1)
    # The slices of each id would be larger than what merging stores.
    wide = core_shapes(((36, 37, 38), (8, 8, 8)), (128, 128))
    assert plan_rows(wide, 2_048) == (2, 1)


def test_ids_are_exact_up_to_the_largest_int32(generator):
    vocabulary = 2**31 - 1
    modes = (1_272, 1_279, 1_320)
    cores = [
        generator.normal(size=(mode, 1, 1, 1)).astype("float32")
        for mode in modes
    ]
    ids = [0, 2**24 + 1, 2**30 + 7, 2**31 - 3, 2**31 - 2]
    expected = [
        cores[0][i // (modes[1] * modes[2])]
        * cores[1][i // modes[2] % modes[1]]
        * cores[2][i % modes[2]]
        for i in ids
    ]
    found = lookups.tt_rows(
        Execution(),
        ops.convert_to_tensor(np.array(ids, "int32")),
        [ops.convert_to_tensor(core) for core in cores],
        vocabulary,
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(found).ravel(), np.ravel(expected), rtol=1e-6
    )


@pytest.mark.tensorflow_only
def test_an_exported_lookup_refuses_ids_of_padded_rows(cores):
    with for_export():
        for wrong in (-1, VOCABULARY, 119, 120, 10**9):
            with pytest.raises(Exception, match="is not in"):
                lookups.tt_rows(
                    current_execution(),
                    ops.convert_to_tensor([wrong]),
                    cores,
                    VOCABULARY,
                )
