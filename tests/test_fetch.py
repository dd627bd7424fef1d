"""Download from a public share: a real WebDAV server here, with the addresses of NextCloud."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import threading
from collections import namedtuple
from contextlib import contextmanager

import pytest
import tenacity
import trustme
from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server
from wsgidav.wsgidav_app import WsgiDAVApp

from asnlsr import terminal
from asnlsr.cli import SHARE
from asnlsr.files import locked
from asnlsr.tiles.fetch import MANIFEST, TRIES, _append, fetch, open_share
from tests.conftest import assert_refused

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
        self.busy = []  # first answers: a status and the seconds to wait, or None for the true one
        self.cuts = []  # bytes after which the next downloads of IMG lose their connection
        self.ignores_range = False
        self.chunked = False  # downloads do not tell their length, and a lost one ends regularly
        self.rewrite = lambda body: body  # of listings
        self.status = None  # the answer to everything, such as "302 Found"

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].encode("latin-1").decode()
        names = ("RANGE", "AUTHORIZATION", "X_REQUESTED_WITH", "DEPTH")
        self.requests.append((method, path, {n: environ.get(f"HTTP_{n}") for n in names}))
        if self.busy and (refusal := self.busy.pop(0)):
            start_response(refusal[0], [("Retry-After", refusal[1]), ("Content-Length", "0")])
            return []
        if self.ignores_range:
            environ.pop("HTTP_RANGE", None)
        answer = []
        blocks = self.app(environ, lambda *start: answer.extend(start))
        if self.status or method == "PROPFIND":
            blocks = [self.rewrite(b"".join(blocks).decode()).encode()]
            length = [("Content-Length", str(len(blocks[0]))), ("Location", "http://127.0.0.1:9/")]
            start_response(self.status or answer[0], length)
            return blocks
        return self.send(path, iter(blocks), answer, start_response)

    def send(self, path, blocks, answer, start_response):
        block = next(blocks, b"")  # by now the headers are there
        dropped = {"Content-Length"} if self.chunked else set()
        start_response(answer[0], [header for header in answer[1] if header[0] not in dropped])
        cut = self.cuts.pop(0) if self.cuts and path.endswith(IMG) else None
        while block:
            if cut is not None and (cut := cut - len(block)) <= 0:
                yield block[: cut + len(block)]
                if self.chunked:
                    return
                raise ConnectionError("cut")
            yield block
            block = next(blocks, b"")

    def downloads(self):
        return [path.split("/webdav/")[1] for method, path, _ in self.requests if method == "GET"]

    def ranges(self):
        return [h["RANGE"] for m, p, h in self.requests if m == "GET" and p.endswith(IMG)]

    def change(self):
        """Replace IMG by another version of its size; the server tells it by the time."""
        (self.folder / IMG).write_bytes(CONTENT[IMG][::-1])
        os.utime(self.folder / IMG, (1, 1))


@pytest.fixture
def share(tmp_path, monkeypatch):
    """A share as NextCloud serves it: its token is the user name, the password is empty."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "share"
    for path, content in CONTENT.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    root = {"root": str(folder), "readonly": True}
    addresses = ("/public.php/webdav", f"/public.php/dav/files/{TOKEN}")
    settings = {
        "provider_mapping": dict.fromkeys(addresses, root),
        "simple_dc": {"user_mapping": {"*": {TOKEN: {"password": ""}}}},
        "http_authenticator": {"accept_digest": False, "default_to_digest": False},
        "property_manager": False,
        "lock_storage": False,
        "logging": {"enable": False},
        "verbose": 0,
    }
    return Share(folder, WsgiDAVApp(settings))


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
    monkeypatch.setattr(_append.retry, "wait", tenacity.wait_none())
    monkeypatch.setattr("webdav4.retry.BACKOFF", 0)
    server.wsgi_app = share
    return f"http://127.0.0.1:{server.bind_addr[1]}/index.php/s/{TOKEN}"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "published"


RADIANCE = {path: content for path, content in CONTENT.items() if path.startswith("radiance")}


def assert_whole(out, content=CONTENT):
    """All files are there as in the share, with a list of their checksums and nothing else."""
    found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    manifest = found.pop(MANIFEST).decode().splitlines()
    assert found == content
    assert dict(reversed(line.split("  ", 1)) for line in manifest) == {
        path: hashlib.sha256(block).hexdigest() for path, block in content.items()
    }


