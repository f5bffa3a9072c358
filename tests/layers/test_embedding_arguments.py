"""The arguments of `Embedding`: each is taken, or refused with what to use."""

import numpy as np
import pytest
from cases import EMBEDDINGS, VOCABULARY, WIDTH

import keras_embcomp

pytestmark = pytest.mark.parametrize("case", EMBEDDINGS, ids=str)

NAMES = {  # of the weight that takes the parts of a table
    keras_embcomp.TTEmbedding: "`cores_{}`",
    keras_embcomp.HashedEmbedding: "`subvectors_{}`",
    keras_embcomp.ProductQuantizedEmbedding: (
        "`codebooks_{}` and `projection_{}`"
    ),
    keras_embcomp.TrellisCodedEmbedding: "`values_{}` and `projection_{}`",
}
PARTS = {
    "initializer": "ones",
    "regularizer": "l2",
    "constraint": "non_neg",
}


def make(case, **kwargs):
    return case.layer(VOCABULARY, WIDTH, **{**case.structure, **kwargs})


def refusal(case, **kwargs):
    with pytest.raises(ValueError) as error:
        make(case, **kwargs)
    return str(error.value)


@pytest.mark.parametrize("listed", [False, True])
def test_weights_are_for_from_dense(case, listed):
    table = np.zeros((VOCABULARY, WIDTH), "float32")
    assert refusal(case, weights=[table] if listed else table) == (
        "`weights` must be given to `from_dense`, which finds the factors of a "
        f"table. Received: weights of shape {table.shape}"
    )


def test_input_length_is_dropped_with_the_warning_of_keras(case):
    with pytest.warns(UserWarning, match="`input_length` is deprecated"):
        layer = make(case, input_length=3)
    assert "input_length" not in layer.get_config()


@pytest.mark.parametrize("kind", PARTS)
def test_parts_of_the_table_are_taken_or_named(case, kind):
    name = f"embeddings_{kind}"
    part = PARTS[kind]
    if case.layer not in NAMES:
        taken = getattr(make(case, **{name: part}), name)
        assert type(taken).__name__.lower() == part.replace("_", "")
        return
    own = NAMES[case.layer].format(kind, kind)
    assert refusal(case, **{name: part}) == (
        f"`{name}` must be given as {own}, for a `{case.layer.__name__}` has "
        f"no dense table. Received: {name}={part!r}"
    )
    taken = {piece.strip("`"): part for piece in own.split(" and ")}
    make(case, **taken)


def test_arguments_that_ask_for_nothing_are_dropped(case):
    parts = {f"embeddings_{kind}": None for kind in PARTS if kind[0] != "i"}
    layer = make(
        case,
        **parts,
        weights=None,
        input_length=None,
        quantization_config=None,
        tie_weights=True,
        reverse_dtype=None,
        logit_soft_cap=None,
    )
    assert layer.get_config() == {
        **make(case).get_config(),
        "name": layer.name,
    }


@pytest.mark.parametrize(
    ("name", "value", "nothing", "instead"),
    [
        ("quantization_config", 8, None, "give it to `quantize`"),
        (
            "tie_weights",
            False,
            True,
            "use a `Softmax` layer of this package beside it",
        ),
        ("reverse_dtype", "float32", None, "cast the hidden states"),
        ("logit_soft_cap", 3.0, None, "cap the logits in a layer after it"),
    ],
)
def test_arguments_for_dense_tables_say_what_to_use(
    case, name, value, nothing, instead
):
    assert refusal(case, **{name: value}) == (
        f"`{name}` must be {nothing}: {instead}. Received: {name}={value!r}"
    )


def test_a_subclass_names_the_parts_of_its_base(case):
    if case.layer not in NAMES:
        pytest.skip("takes parts of `embeddings`")

    class Own(case.layer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    with pytest.raises(ValueError, match=NAMES[case.layer].split("{")[0]):
        Own(VOCABULARY, WIDTH, **case.structure, embeddings_initializer="ones")
