import methods
import pytest
from methods import METHODS, SIZES, TITLES, chosen, variants

BENCHMARKS = {key.partition(", ")[0] for own in SIZES.values() for key in own}


def left_out(method, benchmark):
    return SIZES[method.name].get(benchmark, {}) is None


def test_sizes_and_titles_are_of_methods_of_the_library():
    names = {method.name for method in METHODS}
    assert set(SIZES) <= names and set(TITLES) <= names


@pytest.mark.parametrize("benchmark", sorted(BENCHMARKS))
def test_every_method_is_in_every_benchmark(benchmark):
    found = {v.method.name for v in variants(benchmark, 50_000, 384)}
    assert found == {
        method.name
        for method in METHODS
        if method.name not in SIZES or not left_out(method, benchmark)
    }


@pytest.mark.parametrize("benchmark", sorted(BENCHMARKS))
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_new_method_is_in_every_benchmark_at_its_own_sizes(method, benchmark):
    new = method._replace(name="new_method")
    (variant,) = variants(benchmark, 3_000, 16, methods=(new,))
    assert variant.title == "new method"
    head = variant.softmax(3_000, use_bias=False)
    head.build((None, 16))
    embedding = variant.embedding(3_000, 16)
    embedding.build()
    for layer in (embedding, head):
        size = sum(array.nbytes for array in layer.get_weights())
        assert 8 * size <= 4 * 3_000 * 16


def test_titles_come_in_their_order_and_others_last():
    new = METHODS[0]._replace(name="new_method")
    found = [m.name for m in methods.in_order((new, *METHODS))]
    assert found[: len(TITLES)] == list(TITLES)
    assert found[-1] == "new_method"


def test_only_known_names_are_chosen():
    assert chosen({"a": 1, "b": 2}, ["b"]) == {"b": 2}
    assert chosen({"a": 1, "b": 2}, None) == {"a": 1, "b": 2}
    with pytest.raises(SystemExit, match=r"Received: \['c'\]"):
        chosen({"a": 1}, ["a", "c"])
