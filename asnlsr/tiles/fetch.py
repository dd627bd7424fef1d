"""The published dataset, downloaded from a public NextCloud share.

References: RFC 4918 (WebDAV); RFC 9110, section 14 (ranges).
"""

from __future__ import annotations

import glob
import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO
from urllib.parse import quote

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential
from tqdm.auto import tqdm
from webdav4.client import Client, ClientError, ResourceNotFound

from asnlsr.files import check_space, locked, naming, sha256

FOLDERS = {"tiles": "processed_tiles", "radiance": "radiance", "splits": "train_val_splits"}
MANIFEST = "SHA256SUMS"
PASSWORD = "ASNLSR_PASSWORD"  # environment variable
TRIES = 6  # of a file in one call
LONGEST = 600  # seconds that a server may ask to wait

# https, or this machine; a folder of NextCloud; a share's page or its WebDAV address; the token.
ADDRESS = re.compile(
    r"((?i:https)://[^/?#@\s]+|http://(?:localhost|127\.0\.0\.1)(?::\d+)?)((?:/[^/?#\s]+)*?)"
    r"(?:(?:/index\.php)?/s|(/public\.php/dav/files))/([^/?#\s:]+)(?:[/?#].*)?"
)


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


class _Patient(httpx.Client):
    """Asks again after the seconds that a busy server names, as NextCloud does."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401
        for _ in range(TRIES):
            response = super().send(request, **options)
            wait = response.headers.get("Retry-After", "")
            busy = response.status_code in (429, 503) and wait.isdecimal()
            if not busy or int(wait) > LONGEST:
                break
            response.close()
            time.sleep(int(wait))
        return response


def fetch(
    kinds: Sequence[str], out: Path, url: str, dry_run: bool = False, password: str = ""
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
    password : str
        Of the share, if it has one.

    Returns
    -------
    list of RemoteFile
        The files that ``out`` lacked.

    Raises
    ------
    ValueError
        For a link, a listing or a file that is not what it should be.
    PermissionError
        If the share asks for another password.
    OSError
        If the share cannot be reached or trusted, or the disk is too full.
    """
    if unknown := set(kinds) - set(FOLDERS):
        raise ValueError(f"{min(unknown)!r}: must be one of {', '.join(FOLDERS)}")
    with open_share(url, password) as share:
        folders = [FOLDERS[kind] for kind in FOLDERS if kind in (kinds or FOLDERS)]
        files = [file for folder in folders for file in _list_files(share, folder)]
        missing = [file for file in files if not _is_in(out, file)]
        if dry_run:
            return missing
        parts = [part for file in missing if (part := file.part(out)).exists()]
        there = sum(part.stat().st_size for part in parts)
        check_space(out / MANIFEST, sum(file.size for file in missing) - there)
        out.mkdir(parents=True, exist_ok=True)
        with (
            locked(out / MANIFEST),
            (out / MANIFEST).open("a+", encoding="utf-8", errors="replace") as manifest,
            tqdm(total=sum(f.size for f in files), desc="fetch", unit="B", unit_scale=True) as bar,
        ):
            checksums = _read(manifest)
            for file in files:
                checksum = _obtain(share, file, out, checksums.get(file.path), bar)
                if file.path not in checksums:
                    print(f"{checksum}  {file.path}", file=manifest, flush=True)
    return missing


@contextmanager
def open_share(url: str, password: str = "") -> Iterator[Client]:
    """Yield a WebDAV client whose base is the root of a public share.

    Raises
    ------
    ValueError
        If ``url`` is not the link of a share.
    OSError
        In the block, instead of the client's errors: in plain words why a request failed.
    """
    if (match := ADDRESS.fullmatch(url.strip())) is None:
        raise ValueError(f"--url {url}: must be as https://HOST/index.php/s/TOKEN")
    host, folder, files, token = match.groups()
    root = host + folder
    base = f"{root}{files}/{token}" if files else f"{root}/public.php/webdav"
    # Without this header NextCloud shows a public share only where federation is on.
    headers = {"X-Requested-With": "XMLHttpRequest"}
    try:
        with _Patient(auth=(token, password), headers=headers, timeout=30, max_redirects=0) as http:
            yield Client(base, http_client=http)
    except ResourceNotFound as error:
        raise FileNotFoundError(f"{url}: the share has no {error.path!r}") from error
    except (ClientError, httpx.HTTPError) as error:
        if getattr(error, "status_code", 0) == 401 or "401 Unauthorized" in str(error):
            fault = "wrong password" if password else "no such share, or one with a password"
            mend = f"401, {fault}: give --password, or set {PASSWORD}"
            raise PermissionError(f"{url}: {mend}") from None
        raise ConnectionError(f"{url}: {error!r}; the same command goes on") from error