@pytest.fixture
def refused(asnlsr, url, out):
    """Fetch from the command line and expect one line with some words."""

    def refuse(*words, kinds=("radiance",), link=url):
        assert_refused(asnlsr("fetch", *kinds, "--out", out, "--url", link), *words)

    return refuse


# --- as it should be ---------------------------------------------------------------------------


def test_everything_arrives_once(asnlsr, share, url, out, monkeypatch):
    monkeypatch.setattr(terminal, "EVERY", 0)  # a line of progress for every step
    (out / IMG).parent.mkdir(parents=True)
    (out / IMG).write_bytes(CONTENT[IMG])  # by hand: taken over
    code, printed, err = asnlsr("fetch", "--out", out, "--url", url)
    assert (code, printed) == (0, "")
    assert "fetch: 3.03M of 3.03M B" in err
    assert_whole(out)
    # An empty file needs no request.
    assert sorted(share.downloads()) == sorted(set(CONTENT) - {IMG, "radiance/empty.img"})
    for method, path, headers in share.requests:
        assert path.startswith("/public.php/webdav/")
        token = base64.b64decode(headers["AUTHORIZATION"].removeprefix("Basic ")).decode()
        assert token == f"{TOKEN}:"
        assert headers["X_REQUESTED_WITH"] == "XMLHttpRequest"
        assert headers["DEPTH"] == ("1" if method == "PROPFIND" else None)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", MANIFEST], cwd=out, check=True)
    share.requests.clear()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert fetch([], out, url) == []
    assert share.downloads() == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_kinds_join_in_one_manifest(share, url, out):
    fetch(["radiance"], out, url)
    assert_whole(out, RADIANCE)
    assert all("/radiance" in path for _, path, _ in share.requests)
    fetch(["splits", "tiles"], out, url.replace("/index.php/s/", "/public.php/dav/files/"))
    assert_whole(out)


def test_addresses():
    for url, base in {
        SHARE: "https://nextcloud.rma.ac.be/public.php/webdav",
        "https://h.org:8/cloud/index.php/s/Ab1/": "https://h.org:8/cloud/public.php/webdav",
        "https://h.org/s/Ab1?path=%2Fradiance": "https://h.org/public.php/webdav",
        "https://h.org/s/Ab1/download": "https://h.org/public.php/webdav",
        "https://h.org/public.php/dav/files/Ab1": "https://h.org/public.php/dav/files/Ab1",
        "https://h.org/public.php/dav/files/a-B_1/sub": "https://h.org/public.php/dav/files/a-B_1",
        "https://h.org/s/a-B_1.c~d#pictures": "https://h.org/public.php/webdav",
        " HTTPS://h.org/c/s/a-B/authenticate/showShare?x=1#y\n": "HTTPS://h.org/c/public.php/webdav",
    }.items():
        with open_share(url) as client:
            assert client.base_url == base


def test_dry_run_lists_what_is_missing_and_writes_nothing(asnlsr, share, url, out):
    fetch(["splits"], out, url)
    (out / MANIFEST).unlink()
    share.requests.clear()
    code, printed, _ = asnlsr("fetch", "--out", out, "--url", url, "--dry-run")
    lacking = {path: len(content) for path, content in CONTENT.items() if "splits" not in path}
    *listed, total = [line.split(maxsplit=1) for line in printed.splitlines()]
    assert {path: int(size) for size, path in listed} == lacking
    assert int(total[0]) == sum(lacking.values())
    assert total[1].startswith("bytes in 6 files")
    assert (code, share.downloads(), len(list(out.iterdir()))) == (0, [], 1)


# --- interruptions -----------------------------------------------------------------------------


@pytest.fixture
def part(share, refused, out):
    """Fetch a million bytes of IMG before the connection is lost for good: the path of them."""
    share.cuts = [1_000_000] + [0] * (TRIES - 1)
    refused("the same command goes on")
    assert not (out / IMG).exists()
    (part,) = out.rglob("scene.img.*.part")
    assert part.read_bytes() == CONTENT[IMG][:1_000_000]
    share.requests.clear()
    return part


def test_next_call_goes_on(share, part, url, out):
    other = part.with_name(f"scene.img.hdr.{'0' * 8}.part")  # not of `scene.img`
    other.touch()
    fetch(["radiance"], out, url)
    assert share.ranges() == ["bytes=1000000-"]
    other.unlink()
    assert_whole(out, RADIANCE)


