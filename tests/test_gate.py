"""`.ci/run` on machines that differ, made of stubs in a PATH of their own."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = (
    "bash cat cksum cut dirname env grep gzip head mkdir mktemp mv rm sleep "
    "sed sort tail tar touch"
).split()

# Every program of the virtual environment: says what it was asked to do.
PROGRAM = """#!/usr/bin/env bash
echo "${0##*/} $*" >>"$MACHINE/log"
case "$*" in
  *"-m build"*) mkdir -p build/dist && tar -czf build/dist/a.tar.gz .ci ;;
  *"$BROKEN"*) echo "it is broken" && exit 1 ;;
  *"$SLOW"*) touch "$MACHINE/slow" && sleep 500 ;;
esac
"""
PYTHON3 = """#!/usr/bin/env bash
case "$*" in
  *version_info*) echo "$PYTHON_VERSION" ;;
  "-m venv "*)
    mkdir -p "$3/bin"
    [ -e "$MACHINE/bin/python$PYTHON_VERSION-venv" ] || exit 1
    for name in python pip ruff mypy mkdocs lint-imports twine; do
      cat "$MACHINE/program" >"$3/bin/$name"
      chmod +x "$3/bin/$name"
    done
    ;;
esac
"""
# Debian's npm cannot be installed beside a Node.js that brings its own.
APT_GET = """#!/usr/bin/env bash
echo "apt-get $*" >>"$MACHINE/log"
[ "$1" = install ] || exit 0
shift
for package; do
  case $package in
    -*) continue ;;
    npm | "$UNKNOWN") echo "E: unmet dependencies" && exit 100 ;;
    nodejs)
      command=node
      [ "$NODESOURCE" = yes ] && touch "$MACHINE/bin/npm" &&
        chmod +x "$MACHINE/bin/npm"
      ;;
    *) command=$package ;;
  esac
  printf '#!/usr/bin/env bash\\n' >"$MACHINE/bin/$command"
  chmod +x "$MACHINE/bin/$command"
