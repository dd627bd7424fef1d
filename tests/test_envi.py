"""ENVI files written byte by byte here, read by the package."""

import numpy as np
import pytest
from spectral.io import envi

from asnlsr.scenes.envi import open_scene, write_scene
from tests.conftest import make_scene

MAP = ["UTM", "1", "1", "500000", "4100000", "3", "2.5", "11", "North", "WGS-84"]
ENVI_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
# Axes of (row, column, channel) in the order in which the file runs through them.
FILE_ORDER = {"bip": "rci", "bil": "ric", "bsq": "irc"}


def write_by_hand(hdr, values, interleave="bip", code=4, big_endian=False, lead=0, **fields):
    """Write an ENVI pair without the package; ``values`` is (rows, cols, channels)."""
    rows, cols, channels = values.shape
    ordered = np.einsum(f"rci->{FILE_ORDER[interleave]}", values)
    stored = ordered.astype((">" if big_endian else "<") + ENVI_TYPES[code])
    hdr.with_suffix(".img").write_bytes(b"\7" * lead + stored.tobytes())
    wavelength = fields.pop("wavelength", [1000 + 5 * k for k in range(channels)])
    header = {
        "samples": cols, "lines": rows, "bands": channels, "header offset": lead,
        "file type": "ENVI Standard", "data type": code, "interleave": interleave,
        "byte order": int(big_endian), "wavelength units": fields.pop("units", "Nanometers"),
        "wavelength": "{" + ", ".join(map(str, wavelength)) + "}",
    } | {key.replace("_", " "): value for key, value in fields.items()}  # fmt: skip
    hdr.write_text("ENVI\n" + "".join(f"{k} = {v}\n" for k, v in header.items()))
    return hdr


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("interleave", FILE_ORDER)
@pytest.mark.parametrize("code", ENVI_TYPES)
def test_every_layout_reads_the_same(tmp_path, code, interleave, big_endian):
    values = np.random.default_rng(0).integers(0, 200, (7, 5, 4))
    hdr = write_by_hand(tmp_path / "s.hdr", values, interleave, code, big_endian, lead=11)
    scene = open_scene(hdr)
    assert (scene.name, scene.rows, scene.cols, scene.channels) == ("s", 7, 5, 4)
    block = scene.read_rows(2, 6)
    assert block.dtype == np.float32
    assert block.dtype.isnative
    np.testing.assert_array_equal(block, values[2:6])


def test_gain_offset_bad_bands_and_micrometres(tmp_path):
    values = np.arange(24).reshape(2, 3, 4)
    hdr = write_by_hand(
        tmp_path / "s.hdr", values, "bil", 12,
        wavelength=[1.0, 1.25, 1.5, 2.0], units="Micrometers", bbl="{1, 0, 1, 0}",
        data_gain_values="{0.5, 1, 2, 4}", data_offset_values="{0, 10, 0, -1}",
    )  # fmt: skip
    scene = open_scene(hdr)
    np.testing.assert_allclose(scene.wavelength_nm, [1000, 1250, 1500, 2000])
    assert scene.usable.tolist() == [True, False, True, False]
    # Pixel (1, 2) holds 20, 21, 22, 23.
    np.testing.assert_allclose(scene.read_rows(0, 2)[1, 2], [10, 31, 44, 91])


def test_written_scene_opens_with_the_spectral_library(tmp_path):
    radiance = np.random.default_rng(0).random((6, 5, 4), np.float32)
    wavelength = [1000.123456, 1100, 1200, 1300]
    blocks = [radiance[:4], radiance[4:]]
    write_scene(tmp_path / "s.hdr", blocks, radiance.shape, wavelength, acquisition_time="noon")
    image = envi.open(str(tmp_path / "s.hdr"))
    np.testing.assert_array_equal(np.asarray(image.load()), radiance)
    assert image.metadata["acquisition time"] == "noon"
    scene = open_scene(tmp_path / "s.hdr")
    np.testing.assert_array_equal(scene.read_rows(0, 6), radiance)
    np.testing.assert_allclose(scene.wavelength_nm, wavelength, rtol=1e-9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.hdr", "s.img"]


def test_interrupted_writing_leaves_the_earlier_scene(tmp_path):
    make_scene(tmp_path / "s.hdr")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def blocks():
        yield np.zeros((4, 5, 3), np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scene(tmp_path / "s.hdr", blocks(), (8, 5, 3), [1000, 1100, 1200])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("shape", [(3, 5, 3), (5, 5, 3), (4, 6, 3)])
def test_blocks_that_do_not_fit_are_refused(tmp_path, shape):
    with pytest.raises(ValueError, match=r"s\.hdr: block"):
        write_scene(tmp_path / "s.hdr", [np.zeros(shape)], (4, 5, 3), [1000, 1100, 1200])
    assert not list(tmp_path.iterdir())


def test_scene_larger_than_memory_opens_at_once(tmp_path):
    # 430 GB, a hole in the file system: whoever reads it whole does not come back.
    hdr = write_by_hand(tmp_path / "s.hdr", np.ones((1, 620, 300)))
    hdr.write_text(hdr.read_text().replace("lines = 1\n", "lines = 580900\n"))
    with (tmp_path / "s.img").open("r+b") as file:
        file.truncate(580900 * 620 * 300 * 4)
    scene = open_scene(hdr)
    assert scene.read_rows(0, 1).min() == 1
    assert scene.read_rows(580899, 580900).max() == 0


@pytest.mark.parametrize(("code", "value"), [(4, -9999.0), (12, 65535), (2, -9999)])
def test_ignored_values_are_no_radiance(tmp_path, code, value):
    """A gain does not change what is stored; a value that the type cannot hold marks nothing."""
    values = np.ones((2, 3, 4))
    values[1, 2, 3] = value
    fields = {"data_ignore_value": value, "data_gain_values": "{0.5, 0.5, 0.5, 0.5}"}
    scene = open_scene(write_by_hand(tmp_path / "s.hdr", values, code=code, **fields))
    radiance = scene.read_rows(0, 2)
    assert np.argwhere(np.isnan(radiance)).tolist() == [[1, 2, 3]]
    assert np.nanmax(radiance) == 0.5
    text = scene.hdr.read_text().replace(f"value = {value}", "value = 1e9")
    scene.hdr.write_text(text)
    assert np.isfinite(open_scene(scene.hdr).read_rows(0, 2)).all()


def test_real_scenes_are_calibrated(shared):
    for hdr in sorted((shared / "data/aviris").glob("*.hdr")):
        scene = open_scene(hdr)
        radiance = scene.read_rows(0, scene.rows)[..., scene.usable]
        stored = np.fromfile(scene.img, "<u2").reshape(scene.rows, scene.channels, scene.cols)
        expected = stored[40, :, 60][scene.usable] * 1e-5
        np.testing.assert_allclose(radiance[40, 60], expected, rtol=1e-6)
        assert radiance.max() < 2  # the ceiling of the log scaling
