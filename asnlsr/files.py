"""Outputs that are either whole or absent."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EEXIST, EISDIR, ENOSPC, ENOTDIR
from pathlib import Path


def keep(*outputs: Path, force: bool = False) -> None:
    """Refuse to replace what exists: the one rule for outputs.

    A command that goes on with its own unfinished or finished work looks for that first.

    Parameters
    ----------
    outputs : Path
        Files or folders that are about to be written.
    force : bool
        Replace them.

    Raises
    ------
    FileExistsError
        If one exists and `force` is off; the message names it.
    """
    for path in outputs:
        if path.exists() and not force:
            mend = "exists already; choose another --out, or --force to replace it"
            raise FileExistsError(EEXIST, mend, str(path))


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; remove it, and a folder made for it, at the end.

    The name is fixed, so that what a killed run left behind is removed by the next one.
    """
    made_parent = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    remove(temporary)
    try:
        with naming(path):
            yield temporary
    finally:
        remove(temporary)
        if made_parent:
            with suppress(OSError):  # it holds the output by now
                path.parent.rmdir()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say ``path`` in errors of the operating system that name no file, as those of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes the file ``path`` when the block ends without error.

    Raises
    ------
    IsADirectoryError
        If ``path`` is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(EISDIR, "is a folder; choose the name of a file", str(path))
    with scratch(path) as temporary:
        yield temporary
        temporary.replace(path)


def check_space(path: Path, size: int) -> None:
    """Refuse to begin a file of so many bytes on a disk that has no room for it."""
    folder = next(parent for parent in path.resolve().parents if parent.is_dir())
    if shutil.disk_usage(folder).free < size:
        raise OSError(ENOSPC, os.strerror(ENOSPC), str(path))


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Delete a file or a folder with its content, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def told(error: ValueError | OSError | MemoryError) -> str:
    """Say in one line what is wrong, and with which file."""
    message = str(error)
    if isinstance(error, MemoryError):
        message = f"not enough memory ({error}); choose smaller sizes"
    elif isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror}"
        if error.errno == ENOSPC:
            message += "; free some space or choose another --out"
        if error.strerror in {os.strerror(EEXIST), os.strerror(ENOTDIR)}:
            message += "; a folder is needed here"
    return message
