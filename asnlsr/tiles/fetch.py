"""A public NextCloud share: its address, the files in it, and the bytes of a file.

References: RFC 4918 (WebDAV); RFC 9110, section 14 (ranges).
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx
from tqdm.auto import tqdm
from webdav4.client import Client, ClientError, ResourceNotFound

from asnlsr.files import naming

SHARE = "https://nextcloud.rma.ac.be/index.php/s/DtbtLjTqcFpETWB"

# https, or this machine; a folder of NextCloud; a share's page or its WebDAV address; the token.
ADDRESS = re.compile(
    r"((?:https://[^/?#@]+|http://(?:localhost|127\.0\.0\.1)(?::\d+)?)(?:/[^/?#]+)*?)"
    r"(?:(?:/index\.php)?/s|(/public\.php/dav/files))/(\w+)(?:[/?].*)?"
)
Advance = Callable[[int], None]  # takes a number of bytes


@dataclass(frozen=True)
class RemoteFile:
    """A file of the share: path from the share's root, size in bytes, version tag."""

    path: str
    size: int
    etag: str

    def part(self, out: Path) -> Path:
        """Return where its bytes gather; another version of the file gathers elsewhere."""
        version = hashlib.sha256(f"{self.size} {self.etag}".encode()).hexdigest()[:8]
        return out / f"{self.path}.{version}.part"

    def is_in(self, out: Path) -> bool:
        """Tell whether it is in a folder; refuse a file of another size there."""
        path = out / self.path
        if path.exists() and (size := path.stat().st_size) != self.size:
            told = f"has {size} bytes, in the share {self.size}"
            raise ValueError(f"{path}: {told}; delete it to fetch it again")
        return path.exists()


@contextmanager
def open_share(url: str) -> Iterator[Client]:
    """Yield a WebDAV client whose base is the root of a public share.

    Raises
    ------
    ValueError
        If ``url`` is not the link of a share.
    OSError
        In the block, instead of the client's errors: in plain words why a request failed.
    """
    if (match := ADDRESS.fullmatch(url)) is None:
        raise ValueError(f"--url {url}: must be the link of a share, such as {SHARE}")
    root, files, token = match.groups()
    base = f"{root}{files}/{token}" if files else f"{root}/public.php/webdav"
    # Without this header NextCloud shows a public share only where federation is on.
    headers = {"X-Requested-With": "XMLHttpRequest"}
    try:
        with httpx.Client(auth=(token, ""), headers=headers, timeout=30) as http:
            yield Client(base, http_client=http)
    except ResourceNotFound as error:
        raise FileNotFoundError(f"{url}: the share has no {error.path!r}") from error
    except (ClientError, httpx.HTTPError) as error:
        raise ConnectionError(f"{url}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Say in one line why a request failed."""
    if (response := getattr(error, "response", None)) is not None:
        if response.status_code in (401, 403):
            return "the server refuses the token; copy the link of the share again"
        return f"the server answers {response.status_code} {response.reason_phrase}"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"the certificate of the server does not verify, nothing was fetched ({error})"
    return f"{error or type(error).__name__}; run the same command again to go on"


def list_files(share: Client, folder: str) -> Iterator[RemoteFile]:
    """Yield the files in a folder of the share and in the folders below it.

    Raises
    ------
    ValueError
        If the answer is no listing, lacks a size or names a path outside of the folder.
    """
    try:  # one folder at a time, because NextCloud refuses to list a whole tree
        found = share.propfind(quote(folder), headers={"Depth": "1"}).responses
    except (ValueError, SyntaxError, AssertionError, LookupError, httpx.InvalidURL) as error:
        raise ValueError(f"{folder}: the server's answer is not the listing of a folder") from error
    here = f"{share.base_url.path}/{folder}"
    for path, entry in sorted(found.items()):
        parent, _, name = path.rpartition("/")
        if path == here:
            continue
        if parent != here or name in (".", "..") or "\\" in name or not name.isprintable():
            raise ValueError(f"{folder}: the server lists {entry.href!r}, which is not inside it")
        if entry.properties.collection:
            yield from list_files(share, f"{folder}/{name}")
        elif (size := entry.properties.content_length) is None or size < 0:
            raise ValueError(f"{folder}/{name}: the server does not tell its size")
        else:
            yield RemoteFile(f"{folder}/{name}", size, entry.properties.etag or "")


def append(share: Client, file: RemoteFile, handle: BinaryIO, advance: Advance) -> None:
    """Append to ``handle`` what it lacks of a file, as far as one request brings it.

    Raises
    ------
    ValueError
        If the server sends more or fewer bytes than it listed.
    httpx.HTTPError
        If the request fails or the connection is lost; what came before is in ``handle``.
    """
    position = handle.tell()
    headers = {"Accept-Encoding": "identity"}
    if position:
        headers["Range"] = f"bytes={position}-"
        if file.etag:  # the rest of the listed version, or all of another one
            headers["If-Range"] = file.etag
    with share.http.stream("GET", share.join_url(quote(file.path)), headers=headers) as response:
        response.raise_for_status()
        if position and response.status_code != 206:  # the server sends it from the start
            advance(-position)
            handle.truncate(0)
            position = handle.seek(0)
        length = int(response.headers.get("Content-Length", file.size - position))
        if position + length != file.size:
            sent = position + length
            raise ValueError(f"{file.path}: the server lists {file.size} bytes and sends {sent}")
        for block in response.iter_raw():
            if (position := position + len(block)) > file.size:
                raise ValueError(
                    f"{file.path}: the server sends more than the {file.size} bytes listed"
                )
            advance(len(block))
            handle.write(block)
    if position < file.size:
        raise httpx.RemoteProtocolError("the connection ended early")


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
