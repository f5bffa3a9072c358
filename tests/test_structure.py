"""What keeps the house in order: rules that a reader can rely on."""

import ast
import importlib
import io
import sys
import tokenize
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import keras_embcomp
from keras_embcomp import _moved, budgets
from keras_embcomp.layers.base import (
    Compressed,
    CompressedEmbedding,
    Resizing,
)
from keras_embcomp.layers.methods import METHODS
from keras_embcomp.layers.softmax import CompressedSoftmax

ROOT = Path(__file__).parents[1]
FOLDERS = ("keras_embcomp", "tests", "examples", "benchmarks", "saved_models")
LONGEST = 60


def code_lines(text):
    """Returns the numbers of lines that hold code: no comment, no docstring."""
    lines = set()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    skipped = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    for token in tokens:
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        docstring = docstring_node(node)
        if docstring is not None:
            lines -= set(range(docstring.lineno, docstring.end_lineno + 1))
    return lines


def docstring_node(node):
    """Returns the docstring of a definition as a node, or `None`."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    if not isinstance(node, kinds) or not node.body:
        return None
    first = node.body[0]
    if not isinstance(first, ast.Expr):
        return None
    constant = isinstance(first.value, ast.Constant)
    return first if constant and isinstance(first.value.value, str) else None


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_has_more_than_sixty_lines_of_code(folder):
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text()
        code = code_lines(text)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                own = code & set(range(node.lineno, node.end_lineno + 1))
                assert len(own) <= LONGEST, (path, node.name, len(own))


def test_a_subclass_that_leaves_the_protocol_open_is_told_what_it_lacks():
    with pytest.raises(TypeError) as error:

        class Half(CompressedEmbedding):
            def _rows(self, ids):
                return ids

    assert str(error.value) == (
        "A compressed layer must write all of the protocol. Received: class "
        "Half without _build_table, _check_weights, _check_width, _fit, "
        "_logit_blocks, _mix, "
        "_resizing, _row_scores, _table, from_dense"
    )


@pytest.mark.parametrize("base", [Compressed, CompressedEmbedding])
def test_an_abstract_class_makes_no_layer(base):
    with pytest.raises(TypeError, match="abstract"):
        base(input_dim=3, output_dim=2)


class OneRow(Compressed):
    """A table of equal rows: a method that a stranger might write."""

    def _check_width(self, name, width):
        """Any width fits."""

    def _build_table(self, width):
        self._set_parts(
            row_initializer="normal", row_regularizer=None, row_constraint=None
        )
        self.row = self._add_table_weight("row", (width,))

    def _rows(self, ids):
        shape = (*ops.shape(ids), self.dense_shape[1])
        return ops.broadcast_to(ops.cast(self.row, self.compute_dtype), shape)

    def _logit_blocks(self, hidden):
        logit = ops.sum(hidden * self.row, axis=-1, keepdims=True)
        return [ops.repeat(logit, self._vocabulary, axis=-1)], None

    def _row_scores(self, hidden):
        raise NotImplementedError

    def _table(self):
        return np.tile(ops.convert_to_numpy(self.row), (self._vocabulary, 1))

    @classmethod
    def from_dense(cls, table, **kwargs):
        return cls._fitted(table, kwargs)

    def _fit(self, table):
        self.row.assign(table.mean(axis=0))

    def _resizing(self, rows):
        return Resizing()

    def _mix(self, mixtures, rows):
        """All rows are equal."""

    def _check_weights(self):
        """Any numbers make a table."""


def test_a_method_of_ones_own_gets_both_sides_from_the_bases(generator):
    embedding = type("OneRowEmbedding", (OneRow, CompressedEmbedding), {})
    softmax = type("OneRowSoftmax", (OneRow, CompressedSoftmax), {})
    table = generator.normal(size=(7, 4)).astype("float32")
    mean = np.tile(table.mean(axis=0), (7, 1))
    words = embedding.from_dense(table)
    np.testing.assert_allclose(words(np.array([3, 5])), mean[:2], rtol=1e-6)
    hidden = generator.normal(size=(2, 4)).astype("float32")
    np.testing.assert_allclose(
        words(hidden, reverse=True), hidden @ mean.T, rtol=1e-5
    )
    bias = np.arange(7.0)
    head = softmax.from_dense(table, bias=bias, activation=None)
    np.testing.assert_allclose(head(hidden), hidden @ mean.T + bias, rtol=1e-5)
    assert words.compression_ratio == 7


def test_final_classes_override_nothing_concrete():
    sides = (CompressedEmbedding, CompressedSoftmax)
    for method in METHODS:
        for final, side in zip(
            (method.embedding, method.softmax), sides, strict=True
        ):
            table = next(
                base
                for base in final.__mro__[1:]
                if issubclass(base, Compressed) and base is not side
            )
            concrete = {
                name
                for base in side.__mro__
                if issubclass(base, Compressed)
                for name, value in vars(base).items()
                if callable(value) or isinstance(value, property | classmethod)
                if not getattr(value, "__isabstractmethod__", False)
            }
            allowed = {"__init__", "get_config", "__init_subclass__"}
            for cls in (final, table):
                own = set(vars(cls)) & concrete - allowed
                own = {name for name in own if not name.startswith("_abc")}
                abstract = {
                    name
                    for name in own
                    if getattr(
                        vars(Compressed).get(name),
                        "__isabstractmethod__",
                        False,
                    )
                }
                assert own - abstract <= {"__doc__"}, (cls, own)


def test_a_layer_shows_a_user_what_a_user_needs():
    dense = set(dir(keras.layers.Embedding))
    for method in METHODS:
        for cls in (method.embedding, method.softmax):
            own = {n for n in dir(cls) if n[0] != "_"} - dense
            # The protocol has 11, tensor trains 4 more.
            assert len(own) <= 15, (cls, sorted(own))


def test_methods_have_names_of_their_own_and_both_sides():
    names = [method.name for method in METHODS]
    assert len(set(names)) == len(names)
    for method in METHODS:
        for cls in (method.embedding, method.softmax):
            assert getattr(keras_embcomp, cls.__name__) is cls
        assert set(method.formats_of_auto) <= set(method.formats)


@pytest.mark.parametrize("name", sorted(_moved._MOVED))
def test_a_module_that_moved_says_where_it_is(name):
    old, new = f"keras_embcomp.{name}", f"keras_embcomp.{_moved._MOVED[name]}"
    importlib.import_module(new)
    with pytest.raises(ModuleNotFoundError, match=f"'{new}'") as error:
        importlib.import_module(old)
    assert error.value.name == old


def test_a_module_that_never_was_is_not_found_as_ever():
    with pytest.raises(ModuleNotFoundError, match="No module named") as error:
        importlib.import_module("keras_embcomp.nothing")
    assert "contents" not in str(error.value)
    found = [f for f in sys.meta_path if isinstance(f, _moved.MovedModules)]
    assert len(found) == 1


def test_budgets_are_public_and_documented():
    for name in budgets.__all__:
        text = getattr(budgets, name).__doc__
        assert text.startswith("Returns"), name
