"""Outputs that are either whole or absent."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import EEXIST, EISDIR, ENOLCK, ENOSPC, ENOTDIR, EOPNOTSUPP
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from pydantic import ValidationError

# What a file of this program holds near its beginning, by its suffix.
_MARKS = {".hdr": "asnlsr bytes", ".png": "asnlsr", ".json": '"source_train"|"config"'}


def ours(path: Path) -> bool:
    """Tell whether this program wrote a file or folder, by a mark in it or in what describes it."""
    mark = _MARKS.get(path.suffix, "")
    if path.suffix == ".zarr":
        path, mark = path / ".zattrs", '"border"'
    elif path.suffix == ".safetensors":
        path, mark = path.with_name("run.json"), '"config"'
    elif path.suffix == ".npz":  # of a simulated scene
        path, mark = path.with_suffix(".hdr"), _MARKS[".hdr"]
    elif path.suffix == ".img" and path.is_file():  # raw numbers, so many as its header says
        path, mark = path.with_suffix(".hdr"), f"asnlsr bytes = {path.stat().st_size}\n"
    if not mark or not path.is_file():
        return False
    with path.open("rb") as file:
        return re.search(mark.encode(), file.read(1 << 20)) is not None


def keep(*named: Path, beside: Iterable[Path] = (), force: bool = False) -> None:
    """Refuse to replace what exists: the one rule for outputs.

    A command that goes on with its own unfinished or finished work looks for that first.

    Parameters
    ----------
    named : Path
        Files or folders that the user has named as output.
    beside : iterable of Path
        What is written too, under a name that follows from that.
    force : bool
        Replace what is named, and beside it only what this program wrote.

    Raises
    ------
    FileExistsError
        If one exists that is not to be replaced; the message names it.
    """
    for path in (*named, *beside):
        replaceable = path in named or ours(path)
        if os.path.lexists(path) and not (force and replaceable):
            mend = "or --force to replace it" if replaceable else "asnlsr did not write it"
            told = f"exists already; choose another --out, {mend}"
            raise FileExistsError(EEXIST, told, str(path))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let no other call write `path` meanwhile, not even one that was killed.

    A folder made for it is removed at the end if nothing came into it.

    Raises
    ------
    BlockingIOError
        If another call is writing it.
    """
    made_parent = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        mend = "another asnlsr is writing there; wait for its end"
        raise BlockingIOError(f"{path}: {mend}") from None
    except OSError as error:
        if error.errno not in (ENOLCK, EOPNOTSUPP):  # a file system without locks
            raise
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        if made_parent:
            with suppress(OSError):  # it holds the output by now
                path.parent.rmdir()


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, locked meanwhile; remove it at the end.

    The name is fixed, so that what a killed run left behind is removed by the next one.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with locked(path), naming(path):
        remove(temporary)
        try:
            yield temporary
        finally:
            remove(temporary)


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
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask will have it, whoever writes it how
        yield temporary
        temporary.chmod(mode)
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


def fault(error: ValidationError) -> str:
    """Say in one line what is wrong first with fields that were read: name, value, reason."""
    first = error.errors()[0]
    value = f" = {first['input']}" if isinstance(first["input"], str | int | float) else ""
    field = ".".join(map(str, first["loc"])) + value
    reason = str(first.get("ctx", {}).get("error", first["msg"]))
    return f"{field}: {reason}" if field else reason


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
