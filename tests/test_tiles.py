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
from asnlsr.scenes.envi import write_scene
from asnlsr.tiles.prepare import prepare, tile_origins
from asnlsr.tiles.store import open_tiles, tile_ids
from tests.conftest import make_scene, read, smooth_radiance

WAVELENGTH_NM = np.linspace(1000, 2500, 151)


@pytest.mark.parametrize(
    ("length", "tile", "origins"),
    [
        (128, 64, [0, 64]),
        (63, 64, []),
        (100, 64, [0, 36]),  # overlap 28 of 64
        (96, 64, [0]),  # overlap 32 would be half
        (97, 64, [0, 33]),  # overlap 31
        (620, 128, [0, 128, 256, 384, 492]),  # of a published scene, which gives 45 x 5 tiles
    ],
)
def test_last_tile_is_moved_back_or_dropped(length, tile, origins):
    assert tile_origins(length, tile) == origins
    assert len(tile_origins(5809, 128)) == 45


@pytest.fixture(scope="module")
def odd_scene(tmp_path_factory):
    """Write a scene whose last tiles start at row 106 and column 38, off the grid of 4."""
    return make_scene(tmp_path_factory.mktemp("odd") / "odd.hdr", rows=170, cols=102)


@pytest.mark.parametrize("border", ["scene", "zero"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_tiles_equal_the_scene_processed_whole(odd_scene, tmp_path, border, domain):
    prepare([odd_scene], tmp_path / "tiles", tile=64, border=border, progress=False)
    store = open_tiles(tmp_path / "tiles", domain)
    places = [(0, 0), (0, 38), (64, 0), (64, 38), (106, 0), (106, 38)]
    assert tile_ids(store) == [f"odd/{row}/{col}" for row, col in places]
    bands, (_, radiance) = [0, 17, 29], read(odd_scene)
    weights, _ = bin_response(DOMAINS[domain], WAVELENGTH_NM)
    whole = np.einsum("bc,ijc->bij", weights[bands], radiance.astype(np.float64))
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
        assert store["hr"].encoding["chunks"] == (1, 30, 64, 64)
        recipe = json.loads(json.dumps(store.attrs))
        assert set(recipe) == {"tile", "scale", "border", "domain", "psf", "scenes"}  # no version
        assert (recipe["tile"], recipe["scale"], recipe["border"]) == (64, 4, "scene")
        np.testing.assert_allclose(recipe["psf"], gaussian_psf(), rtol=1e-12)
        _, centres = bin_response(DOMAINS[domain], WAVELENGTH_NM)
        np.testing.assert_allclose(store["wavelength_nm"], centres)
        for hdr, source in zip(tiny_scenes, recipe["scenes"], strict=True):
            assert source["name"] == hdr.stem
            for kind, digest in source["sha256"].items():
                written = hdr.with_suffix(f".{kind}").read_bytes()
                assert digest == hashlib.sha256(written).hexdigest()


def test_opening_reads_no_pixels(tiny_scenes, tmp_path):
    prepare(tiny_scenes[:1], tmp_path, tile=64, progress=False)
    store = open_tiles(tmp_path, "swir2")
    pixels = np.full((30, 64, 64), 0.25, "<f4").tobytes()
    (tmp_path / "swir2.zarr/hr/1.0.0.0").write_bytes(pixels)
    assert (store["hr"][1] == 0.25).all()


def prepared(folder, radiance, **fields):
    """Write a scene of 64 x 64 pixels and prepare it: the stores of both domains."""
    write_scene(folder / "s.hdr", [radiance], radiance.shape, WAVELENGTH_NM, **fields)
    prepare([folder / "s.hdr"], folder / "tiles", tile=64, progress=False, force=True)
    return {domain: open_tiles(folder / "tiles", domain).load() for domain in DOMAINS}


def test_negative_values_are_clipped_and_counted(tmp_path, caplog):
    radiance = smooth_radiance(64, 64, 151)
    radiance[10, 20, [5, 80]] = -1.0  # 1050 and 1800 nm
    stores = prepared(tmp_path, radiance)
    assert "s.img: 2 negative values clipped to 0" in caplog.text
    radiance[10, 20, [5, 80]] = 0.0
    for domain, store in stores.items():
        assert store.attrs["scenes"][0]["negative_clipped"] == 2
        weights, _ = bin_response(DOMAINS[domain], WAVELENGTH_NM)
        np.testing.assert_allclose(store["hr"][0, :, 10, 20], weights @ radiance[10, 20], rtol=1e-5)


def test_nan_in_a_bad_channel_does_no_harm(tmp_path):
    radiance = smooth_radiance(64, 64, 151)
    usable = np.ones(151, int)
    usable[[50, 100]] = 0
    good = prepared(tmp_path, radiance, bbl=usable.tolist())
    radiance[:, :, 50], radiance[:, :, 100] = np.nan, np.inf
    bad = prepared(tmp_path, radiance, bbl=usable.tolist())
    for domain in DOMAINS:
        np.testing.assert_allclose(bad[domain]["lr"], good[domain]["lr"], rtol=1e-5)


def test_forced_preparing_that_fails_leaves_earlier_tiles(tiny_scenes, tmp_path):
    prepare(tiny_scenes[:1], tmp_path, tile=64, progress=False)
    before = open_tiles(tmp_path, "swir1").load()
    make_scene(tmp_path / "s.hdr", spoilt=(..., np.nan))
    with pytest.raises(ValueError, match="NaN"):
        prepare([tiny_scenes[1], tmp_path / "s.hdr"], tmp_path, 64, progress=False, force=True)
    assert open_tiles(tmp_path, "swir1").load().identical(before)
    (tmp_path / ".tiles.tmp").mkdir()  # left by a killed run
    prepare(tiny_scenes[1:3], tmp_path, tile=64, progress=False, force=True)
    assert set(open_tiles(tmp_path, "swir2")["scene"].values) == {"scene-1", "scene-2"}
    assert {p.name for p in tmp_path.iterdir()} == {"swir1.zarr", "swir2.zarr", "s.hdr", "s.img"}


MEASURE = """
import re, sys
from pathlib import Path
from asnlsr.tiles.prepare import prepare

def peak_memory():
    # Not ru_maxrss, which starts from the memory of the parent process.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

base = peak_memory()
prepare([Path(sys.argv[2])], Path(sys.argv[1]))
print(base, peak_memory())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_prepare_streams(tmp_path):
    """A tenth of a published scene: far less memory than the file."""
    rows, block = 640, smooth_radiance(128, 620, 300)
    hdr = tmp_path / "big.hdr"
    blocks = [block] * (rows // 128)
    write_scene(hdr, blocks, (rows, 620, 300), np.linspace(1000, 2500, 300))
    command = [sys.executable, "-c", MEASURE, tmp_path / "tiles", hdr]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    base, peak = map(float, result.stdout.split())
    assert "100%" in result.stderr  # the progress bar
    # Blocks, a strip and its tiles take about 500 MB; the whole scene would add 476 MB.
    assert peak - base < 700e6
    assert peak < 1.5e9
