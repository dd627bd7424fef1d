"""A public NextCloud share: its address, the files in it, and the bytes of a file.

References: RFC 4918 (WebDAV); RFC 9110, section 14 (ranges).
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx
from webdav4.client import Client, ClientError, ResourceNotFound

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
