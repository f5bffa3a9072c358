"""The report's numbers against naive NumPy, and what it prints and writes."""

import builtins

import cases
import keras
import numpy as np
import pytest

from keras_embcomp import LowRankEmbedding, LowRankSoftmax, report
from keras_embcomp.numerics import table_comparison
from keras_embcomp.reporting.costs import operations

ROWS, WIDTH = 1_003, 12


def models(generator, rank=4):
    """Returns a model with a nested encoder, and its compressed copy."""
    table = generator.normal(size=(ROWS, WIDTH)).astype("float32")
    words = keras.layers.Embedding(ROWS, WIDTH, weights=[table], name="words")
    head = keras.layers.Dense(ROWS, name="head")
    both = []
    for compressed in (False, True):
        if compressed:
            words = LowRankEmbedding.from_layer(words, rank=rank)
            head = LowRankSoftmax.from_layer(head, rank=rank)
        encoder = keras.Sequential(
            [keras.Input((5,), dtype="int32"), words], name="encoder"
        )
        both.append(keras.Sequential([encoder, head]))
        both[-1].build((None, 5))
    return both


def naive_neighbours(table, query, count):
    """Returns the ids of the rows of largest cosine, one at a time."""
    cosines = [
        -2.0
        if row == query
        else table[row]
        @ table[query]
        / np.linalg.norm(table[row])
        / np.linalg.norm(table[query])
        for row in range(len(table))
    ]
    return set(np.argsort(cosines)[-count:].tolist())


def test_a_model_beside_itself_has_lost_nothing(generator):
    model, _ = models(generator)
    found = report(model, baseline=model)
    assert [table.path for table in found.tables] == ["encoder/words", "head"]
    for table in found.tables:
        assert table.error == 0 and set(table.decile_errors) == {0}
        assert table.cosine == 1 and set(table.decile_cosines) == {1}
        assert table.neighbour_overlap == table.latency_ratio == table.ratio
    assert found.model == found.baseline
    held = 4 * (2 * ROWS * WIDTH + ROWS)
    assert found.model.bytes == held < found.model.file_bytes < 1.6 * held


def test_costs_are_those_of_the_weights(generator):
    model, small = models(generator)
    words, head = report(small, baseline=model).tables
    assert words.layer == "LowRankEmbedding"
    assert head.layer == "LowRankSoftmax"
    assert words.parameters == 4 * (ROWS + WIDTH)
    assert words.bytes == 4 * words.parameters
    assert words.dense_bytes == 4 * ROWS * WIDTH
    assert head.parameters == 4 * (ROWS + WIDTH) + ROWS
    assert head.dense_bytes == 4 * ROWS * (WIDTH + 1)
    assert words.ratio == small.get_layer("encoder").layers[0].compression_ratio


@pytest.mark.parametrize("given", ["counts", "dictionary", None])
def test_losses_are_those_of_naive_numpy(generator, given):
    model, small = models(generator)
    counts = generator.permutation(ROWS).astype("float64")
    frequencies = {"counts": counts, "dictionary": {"encoder/words": counts}}
    words = report(small, model, frequencies.get(given)).tables[0]
    table = model.get_layer("encoder").layers[0].get_weights()[0]
    found = small.get_layer("encoder").layers[0].to_dense()
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(found, table, strict=True)
    ]
    order = np.arange(ROWS) if given is None else np.argsort(-counts)
    error = np.linalg.norm(found - table) / np.linalg.norm(table)
    assert words.error == pytest.approx(error, rel=1e-5)
    assert words.cosine == pytest.approx(np.mean(cosines), rel=1e-5)
    for tenth, part in enumerate(np.array_split(order, 10)):
        lost = np.linalg.norm((found - table)[part])
        assert words.decile_errors[tenth] == pytest.approx(
            lost / np.linalg.norm(table[part]), rel=1e-5
        )
        assert words.decile_cosines[tenth] == pytest.approx(
            np.mean([cosines[row] for row in part]), rel=1e-5
        )
    if given is not None:
        root = np.sqrt(counts)[:, None]
        error = np.linalg.norm(root * (found - table))
        error /= np.linalg.norm(root * table)
        assert words.weighted_error == pytest.approx(error, rel=1e-5)


def test_neighbours_are_those_of_naive_numpy(generator, monkeypatch):
    monkeypatch.setattr(table_comparison, "_BLOCK", 64)
    one = generator.normal(size=(300, 8)).astype("float32")
    other = one + 0.5 * generator.normal(size=one.shape).astype("float32")
    queries = np.array([0, 63, 64, 299])
    found = table_comparison.nearest_rows(one, queries, 10)
    for query, ids in zip(queries, found, strict=True):
        assert set(ids.tolist()) == naive_neighbours(one, query, 10)
    shared = [
        len(naive_neighbours(one, q, 10) & naive_neighbours(other, q, 10))
        for q in range(300)
    ]
    overlap = table_comparison.neighbour_overlap(one, other)
    assert overlap == pytest.approx(np.mean(shared) / 10)