@pytest.mark.parametrize("way", [None, "ignores_range", "chunked"])
def test_cut_connection_is_resumed(share, url, out, way):
    if way:
        setattr(share, way, True)
    share.cuts = [3_000_000]
    fetch(["radiance"], out, url)
    assert share.ranges() == [None, "bytes=3000000-"]
    assert_whole(out, RADIANCE)  # not three million bytes twice


def test_part_of_another_version_is_not_continued(share, part, url, out):
    share.change()
    fetch(["radiance"], out, url)
    assert share.ranges() == [None]
    assert_whole(out, RADIANCE | {IMG: CONTENT[IMG][::-1]})  # and no part is left


def test_version_that_changes_after_the_listing(share, part, url, out):
    share.rewrite = lambda body: share.change() or body
    fetch(["radiance"], out, url)
    assert share.ranges() == ["bytes=1000000-"]  # but the answer was the whole file
    assert (out / IMG).read_bytes() == CONTENT[IMG][::-1]


def test_two_at_once(refused, out):
    with locked(out / MANIFEST):
        refused(out / MANIFEST, "another asnlsr is writing there")


# --- what must not be taken --------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("listed", [2_000_000, 4_000_000])
def test_wrong_size(share, refused, out, listed, chunked):
    share.chunked = chunked
    share.rewrite = lambda body: body.replace(">3012000<", f">{listed}<")
    refused(IMG if listed == 2_000_000 else "416")
    assert not (out / IMG).exists()
    assert all(part.stat().st_size <= 3_012_000 for part in out.rglob("*.part"))


def test_files_that_are_not_as_recorded(share, refused, url, out):
    fetch(["radiance"], out, url)
    manifest = (out / MANIFEST).read_text()
    (out / IMG).write_bytes(CONTENT[IMG][::-1])
    share.requests.clear()
    refused(out / IMG, MANIFEST, "delete it")
    assert (out / IMG).read_bytes() == CONTENT[IMG][::-1]
    os.truncate(out / IMG, 1000)
    refused(out / IMG, "1000 bytes", "3012000", kinds=())
    assert share.downloads() == []
    (out / IMG).unlink()
    share.change()  # now the share has another file than before
    refused(out / IMG, MANIFEST, "accept")
    assert not list(out.rglob("scene.img*"))
    assert (out / MANIFEST).read_text() == manifest


@pytest.mark.parametrize(
    "text", [b"hello\n", b"\xff\xfe", b"0123  radiance/a\n", b"0" * 64 + b"  cut off by a cra"]
)
def test_manifest_of_something_else(share, refused, url, out, text):
    fetch(["splits"], out, url)
    with (out / MANIFEST).open("ab") as manifest:
        manifest.write(text)
    before = (out / MANIFEST).read_bytes()
    refused(out / MANIFEST, "line 2 is no checksum")
    assert (out / MANIFEST).read_bytes() == before
    assert IMG not in share.downloads()


HERE = "/public.php/webdav/radiance/"


@pytest.mark.parametrize(
    "href",
    [HERE + name for name in (
        "../../../../evil", "../evil", "..", "../", "./", "sub/evil", "%2e%2e/evil", "%2E%2E",
        "..%2fevil", "%2fetc%2fevil", "..%5cevil", "new%0Aline", "nul%00",
    )]
    + [HERE[:-1] + "-other/evil", "/etc/evil", "/public.php/webdav/evil", "../evil", "evil",
       "http://evil.example/evil", "http://evil.example" + HERE + "../../evil"],
)  # fmt: skip
def test_path_that_climbs_out(share, refused, tmp_path, href):
    share.rewrite = lambda body: body.replace(HERE + "scene.img<", href + "<")
    before = sorted(tmp_path.rglob("*"))
    refused("radiance: the server lists", "no file that is in it", kinds=())
    assert sorted(tmp_path.rglob("*")) == before
    assert share.downloads() == []


