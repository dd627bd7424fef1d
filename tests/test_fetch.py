"""Download from a public share: a real WebDAV server here, with the addresses of NextCloud."""

import base64
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import trustme
from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server
from wsgidav.wsgidav_app import WsgiDAVApp

from asnlsr.tiles.fetch import MANIFEST, SHARE, fetch, open_share
from tests.test_cli import assert_refused

TOKEN = "a1b2c3d4e5f6g7h"  # in lower case, as wsgidav wants its addresses
CONTENT = {
    "processed_tiles/swir_park_dom1_x4/park 1_N0_SUBTILE.mat": b"a" * 5000,
    "processed_tiles/swir_park_dom1_x4/100%25 #1?_N1_SUBTILE.mat": b"b" * 7000,  # hard to quote
    "processed_tiles/swir_park_dom2_x4/parc_é_N0_SUBTILE.mat": b"c" * 6000,
    "radiance/scene.hdr": b"ENVI\n",
    "radiance/scene.img": bytes(range(251)) * 12_000,  # 3 MB; no two blocks are alike
    "radiance/empty.img": b"",
    "train_val_splits/swir1_sisr_swir2_val.npz": b"d" * 900,
}
IMG = "radiance/scene.img"


class Share:
    """What the server is asked for, and how it misbehaves."""

    def __init__(self, folder, app):
        self.folder, self.app = folder, app
        self.requests = []  # (method, path, headers)
        self.cuts = []  # bytes after which the next downloads of IMG lose their connection
        self.held = None  # event to wait for instead of losing the connection
        self.ignores_range = False
        self.chunked = False  # downloads do not tell their length
        self.rewrite = lambda body: body  # of listings
        self.status = None  # the answer to everything, such as "302 Found"

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        path = path.encode("latin-1").decode()
        names = ("RANGE", "IF_RANGE", "AUTHORIZATION", "X_REQUESTED_WITH", "DEPTH")
        self.requests.append((method, path, {n: environ.get(f"HTTP_{n}") for n in names}))
        if self.status:
            start_response(
                self.status, [("Location", "http://127.0.0.1:9/"), ("Content-Length", "0")]
            )
            return []
        if self.ignores_range:
            environ.pop("HTTP_RANGE", None)
        if method == "PROPFIND":
            return self.list(environ, start_response)
        return self.send(environ, start_response)

    def list(self, environ, start_response):
        answer = {}

        def start(status, headers, exc_info=None):
            answer.update(status=status, headers=dict(headers))

        body = self.rewrite(b"".join(self.app(environ, start)).decode()).encode()
        answer["headers"]["Content-Length"] = str(len(body))
        start_response(answer["status"], list(answer["headers"].items()))
        return [body]

    def send(self, environ, start_response):
        def start(status, headers, exc_info=None):
            if self.chunked:
                headers = [(name, value) for name, value in headers if name != "Content-Length"]
            start_response(status, headers)

        cut = self.cuts.pop(0) if self.cuts and environ["PATH_INFO"].endswith(IMG) else None
        for block in self.app(environ, start):
            if cut is not None and (cut := cut - len(block)) <= 0:
                yield block[: cut + len(block)]
                if self.held:
                    self.held.wait(200)
                if self.chunked:
                    return  # looks like a regular end
                raise ConnectionError("cut")
            yield block

    def downloads(self):
        return [path.split("/webdav/")[1] for method, path, _ in self.requests if method == "GET"]

    def ranges(self, path=IMG):
        return [h["RANGE"] for m, p, h in self.requests if m == "GET" and p.endswith(path)]