def _list_files(share: Client, folder: str) -> Iterator[RemoteFile]:
    """Yield the files below a folder of the share, and refuse a path that would leave it."""
    try:  # one folder at a time, because NextCloud refuses to list a whole tree
        entries = share.ls(quote(folder), detail=True)
    except (ValueError, SyntaxError, AssertionError, httpx.InvalidURL) as error:
        raise ValueError(f"{folder}: the server's answer is not the listing of a folder") from error
    for entry in sorted(entries, key=lambda entry: entry["name"]):
        parent, _, name = entry["name"].rpartition("/")
        is_folder = entry["type"] == "directory"
        size = 0 if is_folder else entry["content_length"]
        strange = name in (".", "..") or "\\" in name or not name.isprintable()
        if parent != folder or strange or size is None or size < 0:
            raise ValueError(f"{folder}: the server lists {entry['href']!r}, no file that is in it")
        if is_folder:
            yield from _list_files(share, entry["name"])
        else:
            yield RemoteFile(entry["name"], size, entry["etag"] or "")


def _is_in(out: Path, file: RemoteFile) -> bool:
    """Tell whether a file is there; refuse one of another size."""
    path = out / file.path
    if path.exists() and (size := path.stat().st_size) != file.size:
        raise ValueError(f"{path}: {size} bytes, in the share {file.size}; delete it")
    return path.exists()


def _read(manifest: TextIO) -> dict[str, str]:
    """Return the SHA-256 of every recorded path."""
    manifest.seek(0)
    lines = [re.fullmatch(r"([0-9a-f]{64})  (.+)\n", line) for line in manifest]
    if None in lines:
        raise ValueError(f"{manifest.name}: line {lines.index(None) + 1} is no checksum; delete it")
    return {line[2]: line[1] for line in lines if line}


def _obtain(
    share: Client, file: RemoteFile, out: Path, recorded: str | None, bar: tqdm[NoReturn]
) -> str:
    """Bring a file to its place, unless it is there, and return its verified SHA-256."""
    path, part = out / file.path, file.part(out)
    came = not path.exists()
    if came:
        path.parent.mkdir(parents=True, exist_ok=True)
        with naming(path), part.open("ab") as handle:
            bar.update(handle.tell())
            if handle.tell() < file.size:
                _append(share, file, handle, bar)
    else:
        bar.update(file.size)
    checksum = sha256(part if came else path)
    if checksum != (recorded or checksum):
        part.unlink(missing_ok=True)
        raise ValueError(f"{path}: not as {MANIFEST} says; delete it, or its line to accept it")
    if came:
        part.replace(path)
    for older in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        older.unlink()
    return checksum


@retry(
    retry=retry_if_exception_type(httpx.HTTPError),
    stop=stop_after_attempt(TRIES),
    wait=wait_exponential(),
    reraise=True,
)
def _append(share: Client, file: RemoteFile, handle: BinaryIO, bar: tqdm[NoReturn]) -> None:
    """Append to ``handle`` what it lacks of a file; what came before a failure stays in it."""
    position = handle.tell()
    headers = {"Accept-Encoding": "identity"}
    if position:  # the rest of the listed version, or all of another one
        headers |= {"Range": f"bytes={position}-", "If-Range": file.etag}
    with share.http.stream("GET", share.join_url(quote(file.path)), headers=headers) as response:
        response.raise_for_status()
        if position and response.status_code != 206:  # the server sends it from the start
            bar.update(-position)
            handle.truncate(handle.seek(0))
        for block in response.iter_raw():
            if handle.tell() + len(block) > file.size:
                handle.truncate(0)
                raise ValueError(f"{file.path}: the server sends more than {file.size} bytes")
            bar.update(handle.write(block))
    if handle.tell() < file.size:
        raise httpx.RemoteProtocolError(f"{file.path}: the connection ended early")
