"""What is written is there as a whole, or not at all."""

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from keras_embcomp import files
from keras_embcomp.files import written_whole


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def leftover(folder, name, age=0.0):
    """Makes what a process leaves that is killed while it writes."""
    made = folder / name
    made.mkdir()
    (made / "model.keras").write_text("half")
    then = time.time() - age
    for path in (made / "model.keras", made):
        os.utime(path, (then, then))
    return made


def ended_process():
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        check=True,
    )
    return int(done.stdout)


def write(path, text="whole", **kwargs):
    with written_whole(path, **kwargs) as temporary:
        temporary.write_text(text)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError, MemoryError])
def test_nothing_is_left_of_what_fails(tmp_path, kind):
    (tmp_path / "a").write_text("old")
    with pytest.raises(kind), written_whole(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise kind
    assert names_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_full_disk_is_named_by_the_file(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(OSError) as refusal, written_whole(path):
        raise OSError(errno.ENOSPC, "No space left on device", "temporary")
    assert str(refusal.value) == (
        f"[Errno 28] No space left on device: '{path}'"
    )
    assert names_in(tmp_path) == []


def test_leftovers_of_a_process_that_is_gone_are_removed(tmp_path):
    machine, pid = files._machine(), ended_process()
    leftover(tmp_path, f".writing-{machine}-{pid}-123-abc")
    # The number is in use, by a process that started at another time.
    leftover(tmp_path, f".writing-{machine}-{os.getpid()}-1-abc")
    leftover(tmp_path, f".writing-{'0' * 12}-{pid}-123-old", age=90_000)
    leftover(tmp_path, ".writing-abcdefgh", age=90_000)  # of older releases
    write(tmp_path / "a")
    assert names_in(tmp_path) == ["a"]


def test_what_may_still_be_written_stays(tmp_path):
    (tmp_path / ".writing-notes").write_text("a file")
    mine = files._prefix() + "abc"
    leftover(tmp_path, mine, age=9_000_000)  # this process lives
    other = f".writing-{'0' * 12}-{ended_process()}-123-new"
    leftover(tmp_path, other, age=80_000)  # of another machine, below a day
    fresh = ".writing-abcdefgh"
    old = leftover(tmp_path, fresh, age=90_000)
    (old / "inner").mkdir()  # something was written in it just now
    write(tmp_path / "a")
    expected = sorted(["a", ".writing-notes", mine, other, fresh])
    assert names_in(tmp_path) == expected


def test_a_live_process_of_somebody_else_is_left_alone(tmp_path, monkeypatch):
    def not_permitted(pid, signal):
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_permitted)
    leftover(tmp_path, files._prefix() + "abc")
    write(tmp_path / "a")
    assert len(names_in(tmp_path)) == 2


KILLED = """
import os, runpy, sys
with runpy.run_path(sys.argv[1])["written_whole"](sys.argv[2]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_the_next_write_removes_what_a_kill_left(tmp_path):
    write(tmp_path / "a", "old")
    command = [sys.executable, "-c", KILLED, files.__file__, tmp_path / "a"]
    assert subprocess.run(command).returncode == -9
    assert len(names_in(tmp_path)) == 2  # the file and the leftover
    assert (tmp_path / "a").read_text() == "old"
    write(tmp_path / "b")
    assert names_in(tmp_path) == ["a", "b"]


def test_without_overwrite_the_first_wins(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(ValueError, match="`path` must be free. Received: "):
        with written_whole(path, overwrite=False) as temporary:
            temporary.write_text("late")
            path.write_text("first")
    assert path.read_text() == "first"
    write(path, "second")
    assert path.read_text() == "second"
    assert names_in(tmp_path) == ["a"]


def test_without_hard_links_a_file_is_renamed(tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", no_links)
    write(tmp_path / "a", overwrite=False)
    assert (tmp_path / "a").read_text() == "whole"
    with pytest.raises(ValueError, match="which exists by now"):
        write(tmp_path / "a", "other", overwrite=False)
    assert (tmp_path / "a").read_text() == "whole"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_is_never_replaced(tmp_path, overwrite):
    target = tmp_path / "1"
    with pytest.raises(ValueError, match="which exists by now"):
        with written_whole(target, overwrite) as temporary:
            temporary.mkdir()
            (temporary / "new").write_text("new")
            target.mkdir()
            (target / "old").write_text("old")
    assert names_in(tmp_path) == ["1"]
    assert names_in(target) == ["old"]
    with pytest.raises(ValueError, match="which exists by now"):
        write(target, overwrite=overwrite)  # a file


def test_of_three_at_once_each_is_whole_or_says_so(tmp_path):
    barrier, refusals = threading.Barrier(3), []

    def one(number):
        try:
            with written_whole(tmp_path / "1") as temporary:
                temporary.mkdir()
                for name in "ab":
                    (temporary / name).write_text(str(number))
                barrier.wait()
        except ValueError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refusals) == 2
    assert all("exists by now" in text for text in refusals)
    assert names_in(tmp_path) == ["1"]
    texts = {(tmp_path / "1" / name).read_text() for name in "ab"}
    assert len(texts) == 1