def test_rows_of_zeros_and_tables_of_few_rows_have_numbers():
    table, zeros = np.array([[0.0, 0.0], [3.0, 4.0]]), np.zeros((2, 2))
    assert table_comparison.compare_rows(table, zeros).error() == float("inf")
    rows = table_comparison.compare_rows(zeros, table)
    assert rows.cosines.tolist() == [1, 0]
    assert [part.error() for part in rows.deciles()] == [0, 1]
    assert table_comparison.neighbour_overlap(zeros[:1], table[:1]) == 1


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (keras.layers.Embedding(ROWS, WIDTH), 0),
        (LowRankEmbedding(ROWS, WIDTH, rank=4), 2 * 4 * WIDTH),
        (keras.layers.Dense(ROWS), 2 * WIDTH * ROWS + ROWS),
        (
            LowRankSoftmax(ROWS, rank=4, activation="relu"),
            2 * 4 * (WIDTH + ROWS) + 2 * ROWS,
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_operations_are_those_of_the_formula(layer, expected):
    layer.build((None, WIDTH))
    assert operations(layer, (ROWS, WIDTH)) == expected


@pytest.mark.parametrize("case", cases.EMBEDDINGS + cases.SOFTMAXES, ids=str)
def test_every_layer_has_a_report(case):
    sizes = {"input_dim": cases.VOCABULARY, "output_dim": cases.WIDTH}
    if case in cases.SOFTMAXES:
        sizes = {"units": cases.VOCABULARY}
    layer = case.layer(**sizes, **case.structure)
    layer.build((None, cases.WIDTH))
    (table,) = report(layer, baseline=layer).tables
    assert table.shape == (cases.VOCABULARY, cases.WIDTH)
    assert table.ratio == pytest.approx(layer.compression_ratio)
    assert table.error == 0 and table.neighbour_overlap == 1
    assert table.microseconds > 0 and table.latency_ratio > 0
    if keras.backend.backend() == "tensorflow":
        assert table.operations >= 0


def test_optimizer_state_is_not_in_the_bytes_on_disk(generator):
    model, _ = models(generator)
    before = report(model).model
    model.compile("adam", "sparse_categorical_crossentropy")
    ids = np.zeros((2, 5), "int32")
    model.fit(ids, ids, verbose=0)
    after = report(model).model
    assert after.bytes == before.bytes
    assert after.file_bytes < 1.3 * before.file_bytes


def test_prints_and_exports_every_table(generator, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    model, small = models(generator)
    found = report(small, baseline=model)
    lines = str(found).splitlines()
    assert lines[1].startswith("encoder/words  LowRankEmbedding  1,003 x 12")
    assert lines[-1] == f"baseline: {found.baseline}"
    markdown = found.to_markdown().splitlines()
    assert {line.count("|") for line in markdown[:4]} == {15}
    for table in found.tables:
        assert 0 < table.limit < table.error
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["path"].tolist() == ["encoder/words", "head"]
    assert frame["error_10"][0] == found.tables[0].decile_errors[9]
    found.plot(tmp_path / "report.png")
    report(small).plot(tmp_path / "costs.svg")
    assert (tmp_path / "report.png").read_bytes()[1:4] == b"PNG"
    assert "<svg" in (tmp_path / "costs.svg").read_text("utf-8")
    assert {p.name for p in tmp_path.iterdir()} == {"report.png", "costs.svg"}
    with pytest.raises(ValueError, match="`path` must be a file in a folder"):
        found.plot(tmp_path / "missing" / "report.png")


@pytest.mark.parametrize("package", ["pandas", "matplotlib"])
def test_says_what_to_install(generator, monkeypatch, tmp_path, package):
    found = report(models(generator)[0])
    original = builtins.__import__

    def without(name, *arguments, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return original(name, *arguments, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        if package == "pandas":
            found.to_pandas()
        else:
            found.plot(tmp_path / "report.png")


def test_refuses_what_it_cannot_compare(generator):
    model, small = models(generator)
    other = keras.Sequential(
        [keras.layers.Embedding(ROWS, 4, name="words"), keras.layers.Dense(3)]
    )
    with pytest.raises(ValueError, match="`model` must be built"):
        report(other)
    with pytest.raises(ValueError, match="`model` must be built"):
        report(LowRankSoftmax(ROWS, rank=4))
    other.build((None, 5))
    with pytest.raises(ValueError, match="Received: shape .1003, 4. in place"):
        report(small, baseline=other)
    with pytest.raises(ValueError, match="Received: 0 layers for 'head'"):
        report(small, baseline=small.get_layer("encoder"))
    with pytest.raises(ValueError, match="`model` must have a vocabulary"):
        report(other.layers[1])
    for frequencies, message in (
        (np.ones(7), r"many counts as a table has rows.*shape \(7,\)"),
        ({"tail": np.ones(ROWS)}, "must name tables.*Received: tail"),
        (np.zeros(ROWS), "must not all be zero"),
    ):
        with pytest.raises(ValueError, match=message):
            report(small, model, frequencies)
    with pytest.raises(ValueError, match="must come with a `baseline`"):
        report(small, frequencies=np.ones(ROWS))
