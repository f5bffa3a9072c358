"""Files and folders that are written whole or not at all."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = ".writing-"
_DAY = 24 * 60 * 60
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_OWNER = re.compile(
    _PREFIX.replace(".", r"\.") + r"([0-9a-f]{12})-(\d+)-(\d+)-"
)


def checked_path(path: str | os.PathLike) -> Path:
    """Returns the path of a file to write, or raises `ValueError`."""
    path = Path(path).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            "`path` must be a file in a folder that exists. "
            f"Received: path={path}"
        )
    return path


@contextlib.contextmanager
def written_whole(
    path: str | os.PathLike, overwrite: bool = True
) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which is renamed at the end.

    If the body raises, nothing is left behind. What a killed process left
    behind in that folder is removed.

    Args:
        path: File or folder to write, in a folder that exists.
        overwrite: Whether a file that is there at the end is replaced. A
            folder that is not empty never is.

    Raises:
        ValueError: if that folder is missing or cannot be written to, or
            something is in the way at the end.
    """
    path = Path(path)
    try:
        _remove_leftovers(path.parent)
        folder = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
    except OSError as error:
        raise ValueError(
            "`path` must be in a folder that exists and can be written to. "
            f"Received: path={path} ({error.strerror})"
        ) from error
    try:
        yield folder / path.name
        _move(folder / path.name, path, overwrite)
    except OSError as error:
        if error.errno in _FULL:  # says which file, not which temporary one
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(source, target, overwrite):
    """Renames a file or a folder in one step, or says what is in the way."""
    try:
        if overwrite or source.is_dir():
            os.replace(source, target)
        else:
            _link(source, target)
    except OSError as error:
        taken = (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR)
        if error.errno not in taken:
            raise
        raise ValueError(
            f"`path` must be free. Received: path={target}, which exists by now"
        ) from error


def _link(source, target):
    """Gives a file its name, unless that is taken."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists", target) from None
        os.replace(source, target)


def _prefix():
    """Returns how the name of a folder begins that this process writes in."""
    pid = os.getpid()
    return f"{_PREFIX}{_machine()}-{pid}-{_started(pid) or 0}-"


def _remove_leftovers(folder):
    """Removes what was begun in a folder and will never be renamed."""
    for entry in os.scandir(folder):
        if entry.name.startswith(_PREFIX) and _is_left(entry):
            shutil.rmtree(entry.path, ignore_errors=True)


def _is_left(entry):
    """Returns whether nobody writes in a temporary folder any more.

    The process is looked up where its name can be understood: on the machine
    and in the container that it ran on, since their last start. Elsewhere a
    day must be enough.
    """
    owner = _OWNER.match(entry.name)
    if owner is None or owner[1] != _machine() or os.name != "posix":
        return _age(entry) > _DAY
    pid, started = int(owner[2]), int(owner[3])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it belongs to somebody else, and runs
        pass
    # Numbers of processes are used again.
    return started != (_started(pid) or 0)


def _age(entry):
    """Returns the seconds since anything was written in a folder."""
    latest = 0.0
    for path in (Path(entry.path), *Path(entry.path).rglob("*")):
        with contextlib.suppress(OSError):
            latest = max(latest, path.stat().st_mtime)
    return time.time() - latest


def _machine():
    """Returns 12 digits for what numbers processes: it differs after a start.

    Two containers on one machine number theirs alike, hence the namespace.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _started(pid):
    """Returns when a process started, in ticks, or `None` if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        # The second field is a name in brackets, with any characters in it.
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
