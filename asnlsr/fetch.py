"""The published dataset from its public NextCloud share, through WebDAV.

Folders and files keep the names of the share. ``SHA256SUMS`` beside them is for ``sha256sum -c``.
"""

import errno
import fcntl
import glob
import hashlib
import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import httpx
from tqdm.auto import tqdm
from webdav4.client import Client

from asnlsr.files import naming
from asnlsr.share import SHARE, Advance, RemoteFile, append, list_files, open_share

FOLDERS = {"tiles": "processed_tiles", "radiance": "radiance", "splits": "train_val_splits"}
MANIFEST = "SHA256SUMS"
PARALLEL = 4  # files at a time
TRIES = 5  # attempts in a row that bring a file no further
PAUSE_S = 1.0  # before the next attempt, doubled after each


def fetch(
    kinds: Sequence[str], out: Path, url: str = SHARE, dry_run: bool = False
) -> list[RemoteFile]:
    """Download what a folder lacks, go on with what was interrupted, verify the rest.

    Parameters
    ----------
    kinds : sequence of str
        Some of ``tiles``, ``radiance`` and ``splits``; all three if empty.
    out : Path
        Folder that gets the folders of the share. Files put there by hand are taken over.
    url : str
        ``https://HOST/index.php/s/TOKEN`` or ``https://HOST/public.php/dav/files/TOKEN``.
    dry_run : bool
        Write nothing.

    Returns
    -------
    list of RemoteFile
        The files that ``out`` lacked.

    Raises
    ------
    ValueError
        For a link, a listing or a file that is not what it should be.
    OSError
        If the share cannot be reached or trusted, or the disk is too full.
    """
    if unknown := set(kinds) - set(FOLDERS):
        raise ValueError(f"{min(unknown)!r}: must be one of {', '.join(FOLDERS)}")
    with open_share(url) as share:
        folders = [FOLDERS[kind] for kind in FOLDERS if kind in (kinds or FOLDERS)]
        files = [file for folder in folders for file in list_files(share, folder)]
        missing = [file for file in files if not file.is_in(out)]
        if not dry_run:
            _require_space(missing, out)
            _obtain_all(share, files, out)
    return missing


def _require_space(missing: list[RemoteFile], out: Path) -> None:
    """Refuse what the disk cannot hold."""
    parts = [file.part(out) for file in missing]
    needed = sum(file.size for file in missing)
    needed -= sum(part.stat().st_size for part in parts if part.exists())
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if needed > (free := shutil.disk_usage(folder).free):
        lack = f"{needed / 1e9:.3f} GB to fetch, {free / 1e9:.3f} GB free"
        raise OSError(errno.ENOSPC, lack, str(out))


def _obtain_all(share: Client, files: list[RemoteFile], out: Path) -> None:
    """Fetch or verify files side by side; record each checksum when its file is there."""
    stop, lock = threading.Event(), threading.Lock()
    size = sum(file.size for file in files)
    with (
        _manifest(out) as (checksums, record),
        tqdm(total=size, desc="fetch", unit="B", unit_scale=True) as bar,
        ThreadPoolExecutor(PARALLEL) as pool,
    ):

        def advance(n_bytes: int) -> None:
            if stop.is_set():
                raise InterruptedError("another file failed")
            with lock:
                bar.update(n_bytes)

        try:
            jobs = {
                pool.submit(_obtain, share, file, out, checksums.get(file.path), advance): file.path
                for file in files
            }
            for job in as_completed(jobs):
                if job.result() != checksums.get(jobs[job]):
                    record.write(f"{job.result()}  {jobs[job]}\n".encode())
                    record.flush()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


@contextmanager
def _manifest(out: Path) -> Iterator[tuple[dict[str, str], BinaryIO]]:
    """Yield the SHA-256 of every recorded path and the file to append to; lock out others."""
    out.mkdir(parents=True, exist_ok=True)
    with naming(out / MANIFEST), (out / MANIFEST).open("a+b") as record:
        try:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{out}: another asnlsr fetch is writing there") from None
        record.seek(0)
        checksums = {}
        for number, line in enumerate(record.read().decode(errors="replace").splitlines(True), 1):
            if (entry := re.fullmatch(r"([0-9a-f]{64})  (.+)\n", line)) is None:
                raise ValueError(f"{out / MANIFEST}: line {number} is no checksum; delete it")
            checksums[entry[2]] = entry[1]
        yield checksums, record


def _obtain(
    share: Client, file: RemoteFile, out: Path, recorded: str | None, advance: Advance
) -> str:
    """Bring a file to its place, unless it is there, and return its verified SHA-256."""
    path, part = out / file.path, file.part(out)
    if path.exists():
        if (checksum := _sha256(path, advance)) != (recorded or checksum):
            raise ValueError(f"{path}: not as {MANIFEST} says; delete it to fetch it again")
        return checksum
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(path), part.open("ab") as handle:
            advance(handle.tell())
            _download(share, file, handle, advance)
        if (checksum := _sha256(part)) != (recorded or checksum):
            mend = "delete its line there to accept it"
            raise ValueError(f"{path}: the share sends another file than {MANIFEST} says; {mend}")
    except ValueError:
        part.unlink()
        raise
    part.replace(path)
    for stale in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"):  # older
        stale.unlink()
    return checksum


def _sha256(path: Path, advance: Advance = lambda n_bytes: None) -> str:
    """Return the SHA-256 of a file and tell of every block read."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(2**20):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


def _download(share: Client, file: RemoteFile, handle: BinaryIO, advance: Advance) -> None:
    """Append what a part lacks, through lost connections as long as there is progress."""
    farthest, failures = handle.tell(), 0
    while handle.tell() < file.size:
        try:
            append(share, file, handle, advance)
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            response = getattr(error, "response", None)
            final = response is not None and response.status_code < 500
            failures = 0 if handle.tell() > farthest else failures + 1
            if final or failures == TRIES:
                raise
            farthest = max(farthest, handle.tell())
            time.sleep(PAUSE_S * 2**failures)
