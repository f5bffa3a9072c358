"""Files and folders that are written whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which is renamed at the end.

    If the body raises, nothing is left behind.

    Args:
        path: File or folder to write, in a folder that exists.

    Raises:
        ValueError: if that folder is missing or cannot be written to.
    """
    path = Path(path)
    try:
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    except OSError as error:
        raise ValueError(
            "`path` must be in a folder that exists and can be written to. "
            f"Received: path={path}"
        ) from error
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder)
