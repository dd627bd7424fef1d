"""Tiles against a scene that is binned and blurred whole with scipy."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import correlate

from asnlsr.physics import gaussian_psf
from asnlsr.scenes.bands import DOMAINS, bin_response
from asnlsr.scenes.envi import open_scene, write_scene
from asnlsr.tiles.prepare import prepare, tile_origins
from asnlsr.tiles.store import open_tiles, tile_ids
from tests.conftest import make_scene, smooth_radiance


def test_published_scene_gives_225_tiles():
    assert len(tile_origins(5809, 128)) * len(tile_origins(620, 128)) == 225


@pytest.mark.parametrize(
    ("length", "origins"),
    [
        (128, [0, 64]),
        (63, []),
        (100, [0, 36]),  # overlap 28 of 64
        (96, [0]),  # overlap 32 would be half
        (97, [0, 33]),  # overlap 31
    ],
)
def test_last_tile_is_moved_back_or_dropped(length, origins):
    assert tile_origins(length, 64) == origins


@pytest.fixture(scope="module")
def odd_scene(tmp_path_factory):
    """Write a scene whose last tiles start at row 106 and column 38, off the grid of 4."""
    return make_scene(tmp_path_factory.mktemp("odd") / "odd.hdr", rows=170, cols=102)


def bands_of(scene, domain, bands):
    """Bin some bands of a whole scene: (band, row, col)."""
    weights, _ = bin_response(DOMAINS[domain], scene.wavelength_nm, scene.usable)
    radiance = scene.read_rows(0, scene.rows).astype(np.float64)
    return np.einsum("bc,ijc->bij", weights[bands], radiance)


@pytest.mark.parametrize("border", ["scene", "zero"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_tiles_equal_the_scene_processed_whole(odd_scene, tmp_path, border, domain):
    prepare([odd_scene], tmp_path / "tiles", tile=64, border=border, progress=False)
    store = open_tiles(tmp_path / "tiles", domain)
    places = [(0, 0), (0, 38), (64, 0), (64, 38), (106, 0), (106, 38)]
    assert tile_ids(store) == [f"odd/{row}/{col}" for row, col in places]
    bands = [0, 17, 29]
    whole = bands_of(open_scene(odd_scene), domain, bands)
    kernel = gaussian_psf()
    # correlate centres the kernel on index 16; output i of r wants it at i r - p + 16.
    blurred = np.stack([correlate(band, kernel, mode="mirror") for band in whole])
    for tile, (row, col) in enumerate(places):
        hr = whole[:, row : row + 64, col : col + 64]
        np.testing.assert_allclose(store["hr"][tile, bands], hr, rtol=1e-5)
        if border == "zero":
            soft = np.stack([correlate(band, kernel, mode="constant") for band in hr])
        else:
            soft = blurred[:, row : row + 64, col : col + 64]
        np.testing.assert_allclose(store["lr"][tile, bands], soft[:, 2::4, 2::4], rtol=1e-5)
        np.testing.assert_allclose(store["lr_x2"][tile, bands], soft[:, 1::2, 1::2], rtol=1e-5)


def test_store_tells_where_it_came_from(tiny_scenes, tiny_tiles):
    for domain in DOMAINS:
        store = open_tiles(tiny_tiles, domain)
        assert store["hr"].dims == ("tile", "band", "y", "x")
        assert store["lr"].dims == ("tile", "band", "y_lr", "x_lr")
        assert store["lr_x2"].dims == ("tile", "band", "y_x2", "x_x2")
        assert store["hr"].encoding["chunks"] == (1, 30, 64, 64)
        recipe = json.loads(json.dumps(store.attrs))
        assert (recipe["tile"], recipe["scale"], recipe["border"]) == (64, 4, "scene")
        np.testing.assert_allclose(recipe["psf"], gaussian_psf(), rtol=1e-12)
        _, centres = bin_response(DOMAINS[domain], np.linspace(1000, 2500, 151))
        np.testing.assert_allclose(store["wavelength_nm"], centres)
        for hdr, source in zip(tiny_scenes, recipe["scenes"], strict=True):
            pixels = hdr.with_suffix(".img").read_bytes()
            assert source["name"] == hdr.stem
            assert source["sha256"]["img"] == hashlib.sha256(pixels).hexdigest()
            assert source["sha256"]["hdr"] == hashlib.sha256(hdr.read_bytes()).hexdigest()


def test_opening_reads_no_pixels(tiny_scenes, tmp_path):
    prepare(tiny_scenes[:1], tmp_path, tile=64, progress=False)
    store = open_tiles(tmp_path, "swir2")
    (tmp_path / "swir2.zarr" / "hr" / "1.0.0.0").write_bytes(
        np.full((30, 64, 64), 0.25, "<f4").tobytes()
    )
    assert (store["hr"][1] == 0.25).all()


def test_negative_values_are_clipped_and_counted(tmp_path, caplog):
    radiance = smooth_radiance(64, 64, 151)
    radiance[10, 20, [5, 80]] = -1.0  # 1050 and 1800 nm
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, np.linspace(1000, 2500, 151))
    prepare([tmp_path / "s.hdr"], tmp_path / "tiles", tile=64, progress=False)
    assert "s.img: 2 negative values clipped to 0" in caplog.text
    radiance[10, 20, [5, 80]] = 0.0
    for domain in DOMAINS:
        store = open_tiles(tmp_path / "tiles", domain)
        assert store.attrs["scenes"][0]["negative_clipped"] == 2
        weights, _ = bin_response(DOMAINS[domain], np.linspace(1000, 2500, 151))
        np.testing.assert_allclose(store["hr"][0, :, 10, 20], weights @ radiance[10, 20], rtol=1e-5)


def test_dark_pixels_stay_zero(tmp_path):
    radiance = np.zeros((64, 64, 151), np.float32)
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, np.linspace(1000, 2500, 151))
    prepare([tmp_path / "s.hdr"], tmp_path / "tiles", tile=64, progress=False)
    for array in ("hr", "lr", "lr_x2"):
        assert (open_tiles(tmp_path / "tiles", "swir1")[array].values == 0).all()


def test_nan_in_a_bad_channel_does_no_harm(tmp_path):
    radiance = smooth_radiance(64, 64, 151)
    usable = np.ones(151, int)
    usable[[50, 100]] = 0
    shape, wavelength = radiance.shape, np.linspace(1000, 2500, 151)
    write_scene(tmp_path / "a.hdr", [radiance], shape, wavelength, bbl=usable.tolist())
    radiance[:, :, 50], radiance[:, :, 100] = np.nan, np.inf
    write_scene(tmp_path / "b.hdr", [radiance], shape, wavelength, bbl=usable.tolist())
    headers = [tmp_path / "a.hdr", tmp_path / "b.hdr"]
    prepare(headers, tmp_path / "tiles", tile=64, progress=False)
    for domain in DOMAINS:
        good, bad = open_tiles(tmp_path / "tiles", domain)["lr"].values
        np.testing.assert_allclose(bad, good, rtol=1e-5)


def test_failure_leaves_the_earlier_tiles(tiny_scenes, tmp_path):
    out = tmp_path / "tiles"
    prepare(tiny_scenes[:1], out, tile=64, progress=False)
    before = open_tiles(out, "swir1").load()
    radiance = np.full((64, 64, 151), np.nan, np.float32)
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, np.linspace(1000, 2500, 151))
    with pytest.raises(ValueError, match="NaN"):
        prepare([tiny_scenes[1], tmp_path / "s.hdr"], out, tile=64, progress=False)
    assert open_tiles(out, "swir1").load().identical(before)
    assert sorted(path.name for path in out.iterdir()) == ["swir1.zarr", "swir2.zarr"]
    prepare(tiny_scenes[1:3], out, tile=64, progress=False)
    assert set(open_tiles(out, "swir1")["scene"].values) == {"scene-1", "scene-2"}


def test_left_over_of_a_killed_run_is_removed(tiny_scenes, tmp_path):
    stale = tmp_path / ".tiles.tmp" / "swir1.zarr"
    stale.mkdir(parents=True)
    (stale / "rubbish").touch()
    prepare(tiny_scenes[:1], tmp_path, tile=64, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["swir1.zarr", "swir2.zarr"]


MEASURE = """
import re, sys, time
from pathlib import Path
from asnlsr.tiles import prepare

