"""The simulator: physics, statistics of the pictures, calibration against the published row."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

from asnlsr.metrics import tile_metrics
from asnlsr.physics import log_scale
from asnlsr.scenes.envi import open_scene
from asnlsr.scenes.simulator.painting import CODE, Canvas, panel
from asnlsr.scenes.simulator.simulate import (
    MATERIALS,
    PHOTON_NOISE,
    READ_NOISE,
    WAVELENGTH_NM,
    reflectance,
    simulate,
    sunlight,
    twin,
)
from asnlsr.tiles.prepare import prepare
from asnlsr.tiles.store import open_tiles
from tests.conftest import make_scene

SMALL = (64, 48)


def slope(picture):
    """Exponent of the radially averaged power spectrum between 0.05 and 0.4 cycles per pixel."""
    rows, cols = picture.shape
    window = np.hanning(rows)[:, None] * np.hanning(cols)
    power = np.abs(np.fft.fft2((picture - picture.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(cols))
    points = []
    for low, high in pairwise(np.linspace(0.05, 0.4, 15)):
        ring = (radius >= low) & (radius < high)
        points.append((np.log(radius[ring]).mean(), np.log(power[ring].mean())))
    return float(np.polyfit(*np.transpose(points), 1)[0])


def nearest(wavelength_nm):
    return int(np.argmin(np.abs(WAVELENGTH_NM - wavelength_nm)))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("small")
    return [open_scene(hdr) for hdr in simulate(out, 2, SMALL, progress=False)]


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    out = tmp_path_factory.mktemp("default")
    return [open_scene(hdr) for hdr in simulate(out, progress=False)]


def test_a_scene_depends_on_the_seed_and_not_on_how_many_are_asked_for(small, tmp_path):
    (again,), (other,) = (
        simulate(tmp_path / str(seed), 1, SMALL, seed, progress=False) for seed in (0, 4)
    )
    first = small[0].hdr  # of two, seed 0
    pixels = [hdr.with_suffix(".img").read_bytes() for hdr in (first, again, other)]
    assert pixels[0] == pixels[1] != pixels[2]


def test_four_parks_and_two_buildings(tmp_path):
    names = [hdr.stem for hdr in simulate(tmp_path, 6, (32, 32), progress=False)]
    assert names == ["park-0", "buildings-1", "park-2", "park-3", "buildings-4", "park-5"]


def test_the_files_are_envi_radiance(small):
    for scene in small:
        assert (scene.rows, scene.cols) == SMALL
        np.testing.assert_allclose(scene.wavelength_nm, np.linspace(1000, 2500, 300), atol=0.01)
        header = scene.hdr.read_text().lower()
        assert "w m-2 sr-1 nm-1" in header
        assert "simulated" in header
        radiance = scene.read_rows(0, scene.rows)
        # The full beam on a white surface gives 0.69 / pi = 0.22 W m-2 sr-1 nm-1 at 1000 nm.
        assert 0.005 < radiance[..., :10].mean() < 0.22
        assert radiance.min() >= 0


def test_sunlight_agrees_with_the_standard():
    beam, sky = sunlight()
    # ASTM G173: direct and circumsolar 0.2202 and 0.0702 W m-2 nm-1 at 1650 and 2200 nm.
    assert beam[nearest(1650)] == pytest.approx(0.2202, rel=0.05)
    assert beam[nearest(2200)] == pytest.approx(0.0702, rel=0.05)
    share = sky / beam
    assert share[nearest(1050)] > 1.5 * share[nearest(1650)] > 1.5 * share[nearest(2200)]


def test_reflectance_is_held_beyond_the_library():
    for material in MATERIALS:
        spectra = reflectance(material)
        assert ((spectra >= 0) & (spectra <= 1.02)).all()
        np.testing.assert_allclose(spectra[:, -1], spectra[:, nearest(2455)])


def test_the_twin_is_the_scene_without_its_noise(small):
    """What is left over has mean 0 and, in every range of radiance, the variance of the sensor."""
    for scene in small:
        clean = open_scene(twin(scene.hdr)).read_rows(0, scene.rows)
        noise = (scene.read_rows(0, scene.rows) - clean) / np.sqrt(
            READ_NOISE**2 + PHOTON_NOISE * clean
        )
        for low, high in ((0.001, 0.01), (0.01, 0.03), (0.03, 0.1)):  # no end is clipped
            inside = noise[(clean >= low) & (clean < high)]
            assert inside.size > 1000
            assert abs(inside.mean()) < 4 / np.sqrt(inside.size)
            assert inside.var() == pytest.approx(1, abs=6 * np.sqrt(2 / inside.size))


@pytest.mark.parametrize("border", ["scene", "zero"])
def test_tiles_carry_layers_beside_unchanged_pixels(small, tmp_path, border):
    settings = {"tile": 32, "border": border, "progress": False}
    for scene in small:
        shutil.copy(scene.hdr, tmp_path)
        shutil.copy(scene.img, tmp_path)
    prepare([tmp_path / scene.hdr.name for scene in small], tmp_path / "plain", **settings)
    prepare([scene.hdr for scene in small], tmp_path / "layered", **settings)
    for domain in ("swir1", "swir2"):
        without, tiles = (open_tiles(tmp_path / name, domain) for name in ("plain", "layered"))
        for name in ("hr", "lr", "lr_x2"):
            np.testing.assert_array_equal(without[name], tiles[name])
        assert not {"clean", "fractions"} & set(without)
        np.testing.assert_allclose(tiles["fractions"].sum("material"), 1, atol=1e-5)
        assert float(tiles["fractions"].min()) > -1e-6
        assert list(tiles["material"].values) == list(MATERIALS)
        # 30 bands average about 3 channels: half the noise of one, and that is small
        assert abs(float((tiles["hr"] - tiles["clean"]).mean())) < 1e-5
        assert 0 < float((tiles["hr"] - tiles["clean"]).std()) < 2 * READ_NOISE + 0.002


def test_layers_of_another_scene_are_refused(small, tmp_path):
    folder = shutil.copytree(small[0].hdr.parent, tmp_path / "scenes")
    hdr = make_scene(folder / "park-0.hdr", rows=32, cols=48)
    with pytest.raises(ValueError, match=r"not of the size of .*park-0\.hdr"):
        prepare([hdr], tmp_path / "tiles", tile=32, progress=False)
    twin(hdr).with_suffix(".npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="damaged"):
        prepare([hdr], tmp_path / "tiles", tile=32, progress=False)


def test_bricks_end_at_the_edge_of_the_picture():
    canvas = Canvas.blank(np.random.default_rng(0), (16, 16))
    panel(canvas, (4, 50, -5, 40), "brick", 0.5, 0.5, 0.5, course=(4, 8))
    assert (canvas.material[4:] == CODE["brick"]).all()
    assert (canvas.material[:4] == CODE["white"]).all()


def test_too_small_a_picture_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least"):
        simulate(tmp_path, 1, (16, 64))


@pytest.mark.slow
def test_pictures_have_natural_statistics(default):
    for scene in default:
        radiance = scene.read_rows(0, scene.rows)[..., nearest(1250)]
        assert -2.4 < slope(np.log(np.maximum(radiance, 1e-4))) < -1.7, scene.name


@pytest.mark.slow
def test_bicubic_lands_near_the_published_row(default, tmp_path):
    """Protocol as-released: tiles of 128 blurred alone with a zero border, log-scaled values."""
    prepare([s.hdr for s in default], tmp_path, tile=128, border="zero", progress=False)
    tiles = open_tiles(tmp_path, "swir2")
    truth, low = (log_scale(torch.tensor(tiles[name].values)) for name in ("hr", "lr"))
    enlarged = torch.nn.functional.interpolate(low, scale_factor=4, mode="bicubic")
    peak = float(truth.max() - truth.min())
    reached = tile_metrics(enlarged, truth, peak)
    # published: 31.89 dB, 0.78, 5.099 degrees
    assert float(reached["psnr"].mean()) == pytest.approx(31.9, abs=1.5)
    assert float(reached["ssim"].mean()) == pytest.approx(0.78, abs=0.05)
    assert float(reached["sam_deg"].mean()) == pytest.approx(5.1, abs=1.5)