done
"""
ID = '#!/usr/bin/env bash\necho "$USER_ID"\n'
SUDO = """#!/usr/bin/env bash
[ "$1" = -n ] && [ "$SUDO_ASKS" = no ] && shift && USER_ID=0 exec "$@"
exit 1
"""
GCC = """#!/usr/bin/env bash
[ "$1" = --version ] || [ -e "$MACHINE/bin/libc6-dev" ]
"""
EVERYTHING = {
    **dict.fromkeys(("chromium", "node", "npm"), "#!/usr/bin/env bash\n"),
    **dict.fromkeys(("python3.11-venv", "libc6-dev", "true"), "#!/bin/sh\n"),
    "python3": PYTHON3,
    "gcc": GCC,
    "apt-get": APT_GET,
    "id": ID,
}


class Machine:
    """A copy of the scripts, and a PATH with nothing but what is given."""

    def __init__(self, folder, programs):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.project = folder / "project"
        shutil.copytree(ROOT / ".ci", self.project / ".ci")
        (self.project / "setup.cfg").write_text("one\n")
        (folder / "program").write_text(PROGRAM)
        (folder / "log").touch()
        for name in (*TOOLS, "chmod"):
            (self.bin / name).symlink_to(shutil.which(name))
        for name, text in programs.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def start(self, *arguments, **variables):
        return subprocess.Popen(
            [self.bin / "bash", self.project / ".ci/run", *arguments],
            env={
                "PATH": str(self.bin),
                "TMPDIR": str(self.folder),
                "MACHINE": str(self.folder),
                "PYTHON_VERSION": "3.11",
                "BROKEN": "nothing at all",
                "SLOW": "nothing at all",
                "UNKNOWN": "",
                "NODESOURCE": "",
                "USER_ID": "0",
                "SUDO_ASKS": "no",
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments, **variables):
        """Returns the exit status and the lines that were printed."""
        process = self.start(*arguments, **variables)
        told = process.communicate(timeout=300)[0]
        return process.returncode, told.splitlines()

    def asked(self, program):
        lines = (self.folder / "log").read_text().splitlines()
        return [line for line in lines if line.startswith(program)]


@pytest.fixture
def machine(tmp_path):
    def with_programs(*without, **programs):
        kept = {k: v for k, v in EVERYTHING.items() if k not in without}
        return Machine(tmp_path, {**kept, **programs})

    return with_programs


def installed(machine):
    return [
        line.split()[-1]
        for line in machine.asked("apt-get")
        if line.startswith("apt-get install")
    ]


def named(lines, beginning):
    """Returns the names of the steps whose lines begin so."""
    return [
        line.removeprefix(beginning).split()[0].rstrip(":")
        for line in lines
        if line.startswith(f"{beginning} ")
    ]


def test_where_all_is_there_nothing_is_installed(machine):
    machine = machine("apt-get")
    code, lines = machine.run()
    assert code == 0, lines
    assert lines[-1].startswith("All checks")
    steps = named(lines, "ok")
    assert steps[:2] == ["environment", "install"]
    assert {"package", "example-browser", "tests", "coverage"} < set(steps)
    assert re.match(r"Seconds: environment \d+, install \d+, ", lines[-2])
    assert len(steps) == len(lines) - 2


def test_a_browser_is_installed_beside_another_nodejs(machine):
    machine = machine("chromium")
    code, lines = machine.run()
    assert code == 0, lines
    assert installed(machine) == ["chromium"]
    assert "example-browser" in named(lines, "ok")


@pytest.mark.parametrize("name", ["chromium-browser", "google-chrome"])
def test_a_browser_is_known_by_its_other_names(machine, name):
    machine = machine("chromium", **{name: EVERYTHING["chromium"]})
    node = machine.bin / "node"
    node.write_text('#!/usr/bin/env bash\necho "node $*" >>"$MACHINE/log"\n')
    code, lines = machine.run()
    assert code == 0, lines
    assert installed(machine) == []
    assert f"--chromium {machine.bin / name}" in machine.asked("node")[-1]


def test_a_browser_that_does_not_start_is_none(machine):
    machine = machine(
        "chromium", **{"chromium-browser": "#!/usr/bin/env bash\nexit 1\n"}
    )
    assert machine.run()[0] == 0
    assert installed(machine) == ["chromium"]


def test_what_cannot_be_installed_fails_and_the_rest_runs(machine):
    machine = machine("chromium", "gcc")
    code, lines = machine.run(UNKNOWN="chromium")
    assert code == 1
    assert lines[-1] == "FAILED: browser"
    assert "apt-get could not install chromium" in lines
    assert installed(machine) == ["gcc", "chromium"]
    assert named(lines, "left out") == ["example-browser"]
    assert {"compiler", "tests", "tests-tpu"} < set(named(lines, "ok"))


def test_node_without_npm_asks_for_npm_alone(machine):
    machine = machine("npm")
    code, lines = machine.run()
    assert code == 1
    assert installed(machine) == ["npm"]
    assert named(lines, "FAILED") == ["browser"]


def test_nodejs_may_bring_its_own_npm(machine):
    machine = machine("node", "npm")
    code, lines = machine.run(NODESOURCE="yes")
    assert code == 0, lines
    assert installed(machine) == ["nodejs"]


@pytest.mark.parametrize("ci", ["", "true"])
@pytest.mark.parametrize("without", ["apt-get", "sudo", "password"])
def test_who_cannot_install_is_told_what_to_install(machine, without, ci):
    if without == "apt-get":
        machine = machine("apt-get", "chromium", "gcc", "node")
    elif without == "sudo":
        machine = machine("chromium", "gcc", "node")
    else:
        machine = machine("chromium", "gcc", "node", sudo=SUDO)
    code, lines = machine.run(USER_ID="1000", SUDO_ASKS="yes", CI=ci)
    assert "left out compiler: install gcc (Debian, Ubuntu: " in lines[2]
    assert "left out browser: install chromium nodejs (" in lines[8]
    assert named(lines, "left out") == [
        *("compiler", "browser", "example-browser")
    ]
    assert {"example", "tests", "tests-tpu"} < set(named(lines, "ok"))
    assert installed(machine) == []
    if ci:
        assert code == 1
        assert lines[-1] == "CI is set: nothing may be left out."
    else:
        assert code == 0


def test_a_user_with_sudo_installs(machine):
    machine = machine("chromium", "gcc", sudo=SUDO)
    code, lines = machine.run(USER_ID="1000")
    assert code == 0, lines
    assert installed(machine) == ["gcc", "chromium"]


def test_a_compiler_without_headers_gets_them(machine):
    machine = machine("libc6-dev")
    code, lines = machine.run()
    assert code == 0, lines
    assert installed(machine) == ["libc6-dev"]


@pytest.mark.parametrize("root", [True, False])
def test_python_without_venv(machine, root):
    machine = machine("python3.11-venv")
    code, lines = machine.run("quick", USER_ID="0" if root else "1000")
    if root:
        assert code == 0, lines
        assert installed(machine) == ["python3.11-venv"]
        return
    assert code == 1
    assert lines[-2:] == [
        "left out environment: install python3.11-venv (Debian, Ubuntu: "
        "apt-get install python3.11-venv)",
        "Nothing else can run without the step environment.",
    ]


def test_an_old_python_is_refused(machine):
    code, lines = machine().run("quick", PYTHON_VERSION="3.9")
    assert code == 1
    assert "python3 is 3.9: set PYTHON to a Python 3.11 or later" in lines


def test_no_python_is_refused(machine):
    code, lines = machine("python3").run("quick")
    assert code == 1
    assert lines[-2].startswith("install Python 3.11 or later")


def test_a_failure_is_shown_and_the_rest_runs_in_order(machine):
    machine = machine("apt-get")
    code, lines = machine.run(BROKEN="examples/next_word.py")
    assert code == 1
    assert lines[-1] == "FAILED: example-next-word"
    place = next(i for i, x in enumerate(lines) if x.startswith("FAILED   "))
    assert lines[place + 1] == "it is broken"
    assert lines[place - 1].startswith("ok       example-tensor-train")
    assert lines[place + 2].startswith("ok       example-language-model")


def test_quick_does_not_install_again_unless_setup_cfg_changed(machine):
    machine = machine("apt-get")
    for _ in range(2):
        code, lines = machine.run("quick")
        assert code == 0, lines
        assert named(lines, "ok")[-1] == "tests-quick"
    assert len(machine.asked("pip install")) == 1
    (machine.project / "setup.cfg").write_text("two\n")
    machine.run("quick")
    assert len(machine.asked("pip install")) == 2


def test_versions_makes_an_environment_for_each_pair_where_it_is_missing(
    machine,
):
    machine = machine()
    for _ in range(2):
        code, lines = machine.run("versions")
        assert code == 0, lines
    steps = [name.split("-")[0] for name in named(lines, "ok")]
    assert steps == ["install", "install", "tests", "tests"]
    pairs = [
        re.findall("(?:tensorflow|keras)==([0-9.]+)", line)
        for line in machine.asked("pip install")
    ]
    assert len(pairs) == 2, "the second run installs nothing"
    declared = (ROOT / "setup.cfg").read_text()
    for name, version in zip(("tensorflow", "keras"), pairs[0], strict=True):
        assert f"{name}>={version.rpartition('.')[0]},<" in declared
    assert not machine.asked("ruff")


def test_only_known_words_are_taken(machine):
    assert machine().run("quik") == (
        2,
        ["Usage: bash .ci/run [quick | versions]"],
    )


def processes_in(folder):
    return [
        path
        for path in Path("/proc").glob("[0-9]*/cwd")
        if os.path.realpath(path) == str(folder)
    ]


def test_an_interrupted_run_leaves_no_process(machine):
    machine = machine("apt-get")
    process = machine.start(SLOW="examples/next_word.py")
    deadline = time.monotonic() + 300  # a busy machine takes long
    while not (machine.folder / "slow").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    # The pipe closes when the last process that writes to it has ended.
    process.communicate(timeout=120)
    assert process.returncode == 143
    deadline = time.monotonic() + 60  # what was told to end has ended then
    while left := processes_in(machine.project):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