def seconds(work, *arguments):
    # Of the processor: what else runs on the machine does not count.
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start

def peak_memory():
    # Not ru_maxrss, which starts from the memory of the parent process.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

out, hdr = map(Path, sys.argv[1:])
base = peak_memory()
preparing = min(seconds(prepare, [hdr], out) for _ in range(3))
peak = peak_memory()
reading = min(seconds(hdr.with_suffix(".img").read_bytes) for _ in range(3))
print(reading, preparing, base, peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_prepare_streams(tmp_path):
    """A tenth of a published scene: far less memory than the file, a few times its reading."""
    rows, block = 640, smooth_radiance(128, 620, 300)
    hdr = tmp_path / "big.hdr"
    blocks = [block] * (rows // 128)
    write_scene(hdr, blocks, (rows, 620, 300), np.linspace(1000, 2500, 300))
    command = [sys.executable, "-c", MEASURE, tmp_path / "tiles", hdr]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    reading, preparing, base, peak = map(float, result.stdout.split())
    assert "100%" in result.stderr  # the progress bar
    # Blocks, strips and tiles in flight take about 500 MB; the whole scene would add 476 MB.
    assert peak - base < 700e6
    assert peak < 1.5e9
    # Two threads share the work, so that the time on the clock is nearer to five times.
    assert preparing < 10 * reading
