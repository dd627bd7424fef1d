"""A degraded scene: the forward operator, commuting with the binning, in its place on the map."""

import numpy as np
import pytest
import torch

from asnlsr.physics import degrade
from asnlsr.scenes.bands import BinnedScene
from asnlsr.scenes.degrade import degrade_scene
from asnlsr.scenes.envi import open_scene, write_scene
from asnlsr.scenes.header import RADIANCE, REFLECTANCE
from asnlsr.tiles.store import open_tiles
from tests.conftest import make_scene, read, smooth_radiance
from tests.test_envi import MAP, write_by_hand


@pytest.mark.parametrize(("rows", "cols", "scale"), [(70, 45, 4), (33, 64, 2), (50, 31, 3)])
def test_streamed_is_the_operator_on_the_whole(tmp_path, rows, cols, scale):
    hdr = make_scene(tmp_path / "s.hdr", rows, cols, channels=3)
    degrade_scene(hdr, tmp_path / "lr.hdr", scale, progress=False)
    _, radiance = read(hdr)
    expected = degrade(torch.from_numpy(radiance).movedim(-1, 0), scale).movedim(0, -1)
    _, low = read(tmp_path / "lr.hdr")
    assert low.shape == (rows // scale, cols // scale, 3)
    np.testing.assert_allclose(low, expected, rtol=1e-5)


def test_degrading_then_binning_is_binning_then_degrading(tiny_scenes, tiny_tiles, tmp_path):
    # Both are linear, one along the spectrum and the other across the picture.
    degrade_scene(tiny_scenes[0], tmp_path / "lr.hdr", progress=False)
    bands = BinnedScene(open_scene(tmp_path / "lr.hdr")).read_rows(0, 16)
    for domain, of_domain in zip(("swir1", "swir2"), np.split(bands, 2), strict=True):
        store = open_tiles(tiny_tiles, domain)
        tiles = store["lr"].values[store["scene"].values == "scene-0"]
        np.testing.assert_allclose(of_domain, np.concatenate(tiles, axis=-1), rtol=1e-4)


def place_of_light(hdr):
    """Map coordinates (east, south) of the centroid of the first channel."""
    scene, radiance = read(hdr)
    light = radiance[..., 0] / radiance[..., 0].sum()
    middle = (
        (np.arange(scene.cols) + 0.5) @ light.sum(0),
        (np.arange(scene.rows) + 0.5) @ light.sum(1),
    )
    info = [float(value) for value in scene.header["map info"][1:7]]
    point, origin, size = info[:2], (info[2], -info[3]), info[4:]
    return [o + (m - (p - 1)) * s for m, p, o, s in zip(middle, point, origin, size, strict=True)]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_light_stays_at_its_place_on_the_map(tmp_path, scale):
    row, col = np.mgrid[:96, :96]
    spot = np.exp(-((row - 40.3) ** 2 + (col - 57.7) ** 2) / (2 * 5**2))[..., None]
    write_scene(tmp_path / "s.hdr", [spot], (96, 96, 1), [1000], map_info=MAP)
    degrade_scene(tmp_path / "s.hdr", tmp_path / "lr.hdr", scale, progress=False)
    east, south = place_of_light(tmp_path / "s.hdr")
    assert (east, south) == pytest.approx((500000 + 58.2 * 3, -4100000 + 40.8 * 2.5), abs=1e-3)
    assert place_of_light(tmp_path / "lr.hdr") == pytest.approx([east, south], abs=0.01)


def test_header_is_complete(tmp_path):
    stored = np.full((32, 32, 3), 200)
    hdr = write_by_hand(
        tmp_path / "s.hdr", stored, "bil", 12,
        wavelength=[1.0, 1.25, 1.5], units="Micrometers", fwhm="{0.01, 0.02, 0.03}",
        bbl="{1, 0, 1}", data_gain_values="{0.5, 1, 2}", data_offset_values="{0, 10, 0}",
        acquisition_time="noon", sensor_type="HySpex", map_info="{" + ", ".join(MAP) + "}",
    )  # fmt: skip
    degrade_scene(hdr, tmp_path / "lr.hdr", progress=False)
    low, radiance = read(tmp_path / "lr.hdr")
    np.testing.assert_allclose(radiance, np.broadcast_to([100, 210, 400], (8, 8, 3)), rtol=1e-5)
    np.testing.assert_allclose(low.wavelength_nm, [1000, 1250, 1500])
    np.testing.assert_allclose(low.fwhm_nm, [10, 20, 30])
    assert low.usable.tolist() == [True, False, True]
    assert low.header["acquisition time"] == "noon"
    assert low.header["sensor type"] == "HySpex"
    assert low.header["degraded by"] == "4"
    assert [float(value) for value in low.header["map info"][5:7]] == [12, 10]


def test_what_bad_channels_hold_stays_in_them(tmp_path, caplog):
    radiance = smooth_radiance(40, 40, 3)
    radiance[5, 5] = [-0.01, np.nan, 0.02]
    hdr = tmp_path / "s.hdr"
    write_scene(hdr, [radiance], radiance.shape, [1000, 1100, 1200], bbl=[1, 0, 1])
    degrade_scene(hdr, tmp_path / "lr.hdr", progress=False)
    assert "1 negative values" in caplog.text
    radiance[5, 5] = [0, 0, 0.02]
    expected = degrade(torch.from_numpy(radiance).movedim(-1, 0)).movedim(0, -1)
    np.testing.assert_allclose(read(tmp_path / "lr.hdr")[1], expected, rtol=1e-5)


# --- what is refused, and what is told ---------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("s.hdr --out lr", ["lr", "must end in .hdr"]),
        ("s.hdr --out s.hdr", ["s.hdr", "overwrite"]),
        ("s.hdr --out lr.hdr --scale 1", ["scale 1"]),
        ("s.hdr --out lr.hdr --scale 32", ["16 x 16 pixels", "scale 32"]),
        ("s.hdr --out a.hdr", ["a.hdr", "overwrite", "a.img.hdr"]),  # whose pixels are a.img
        ("a.img.hdr --out a.hdr --force", ["overwrite its own input"]),
        ("nan.hdr --out lr.hdr", ["nan.img: NaN, infinite or ignored values"]),
        ("map.hdr --out lr.hdr", ["map info"]),
    ],
)
def test_refused(refused, tmp_path, line, words):
    for name in ("s", "a"):
        make_scene(tmp_path / f"{name}.hdr", 16, 16, channels=3)
    (tmp_path / "a.hdr").rename(tmp_path / "a.img.hdr")
    make_scene(tmp_path / "nan.hdr", 64, 64, channels=3, spoilt=((60, 7, 1), np.nan))
    make_scene(tmp_path / "map.hdr", 16, 16, channels=3, map_info=["UTM", "east"])
    refused(f"degrade {line}", *words)


@pytest.mark.parametrize(
    ("fields", "factor", "quantity", "units"),
    [
        ({"reflectance_scale_factor": 10000}, 1e-4, REFLECTANCE, None),
        ({"data_units": "uW/(cm2 sr nm)"}, 1e-2, RADIANCE, "W/(m2 sr nm)"),
    ],
)
def test_quantity_is_carried(tmp_path, fields, factor, quantity, units):
    hdr = write_by_hand(tmp_path / "s.hdr", np.full((40, 40, 3), 5000), code=12, **fields)
    degrade_scene(hdr, tmp_path / "low.hdr", progress=False)
    scene = open_scene(tmp_path / "low.hdr")
    np.testing.assert_allclose(scene.read_rows(0, 10), 5000 * factor, rtol=1e-5)
    assert scene.header["description"].endswith(f"; {quantity}")
    assert (scene.quantity, scene.header.get("data units")) == (quantity, units)