@pytest.mark.parametrize(
    ("rewrite", "words"),
    [
        (lambda body: "", "not the listing of a folder"),
        (lambda body: "<html>Sign in</html", "not the listing of a folder"),
        (lambda body: re.sub("<[^<]*href>.*?</[^<]*href>", "", body), "not the listing"),
        (lambda body: re.sub("contentlength>[0-9]+<", "contentlength>many<", body), "not the"),
        (lambda body: re.sub("getcontentlength>", "quota>", body), "no file that is"),
        (lambda body: re.sub("getcontentlength>", "getcontentlength>-", body), "no file that is"),
    ],
)
def test_listing_that_is_none(share, refused, out, rewrite, words):
    share.rewrite = rewrite
    refused(words)
    assert not out.exists()


# --- servers and the disk ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [("302 Found", "redirect"), ("503 Service Unavailable", "503"), ("404 Not Found", "no 'r")],
)
def test_server_that_answers_otherwise(share, refused, url, out, status, words):
    share.status = status
    refused(url, words)
    assert not out.exists()


@pytest.mark.parametrize(
    "link",
    ["x", SHARE.replace("https", "http"), SHARE.rpartition("/")[0], "ftp://h.org/s/Ab1",
     "http://localhost:a@h.org/s/Ab1", "http://127.0.0.1.h.org/s/Ab1", "https:///s/Ab1"],
)  # fmt: skip
def test_link_that_is_none(refused, out, link):
    refused("--url", "index.php/s/TOKEN", link=link)
    assert not out.exists()


@pytest.mark.parametrize("way", ["option", "variable", "prompt"])
def test_share_with_a_password(asnlsr, share, url, out, monkeypatch, way):
    """It is asked for by name, is given in three ways, and is never told."""
    secret = "correct horse"
    mapping = share.app.config["simple_dc"]["user_mapping"]["*"]
    mapping[TOKEN]["password"] = secret
    command = ["fetch", "radiance", "--out", out, "--url", url]
    assert_refused(asnlsr(*command), "401", "one with a password", "--password")
    wrong = asnlsr(*command, "--password", "battery staple")
    assert_refused(wrong, "401", "wrong password")
    assert "staple" not in wrong[2]
    if way == "option":
        command += ["--password", secret]
    elif way == "variable":
        monkeypatch.setenv("ASNLSR_PASSWORD", secret)
    else:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("typer.prompt", lambda *_, **options: secret * options["hide_input"])
    code, printed, err = asnlsr(*command)
    assert (code, printed) == (0, "")
    assert secret not in err
    assert_whole(out, RADIANCE)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_busy_server_is_waited_for(share, url, out, monkeypatch, status):
    waited, share.busy = [], [(status, "7"), (status, "90"), None, None, (status, "0")]
    monkeypatch.setattr("asnlsr.tiles.fetch.time.sleep", waited.append)
    fetch(["radiance"], out, url)
    assert_whole(out, RADIANCE)
    assert waited == [7, 90, 0]


def test_other_words_that_are_wrong(refused, url, out):
    refused("401", "--password", link=url.replace(TOKEN, "Wrong-Token_12345"))
    refused("refused", link=f"http://127.0.0.1:1/s/{TOKEN}")  # nobody listens there
    refused("'moon'", "tiles, radiance, splits", kinds=("moon",))
    assert not out.exists()


@pytest.mark.parametrize("host", ["nextcloud.example", "127.0.0.1"])
def test_certificate(share, refused, out, monkeypatch, tmp_path, host):
    authority, pem = trustme.CA(), str(tmp_path / "server.pem")
    authority.issue_cert(host).private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with serving(share, BuiltinSSLAdapter(pem, pem)) as server:
        link = f"https://127.0.0.1:{server.bind_addr[1]}/s/{TOKEN}"
        if host == "127.0.0.1":
            fetch([], out, link)
            assert_whole(out)
        else:
            refused(link, "CERTIFICATE_VERIFY_FAILED", link=link)
            assert share.requests == []  # the token was not sent
            assert not out.exists()


def test_too_little_space_for_the_rest(share, part, refused, url, out, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(9, 9, 2_011_999))
    refused(out, "No space left", "free some space")
    assert share.downloads() == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(9, 9, 2_012_000))
    fetch(["radiance"], out, url)
    assert_whole(out, RADIANCE)


def test_disk_that_cannot_hold_a_file(refused, out, small_files):
    refused(out / IMG, "File too large")
    assert not (out / IMG).exists()


def test_file_in_the_way(refused, out):
    out.mkdir()
    (out / "radiance").touch()
    refused(out / "radiance")
