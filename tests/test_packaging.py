"""What is published: one package in the wheel, and tests that can run."""

import configparser
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import keras_embcomp

ROOT = Path(__file__).parent.parent
# The folders whose files tests import, run or read.
SHIPPED = (
    *(".ci", "benchmarks", "docs", "examples", "saved_models", "tests"),
    "keras_embcomp",
)
NAMES = ("CHANGELOG.md", "MANIFEST.in", "README.md", "pyproject.toml")
# What runs leave behind, as in `.gitignore`.
LEFT_BEHIND = re.compile(
    r"__pycache__|\.pyc$|node_modules/|browser/build/|run-|benchmarks/results/"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Returns the files and the metadata of the sdist, then of the wheel.

    The wheel is built from the sdist, so what the sdist lacks it lacks too.
    """
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "build", "--no-isolation"),
            *("--outdir", str(folder), str(ROOT)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        members = [m for m in archive.getmembers() if m.isfile()]
        sdist = {m.name.split("/", 1)[1] for m in members}
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        wheel = set(archive.namelist())
        name = next(n for n in wheel if n.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    return sdist, wheel, metadata


def files_under(*folders):
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and not LEFT_BEHIND.search(path.relative_to(ROOT).as_posix())
    }


def test_the_sdist_brings_its_tests_and_all_that_they_read(built):
    sdist = built[0]
    missing = (files_under(*SHIPPED) | set(NAMES)) - sdist
    assert missing == set()
    left_behind = [name for name in sdist if LEFT_BEHIND.search(name)]
    assert left_behind == []


def test_the_wheel_is_the_package_and_its_command(built):
    wheel = built[1]
    kept = {name for name in wheel if ".dist-info/" not in name}
    command = {"keras_embcomp_command.py"}
    assert kept == files_under("keras_embcomp") | command
    assert "keras_embcomp/py.typed" in kept


def test_the_metadata_is_complete(built):
    metadata = built[2]
    assert metadata["Version"] == keras_embcomp.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "The keras_embcomp authors"
    assert metadata["Description-Content-Type"] == "text/markdown"
    beginnings = {
        classifier.split(" :: ")[0]
        for classifier in metadata.get_all("Classifier")
    }
    assert beginnings >= {
        *("Development Status", "Intended Audience", "Operating System"),
        *("Programming Language", "Topic", "Typing"),
    }


def test_the_page_on_an_index_has_no_dead_links(built):
    text = built[2].get_payload()
    assert text.startswith("# keras_embcomp")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert [t for t in targets if not t.startswith("https://")] == []
    softmaxes = {n for n in keras_embcomp.__all__ if n.endswith("Softmax")}
    assert softmaxes == set(re.findall(r"`(\w+Softmax)`", text))


def test_every_test_tool_has_a_tested_range():
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    tools = [
        line
        for line in config["options.extras_require"]["test"].split()
        if not line.startswith(("%", "setuptools"))  # TensorFlow's need too
    ]
    assert len(tools) > 10
    assert [line for line in tools if not re.search(r"<\d", line)] == []


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {keras_embcomp.__version__}\n" in text
    assert set(re.findall(r"arxiv\.org/abs/([\d.]+)", text)) == {
        *("1711.09873", "1806.06950", "1811.00641", "1901.10787"),
        "1910.06720",
    }
