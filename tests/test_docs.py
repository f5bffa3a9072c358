"""Every code block of the README and every docstring example is run."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_embcomp
from keras_embcomp import budgets

ROOT = Path(__file__).parent.parent
MODULES = [
    module.name
    for module in pkgutil.walk_packages(
        keras_embcomp.__path__, "keras_embcomp."
    )
]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCKS = {
    page.name: re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    for page in PAGES
}


@pytest.mark.parametrize("page", [name for name in BLOCKS if BLOCKS[name]])
@pytest.mark.tensorflow_only
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS[page]:  # later blocks build on earlier ones
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_hold(name):
    module = importlib.import_module(name)
    names = {"np": np, "keras": keras, **vars(keras_embcomp)}
    shape = doctest.OutputChecker.check_output

    class Checker(doctest.OutputChecker):
        def check_output(self, want, got, flags):
            # The backends print shapes as tuples and as `TensorShape`s.
            got = re.sub(r"TensorShape\(\[(.*)\]\)", r"(\1)", got)
            return shape(self, want, got, flags)

    runner = doctest.DocTestRunner(checker=Checker())
    for test in doctest.DocTestFinder().find(module, extraglobs=names):
        runner.run(test)
    assert runner.failures == 0


def test_every_public_name_is_in_the_reference():
    pages = [path.read_text() for path in ROOT.glob("docs/api/*.md")]
    found = re.findall(r"^::: keras_embcomp\.(\S+)$", "\n".join(pages), re.M)
    assert len(set(found)) == len(found)
    assert set(keras_embcomp.__all__) <= set(found)
    assert {f"budgets.{name}" for name in budgets.__all__} <= set(found)


# The pages of the site are checked by MkDocs; these are read elsewhere.
@pytest.mark.parametrize(
    "name",
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"],
)
def test_links_lead_to_files_and_headings(name):
    text = (ROOT / name).read_text()
    for target, anchor in re.findall(
        r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", text
    ):
        path = ROOT / target if target else ROOT / name
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
            assert anchor in {slug(heading) for heading in headings}, anchor


def slug(heading):
    """Returns the anchor that code hosts and MkDocs give a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


def test_every_public_name_has_a_docstring_with_its_arguments():
    for name in keras_embcomp.__all__:
        text = getattr(keras_embcomp, name).__doc__
        assert "Args:" in text, name
