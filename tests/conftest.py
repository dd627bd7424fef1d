"""Fixtures: tiny scenes, tiles and a split, the command line in this process, the shared data."""

import os
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from asnlsr.scenes.envi import open_scene, write_scene
from asnlsr.tiles.prepare import prepare
from asnlsr.tiles.store import TileSet, make_split, write_split
from tests import chromium


def smooth_radiance(rows, cols, channels, seed=0):
    """Smooth random radiance, float32 (rows, cols, channels), darker at long wavelengths."""
    field = gaussian_filter(
        np.random.default_rng(seed).standard_normal((rows, cols, channels)), (2, 2, 8)
    )
    radiance = 0.03 * np.exp(0.5 * field / field.std()) * np.linspace(1, 0.1, channels)
    return radiance.astype(np.float32)


def make_scene(
    hdr, rows=64, cols=128, channels=151, seed=0, nm=(1000, 2500), spoilt=None, **fields
):
    """Write a tiny ENVI scene and return its header path; `spoilt` is a place and what is there."""
    radiance = smooth_radiance(rows, cols, channels, seed)
    if spoilt:
        radiance[spoilt[0]] = spoilt[1]
    write_scene(hdr, [radiance], radiance.shape, np.linspace(*nm, channels), **fields)
    return hdr


def read(hdr):
    """Open a scene and read all of it."""
    scene = open_scene(hdr)
    return scene, scene.read_rows(0, scene.rows)


@pytest.fixture(scope="session")
def tiny_scenes(tmp_path_factory):
    """Four scenes of 64 x 128 pixels and 151 channels, two tiles of 64 pixels in each."""
    folder = tmp_path_factory.mktemp("scenes")
    return [make_scene(folder / f"scene-{k}.hdr", seed=k) for k in range(4)]


@pytest.fixture(scope="session")
def tiny_tiles(tiny_scenes, tmp_path_factory):
    """Tile store of the tiny scenes: 8 tiles of 64 pixels per domain. Do not change it."""
    tiles = tmp_path_factory.mktemp("tiny") / "tiles"
    prepare(tiny_scenes, tiles, tile=64, progress=False)
    return tiles


@pytest.fixture(scope="session")
def tiny_split(tiny_tiles):
    """Split of the tiny tiles by scene: one scene in each role."""
    path = tiny_tiles.parent / "split.json"
    write_split(make_split(tiny_tiles, by="scene"), path)
    return path


@pytest.fixture(scope="session")
def tiny_set(tiny_tiles, tiny_split):
    """Tiny tiles with their roles."""
    return TileSet(tiny_tiles, tiny_split)


class Example(SimpleNamespace):
    """Stands for `Pairs` where a test says what `lr`, `hr` and the rest are."""

    def __len__(self):
        return len(self.lr)


@pytest.fixture
def asnlsr(monkeypatch, capsys):
    """Run the command line in this process: arguments to (exit code, stdout, stderr)."""
    from asnlsr.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["asnlsr", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def assert_refused(result, *words):
    """One line on stderr, but for progress bars, that holds the words; exit code 2."""
    code, out, err = result
    assert (code, out) == (2, "")
    (line,) = [line for line in err.split("\n") if line and not line.startswith("\r")]
    assert line.startswith("asnlsr: ")
    for word in words:
        assert str(word) in line


@pytest.fixture
def call(asnlsr, tiny_scenes, tiny_tiles, tiny_split, tmp_path, monkeypatch):
    """Call a command line in `tmp_path`; words in capitals stand for what is there to work on."""
    monkeypatch.chdir(tmp_path)
    names = {"SCENES": tiny_scenes, "SCENE": tiny_scenes[:1]}
    names |= {"TILES": ["--tiles", tiny_tiles], "SPLIT": ["--split", tiny_split]}

    def run(line):
        return asnlsr(*(part for word in line.split() for part in names.get(word, [word])))

    return run


def tree(folder):
    """All that is below a folder: paths, the bytes of files, and when they were written."""
    return {
        path: path.is_file() and (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


@pytest.fixture
def refused(call, tmp_path):
    """Call a command line that has to end in one line with some words and leave all as it was."""

    def run(line, *words):
        before = tree(tmp_path)
        assert_refused(call(line), *words)
        assert tree(tmp_path) == before

    return run


@pytest.fixture
def small_files():
    """Let no file grow beyond 100 kB: what a full disk does, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def shared():
    """Return the folder with real scenes and official files; skip where it is absent."""
    folder = Path(os.environ.get("ASNLSR_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("no shared/ beside the repository and ASNLSR_SHARED does not name it")
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Return one Chromium without a network for all tests that look at pages."""
    session = chromium.start(tmp_path_factory.mktemp("chromium"))
    yield session
    session.quit()


# The longest files first, so that two workers end together: the book in one, the rest in the other.
_FIRST = ("test_notebooks", "test_training", "test_workflow")


def pytest_collection_modifyitems(items):
    """Order the files, and leave the order within a file as it is."""
    place = {f"{name}.py": n for n, name in enumerate(_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))