@pytest.fixture
def share(tmp_path, monkeypatch):
    """A share as NextCloud serves it: its token is the user name, the password is empty."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "share"
    for path, content in CONTENT.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    app = WsgiDAVApp(
        {
            "provider_mapping": {
                "/public.php/webdav": {"root": str(folder), "readonly": True},
                f"/public.php/dav/files/{TOKEN}": {"root": str(folder), "readonly": True},
            },
            "simple_dc": {"user_mapping": {"*": {TOKEN: {"password": ""}}}},
            "http_authenticator": {"accept_digest": False, "default_to_digest": False},
            "property_manager": False,
            "lock_storage": False,
            "logging": {"enable": False},
            "verbose": 0,
        }
    )
    return Share(folder, app)


@contextmanager
def serving(application, adapter=None):
    """Serve in the background and yield the server."""
    server = Server(("127.0.0.1", 0), application, numthreads=8)
    server.ssl_adapter = adapter
    server.error_log = lambda *arguments, **options: None
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


@pytest.fixture(scope="module")
def server():
    """Yield a server for all tests, because each takes half a second to stop."""
    with serving(None) as server:
        yield server


@pytest.fixture
def url(share, server, monkeypatch):
    monkeypatch.setattr("asnlsr.tiles.fetch.PAUSE_S", 0.001)
    server.wsgi_app = share
    return f"http://127.0.0.1:{server.bind_addr[1]}/index.php/s/{TOKEN}"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "published"


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def sums(content):
    return {path: hashlib.sha256(block).hexdigest() for path, block in content.items()}


def assert_whole(out, content=CONTENT):
    """All files are there as in the share, with a list of their checksums and nothing else."""
    found = files_in(out)
    manifest = found.pop(MANIFEST).decode()
    assert found == content
    assert dict(reversed(line.split("  ", 1)) for line in manifest.splitlines()) == sums(content)


# --- as it should be ---------------------------------------------------------------------------


def test_everything_arrives(asnlsr, share, url, out):
    code, printed, err = asnlsr("fetch", "--out", out, "--url", url)
    assert (code, printed) == (0, "")
    assert "3.03M/3.03M" in err
    assert_whole(out)
    for method, path, headers in share.requests:
        assert path.startswith("/public.php/webdav/")
        token = base64.b64decode(headers["AUTHORIZATION"].removeprefix("Basic ")).decode()
        assert token == f"{TOKEN}:"
        assert headers["X_REQUESTED_WITH"] == "XMLHttpRequest"
        assert headers["DEPTH"] == ("1" if method == "PROPFIND" else None)
    if shutil.which("sha256sum"):
        subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet", MANIFEST], cwd=out, check=True
        )


def test_second_call_downloads_nothing_and_verifies(share, url, out):
    assert len(fetch([], out, url)) == len(CONTENT)
    share.requests.clear()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert fetch([], out, url) == []
    assert share.downloads() == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("tiles", "processed_tiles"), ("radiance", "radiance"), ("splits", "train_val_splits")],
)
def test_one_kind(share, url, out, kind, folder):
    fetch([kind], out, url)
    assert_whole(out, {path: c for path, c in CONTENT.items() if path.startswith(folder)})
    assert all(f"/{folder}" in path for _, path, _ in share.requests)


def test_kinds_join_in_one_manifest(url, out):
    fetch(["splits"], out, url)
    fetch(["radiance", "tiles"], out, url)
    assert_whole(out)


def test_files_placed_by_hand_are_taken_over(share, url, out):
    (out / IMG).parent.mkdir(parents=True)
    (out / IMG).write_bytes(CONTENT[IMG])
    fetch([], out, url)
    assert IMG not in share.downloads()
    assert_whole(out)


def test_newer_address(share, url, out):
    fetch([], out, url.replace("/index.php/s/", "/public.php/dav/files/"))
    assert_whole(out)
    assert all(f"/public.php/dav/files/{TOKEN}/" in path for _, path, _ in share.requests)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        (SHARE, "https://nextcloud.rma.ac.be/public.php/webdav"),
        ("https://h.org/s/Ab1", "https://h.org/public.php/webdav"),
        ("https://h.org:8443/cloud/index.php/s/Ab1/", "https://h.org:8443/cloud/public.php/webdav"),
        ("https://h.org/s/Ab1?path=%2Fradiance", "https://h.org/public.php/webdav"),
        ("https://h.org/s/Ab1/download", "https://h.org/public.php/webdav"),
        ("https://h.org/public.php/dav/files/Ab1", "https://h.org/public.php/dav/files/Ab1"),
    ],
)
def test_addresses(url, base):
    with open_share(url) as client:
        assert client.base_url == base


def test_files_come_side_by_side(share, url, out):
    # Four downloads wait for each other: with fewer at a time none would end.
    meeting = threading.Barrier(4, timeout=25)
    plain = share.send

    def send(environ, start_response):
        if "/processed_tiles/" in environ["PATH_INFO"] or environ["PATH_INFO"].endswith(".npz"):
            meeting.wait()
        return plain(environ, start_response)

    share.send = send
    assert len(fetch(["tiles", "splits"], out, url)) == 4
    assert meeting.n_waiting == 0
    assert not meeting.broken


# --- before it starts --------------------------------------------------------------------------


def test_dry_run_writes_nothing(asnlsr, share, url, out):
    code, printed, _ = asnlsr("fetch", "radiance", "--out", out, "--url", url, "--dry-run")
    assert code == 0
    assert not out.exists()
    assert share.downloads() == []
    *listed, total = [line.split(maxsplit=1) for line in printed.splitlines()]
    assert {path: int(size) for size, path in listed} == {
        path: len(content) for path, content in CONTENT.items() if path.startswith("radiance")
    }
    assert total[0] == str(3_012_000 + 5)
    assert total[1].startswith("bytes in 3 files")


def test_dry_run_lists_only_what_is_missing(asnlsr, url, out):
    fetch(["tiles", "splits"], out, url)
    (out / MANIFEST).unlink()
    _, printed, _ = asnlsr("fetch", "--out", out, "--url", url, "--dry-run")
    assert len(printed.splitlines()) == 3 + 1
    assert not (out / MANIFEST).exists()


@pytest.fixture
def free(monkeypatch):
    """Let the disk have some number of bytes free."""
    usage = namedtuple("usage", "total used free")

    def set_free(n_bytes):
        monkeypatch.setattr(
            "asnlsr.tiles.fetch.shutil.disk_usage", lambda path: usage(9, 9, n_bytes)
        )

    return set_free


def test_too_little_space(asnlsr, share, url, out, free):
    free(3_012_004)
    result = asnlsr("fetch", "radiance", "--out", out, "--url", url)
    assert_refused(result, out, "0.003 GB to fetch", "free some space")
    assert not out.exists()
    assert share.downloads() == []
    free(3_012_005)
    assert asnlsr("fetch", "radiance", "--out", out, "--url", url)[0] == 0
    free(0)
    assert asnlsr("fetch", "radiance", "--out", out, "--url", url)[0] == 0


def test_space_for_the_rest_is_enough(asnlsr, share, url, out, free):
    interrupted(asnlsr, share, url, out)
    for space, code in [(2_011_999, 2), (2_012_000, 0)]:
        free(space)
        assert asnlsr("fetch", "radiance", "--out", out, "--url", url)[0] == code


# --- interruptions -----------------------------------------------------------------------------


def radiance():
    return {path: content for path, content in CONTENT.items() if path.startswith("radiance")}


def the_part(out):
    (part,) = out.rglob("scene.img.*.part")
    return part


def test_cut_connection_is_resumed(share, url, out):
    share.cuts = [1_000_000, 700_000]
    fetch(["radiance"], out, url)
    assert share.ranges() == [None, "bytes=1000000-", "bytes=1700000-"]
    assert_whole(out, radiance())


def test_the_part_of_another_file_is_left_alone(share, url, out):
    """That of `scene.img.hdr` is not one of `scene.img`; downloads run side by side."""
    folder = out / "radiance"
    folder.mkdir(parents=True)
    old, other = (folder / f"scene.img{kind}.{'0' * 8}.part" for kind in ("", ".hdr"))
    old.touch()
    other.touch()
    fetch(["radiance"], out, url)
    assert (old.exists(), other.exists()) == (False, True)


def test_next_call_goes_on(asnlsr, share, url, out):
    share.cuts = [1_000_000] + [0] * 5
    result = asnlsr("fetch", "radiance", "--out", out, "--url", url)
    assert_refused(result, url, "run the same command again")
    assert not (out / IMG).exists()
    assert the_part(out).read_bytes() == CONTENT[IMG][:1_000_000]
    share.requests.clear()
    fetch(["radiance"], out, url)
    assert share.ranges() == ["bytes=1000000-"]
    assert_whole(out, radiance())


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_process(share, url, out, sign, code):
    share.cuts, share.held = [1_000_000], threading.Event()
    # Started in the background of a script, a process would inherit that it ignores interrupts.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from asnlsr.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "fetch", "--out", out, "--url", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    patience = time.monotonic() + 200
    while sum(part.stat().st_size for part in out.rglob("scene.img.*.part")) < 900_000:
        assert time.monotonic() < patience
        time.sleep(0.02)
    process.send_signal(sign)
    share.held.set()
    _, err = process.communicate(timeout=200)
    assert process.returncode == code
    assert "Traceback" not in err
    assert not (out / IMG).exists()
    size = the_part(out).stat().st_size
    share.requests.clear()
    fetch([], out, url)
    assert share.ranges() == [f"bytes={size}-"]
    assert_whole(out)


def test_server_that_ignores_ranges(share, url, out):
    share.cuts, share.ignores_range = [1_000_000], True
    fetch(["radiance"], out, url)
    assert share.ranges() == [None, "bytes=1000000-"]
    assert_whole(out, radiance())  # not a million bytes twice


@pytest.mark.parametrize("way", ["ignores_range", "chunked"])
def test_server_that_never_gets_further(asnlsr, share, url, out, way):
    share.cuts = [1_000_000] + [1_000_000 if way == "ignores_range" else 0] * 99
    setattr(share, way, True)
    assert_refused(asnlsr("fetch", "--out", out, "--url", url), "run the same command again")
    assert len(share.ranges()) == 6
    assert not (out / IMG).exists()


def test_early_end_without_a_length(share, url, out):
    share.cuts, share.chunked = [1_000_000], True
    fetch(["radiance"], out, url)
    assert share.ranges() == [None, "bytes=1000000-"]
    assert_whole(out, radiance())


def interrupted(asnlsr, share, url, out):
    share.cuts = [1_000_000] + [0] * 5
    assert asnlsr("fetch", "radiance", "--out", out, "--url", url)[0] == 2
    share.requests.clear()


def test_part_of_another_version_is_not_continued(asnlsr, share, url, out):
    interrupted(asnlsr, share, url, out)
    newer = CONTENT[IMG][::-1]
    (share.folder / IMG).write_bytes(newer)
    os.utime(share.folder / IMG, (1, 1))  # the server tells versions by size and time
    fetch(["radiance"], out, url)
    assert share.ranges() == [None]
    assert_whole(out, radiance() | {IMG: newer})  # and no part is left


def test_version_that_changes_after_the_listing(asnlsr, share, url, out):
    interrupted(asnlsr, share, url, out)
    newer = CONTENT[IMG][::-1]

    def change(body):
        (share.folder / IMG).write_bytes(newer)
        os.utime(share.folder / IMG, (1, 1))
        return body

    share.rewrite = change
    fetch(["radiance"], out, url)
    assert share.ranges() == ["bytes=1000000-"]  # but the answer was the whole file
    assert (out / IMG).read_bytes() == newer


# --- what must not be taken --------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("listed", [2_000_000, 4_000_000])
def test_wrong_size(asnlsr, share, url, out, listed, chunked):
    share.chunked = chunked
    share.rewrite = lambda body: body.replace(">3012000<", f">{listed}<")
    result = asnlsr("fetch", "radiance", "--out", out, "--url", url)
    assert_refused(result)
    assert not (out / IMG).exists()
    if (listed, chunked) != (4_000_000, True):  # that one looks like a lost connection
        assert_refused(result, IMG, "bytes")
        assert not list(out.rglob("scene.img*"))


def test_changed_file(asnlsr, share, url, out):
    fetch(["radiance"], out, url)
    content = bytearray(CONTENT[IMG])
    content[123_456] ^= 1
    (out / IMG).write_bytes(content)
    share.requests.clear()
    result = asnlsr("fetch", "radiance", "--out", out, "--url", url)
    assert_refused(result, out / IMG, MANIFEST, "delete it")
    assert (out / IMG).read_bytes() == content
    assert share.downloads() == []
    (out / IMG).unlink()
    fetch(["radiance"], out, url)
    assert_whole(out, radiance())


def test_truncated_file(asnlsr, url, out):
    fetch(["splits", "radiance"], out, url)
    os.truncate(out / IMG, 1000)
    result = asnlsr("fetch", "--out", out, "--url", url)
    assert_refused(result, out / IMG, "1000 bytes", "3012000", "delete it")
    assert not (out / "processed_tiles").exists()


def test_share_that_sends_another_file_than_before(asnlsr, share, url, out):
    fetch(["radiance"], out, url)
    before = (out / MANIFEST).read_text()
    (out / IMG).unlink()
    (share.folder / IMG).write_bytes(CONTENT[IMG][::-1])
    result = asnlsr("fetch", "radiance", "--out", out, "--url", url)
    assert_refused(result, out / IMG, "another file", MANIFEST)
    assert not list(out.rglob("scene.img*"))
    assert (out / MANIFEST).read_text() == before


@pytest.mark.parametrize(
    "text",
    [b"hello\n", b"\xff\xfe", b"0123  radiance/scene.img\n", b"0" * 64 + b"  cut off by a cra"],
)
def test_manifest_of_something_else(asnlsr, url, out, text):
    fetch(["splits"], out, url)
    before = files_in(out)
    before[MANIFEST] += text
    (out / MANIFEST).write_bytes(before[MANIFEST])
    result = asnlsr("fetch", "--out", out, "--url", url)
    assert_refused(result, out / MANIFEST, "line 2 is no checksum")
    assert files_in(out) == before


HERE = "/public.php/webdav/radiance/"


@pytest.mark.parametrize(
    "href",
    [
        HERE + "../../../../evil",
        HERE + "../evil",
        HERE + "..",
        HERE + "../",
        HERE + "./",
        HERE + "%2e%2e/evil",
        HERE + "%2E%2E",
        HERE + "..%2fevil",
        HERE + "%2fetc%2fevil",
        HERE + "..%5cevil",
        HERE + "new%0Aline",
        HERE + "nul%00",
        HERE + "sub/evil",
        HERE[:-1] + "-other/evil",
        "/etc/evil",
        "/public.php/webdav/evil",
        "../evil",
        "evil",
        "http://evil.example/evil",
        "http://evil.example" + HERE + "../../evil",
    ],
)
def test_path_that_climbs_out(asnlsr, share, url, out, tmp_path, href):
    share.rewrite = lambda body: body.replace(HERE + "scene.img<", href + "<")
    before = sorted(tmp_path.rglob("*"))
    result = asnlsr("fetch", "--out", out, "--url", url)
    assert_refused(result, "radiance: the server lists", "not inside it")
    assert sorted(tmp_path.rglob("*")) == before
    assert share.downloads() == []


@pytest.mark.parametrize(
    ("rewrite", "words"),
    [
        (lambda body: "", ["processed_tiles", "not the listing of a folder"]),
        (lambda body: "<html>Sign in</html", ["not the listing of a folder"]),
        (lambda body: body[:-9], ["not the listing of a folder"]),
        (lambda body: re.sub("<[^<]*href>.*?</[^<]*href>", "", body), ["not the listing"]),
        (lambda body: re.sub("getcontentlength>[0-9]+<", "getcontentlength>many<", body), ["not"]),
        (lambda body: re.sub("getcontentlength>", "quota>", body), ["does not tell its size"]),
        (lambda body: re.sub("getcontentlength>", "getcontentlength>-", body), ["its size"]),
    ],
)
def test_listing_that_is_none(asnlsr, share, url, out, rewrite, words):
    share.rewrite = rewrite
    assert_refused(asnlsr("fetch", "--out", out, "--url", url), *words)
    assert not out.exists()


# --- servers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_wrong_token(asnlsr, url, out, dry_run):
    wrong = url.replace(TOKEN, "WrongToken12345")
    assert_refused(asnlsr("fetch", "--out", out, "--url", wrong, *dry_run), wrong, "token")
    assert not out.exists()


@pytest.mark.parametrize(
    ("status", "words"),
    [("302 Found", ["302"]), ("503 Service Unavailable", ["503"]), ("404 Not Found", ["no 'p"])],
)
def test_server_that_answers_otherwise(asnlsr, share, url, out, monkeypatch, status, words):
    monkeypatch.setattr("webdav4.retry.BACKOFF", 0)
    share.status = status
    assert_refused(asnlsr("fetch", "--out", out, "--url", url), url, *words)
    assert not out.exists()


def test_share_without_the_folder(asnlsr, share, url, out):
    shutil.rmtree(share.folder / "radiance")
    assert_refused(asnlsr("fetch", "--out", out, "--url", url), url, "no 'radiance'")
    assert not out.exists()


def test_server_that_is_not_there(asnlsr, out):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = asnlsr("fetch", "--out", out, "--url", f"http://127.0.0.1:{port}/s/{TOKEN}")
    assert_refused(result, str(port), "refused")


@pytest.mark.parametrize(
    "url",
    ["", "x", SHARE.replace("https", "http"), SHARE.rpartition("/")[0], "ftp://h.org/s/Ab1",
     "http://localhost:a@h.org/s/Ab1", "http://127.0.0.1.h.org/s/Ab1", "https:///s/Ab1"],
)  # fmt: skip
def test_link_that_is_none(asnlsr, out, url):
    assert_refused(asnlsr("fetch", "--out", out, "--url", url or "-"), "--url", "such as " + SHARE)
    assert not out.exists()


def test_unknown_kind(asnlsr, out):
    assert_refused(asnlsr("fetch", "moon", "--out", out), "'moon'", "tiles, radiance, splits")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def secure(share, authority, tmp_path):
    """Serve the share over TLS with a certificate for a host, and yield its link."""

    @contextmanager
    def serve(host):
        certificate = authority.issue_cert(host)
        chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
        chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(key)
        with serving(share, BuiltinSSLAdapter(str(chain), str(key))) as server:
            yield f"https://127.0.0.1:{server.bind_addr[1]}/s/{TOKEN}"

    return serve


@pytest.fixture
def trusted(authority, monkeypatch, tmp_path):
    """Let this process trust the authority that signs the certificates."""
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


def test_certificate_that_does_not_verify(asnlsr, share, secure, out):
    with secure("127.0.0.1") as link:
        result = asnlsr("fetch", "--out", out, "--url", link)
    assert_refused(result, link, "certificate", "does not verify")
    assert share.requests == []  # the token was not sent
    assert not out.exists()


def test_certificate_for_another_host(asnlsr, share, secure, trusted, out):
    with secure("nextcloud.example") as link:
        result = asnlsr("fetch", "--out", out, "--url", link)
    assert_refused(result, link, "certificate", "does not verify", "127.0.0.1")
    assert share.requests == []
    assert not out.exists()


def test_certificate_that_verifies(secure, trusted, out):
    with secure("127.0.0.1") as link:
        fetch([], out, link)
    assert_whole(out)


# --- the disk ----------------------------------------------------------------------------------


def test_disk_that_cannot_hold_a_file(asnlsr, share, url, out, small_files):
    result = asnlsr("fetch", "radiance", "--out", out, "--url", url)
    assert_refused(result, out / IMG, "File too large")
    assert not (out / IMG).exists()


def test_file_in_the_way(asnlsr, url, out):
    out.mkdir()
    (out / "radiance").touch()
    result = asnlsr("fetch", "radiance", "--out", out, "--url", url)
    assert_refused(result, out / "radiance")


def test_two_at_once(asnlsr, share, url, out):
    share.cuts, share.held = [1_000_000], threading.Event()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch, ["radiance"], out, url)
        while IMG not in share.downloads():
            assert not first.done()
            time.sleep(0.02)
        result = asnlsr("fetch", "tiles", "--out", out, "--url", url)
        share.held.set()
    assert result[0] == 2
    assert f"asnlsr: {out}: another asnlsr fetch" in result[2]  # among the bar of the first
    assert first.exception() is None
    assert_whole(out, radiance())
