"""ENVI files written byte by byte here, read by the package."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spectral.io import envi

from asnlsr.scenes.envi import open_scene, write_scene
from asnlsr.scenes.header import RADIANCE, REFLECTANCE
from tests.conftest import make_scene

MAP = ["UTM", "1", "1", "500000", "4100000", "3", "2.5", "11", "North", "WGS-84"]
ENVI_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
# Axes of (row, column, channel) in the order in which the file runs through them.
FILE_ORDER = {"bip": "rci", "bil": "ric", "bsq": "irc"}


def write_by_hand(hdr, values, interleave="bip", code=4, **fields):
    """Write an ENVI pair without the package; ``values`` is (rows, cols, channels)."""
    rows, cols, channels = values.shape
    ordered = np.einsum(f"rci->{FILE_ORDER[interleave]}", values)
    hdr.with_suffix(".img").write_bytes(ordered.astype("<" + ENVI_TYPES[code]).tobytes())
    wavelength = fields.pop("wavelength", [1000 + 5 * k for k in range(channels)])
    header = {
        "samples": cols, "lines": rows, "bands": channels, "header offset": 0,
        "file type": "ENVI Standard", "data type": code, "interleave": interleave,
        "byte order": 0, "wavelength units": fields.pop("units", "Nanometers"),
        "wavelength": "{" + ", ".join(map(str, wavelength)) + "}",
    } | {key.replace("_", " "): value for key, value in fields.items()}  # fmt: skip
    hdr.write_text("ENVI\n" + "".join(f"{k} = {v}\n" for k, v in header.items()))
    return hdr


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


# Files beside each other, the header that is opened, its interleave, and whose pixels it describes:
# a name, or words of the refusal.
@pytest.mark.parametrize(
    ("files", "hdr", "interleave", "expected"),
    [
        ("rad rad.img rad.img.hdr", "rad.hdr", "bip", "rad"),
        ("rad rad.img", "rad.img.hdr", "bip", "rad.img"),
        ("rad rad.img", "rad.hdr", "bip", "rad"),
        ("rad.img rad.img.hdr", "rad.hdr", "bip", ["rad.hdr", "no pixel file"]),
        ("rad.img rad.img.hdr rad.dat", "rad.hdr", "bip", "rad.dat"),
        ("conv.bil conv.bsq", "conv.hdr", "bsq", "conv.bsq"),
        ("conv.bil conv.bsq", "conv.hdr", "BIL", "conv.bil"),
        ("conv.bil conv.img", "conv.hdr", "bsq", "conv.img"),
        ("conv.bil", "conv.hdr", "bsq", ["conv.bil is not bsq"]),
        ("cal.raw cal.dat", "cal.hdr", "bip", ["cal.hdr", "cal.raw", "cal.dat"]),
        ("cal.raw cal.RAW", "cal.hdr", "bip", ["cal.hdr", "cal.raw", "cal.RAW"]),
        ("UP.IMG", "UP.HDR", "bip", "UP.IMG"),
        ("UP.Raw", "UP.hdr", "bip", "UP.Raw"),
        ("up.dat", "UP.HDR", "bip", "up.dat"),
        ("up.img UP.IMG", "UP.hdr", "bip", "UP.IMG"),
        ("other.img s.png s.txt", "s.hdr", "bip", ["s.hdr", "no pixel file"]),
    ],
)
def test_pixels_belong_to_one_header(tmp_path, files, hdr, interleave, expected):
    make = write_by_hand(tmp_path / "made.hdr", np.zeros((2, 3, 4)))
    (tmp_path / hdr).write_text(make.read_text().replace("= bip", f"= {interleave}"))
    for name in files.split():
        content = [ord(c) for c in name.ljust(24)]  # each tells whose it is
        (tmp_path / name).write_bytes(np.array(content, "<f4").tobytes())
    make.unlink()
    make.with_suffix(".img").unlink()
    if isinstance(expected, list):
        with pytest.raises((ValueError, FileNotFoundError)) as refused:
            open_scene(tmp_path / hdr)
        assert all(word in str(refused.value) for word in expected)
    else:
        scene = open_scene(tmp_path / hdr)
        assert scene.img == tmp_path / expected
        assert scene.read_rows(0, 2)[0, 0, 0] == ord(expected[0])


def said(hdr, **fields):
    """Write a scene of 2 x 3 x 4 pixels that holds 0 to 23, with what its header says besides."""
    return write_by_hand(hdr, np.arange(24).reshape(2, 3, 4), "bil", 12, **fields)


@pytest.mark.parametrize(
    ("fields", "factor", "quantity"),
    [
        ({"reflectance_scale_factor": 10000}, 1e-4, REFLECTANCE),
        ({"reflectance_scale_factor": 1}, 1, REFLECTANCE),
        ({"data_units": "Reflectance"}, 1, REFLECTANCE),
        ({"data_units": "surface reflectance", "reflectance_scale_factor": 100}, 0.01, REFLECTANCE),
        ({"data_units": "W/m2/sr/nm"}, 1, RADIANCE),
        ({"data_units": "W m-2 sr-1 nm-1"}, 1, RADIANCE),
        ({"data_units": "W/(m^2 * sr * um)"}, 1e-3, RADIANCE),
        ({"data_units": "Wm⁻²sr⁻¹µm⁻¹"}, 1e-3, RADIANCE),
        ({"data_units": "mW / (m**2 nm sr)"}, 1e-3, RADIANCE),
        ({"data_units": "uW/cm^2/nm/sr"}, 1e-2, RADIANCE),
        ({"data_units": "microwatts per cm^2 per nm per steradian"}, 1e-2, RADIANCE),
        ({"data_units": "W cm-2 sr-1 micron-1"}, 10, RADIANCE),
        ({"data_gain_values": "{2, 2, 2, 2}", "data_units": "uW/(cm2 sr nm)"}, 0.02, RADIANCE),
        ({"file_compression": 0, "major_frame_offsets": "{0, 0}"}, 1, RADIANCE),
        ({"scale_factor": 1.0}, 1, RADIANCE),
    ],
)
def test_quantity_is_honoured(tmp_path, fields, factor, quantity):
    scene = open_scene(said(tmp_path / "s.hdr", **fields))
    expected = np.arange(24).reshape(2, 3, 4) * factor
    np.testing.assert_allclose(scene.read_rows(0, 2), expected, rtol=1e-6)
    assert scene.quantity == quantity


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data_units": "DN"}, "data units = DN"),
        ({"data_units": "W/m2/nm"}, "data units"),  # irradiance
        ({"data_units": "W/m2/sr"}, "data units"),  # of all wavelengths together
        ({"data_units": "100 * W/(m2 sr nm)"}, "data units"),
        ({"data_units": "reflectance in percent"}, "data units"),
        ({"reflectance_scale_factor": 0}, "reflectance scale factor"),
        ({"reflectance_scale_factor": 100, "data_units": "W/m2/sr/nm"}, "of radiance: remove"),
        ({"reflectance_scale_factor": 100, "data_gain_values": "{2, 2, 2, 2}"}, "gain or offset"),
        ({"data_reflectance_gain_values": "{2, 2, 2, 2}"}, "data reflectance gain values"),
        ({"data_scale_factor": 0.1}, "data scale factor = 0.1"),
        ({"scale_factor": 100}, "scale factor"),
        ({"radiance_offset": -5}, "radiance offset"),
        ({"data_bias": 3}, "data bias"),
        ({"file_compression": 1}, "file compression"),
        ({"major_frame_offsets": "{8, 0}"}, "major frame offsets"),
        ({"file_type": "ENVI Classification"}, "file type = ENVI Classification"),
        ({"units": "GHz"}, "wavelength units = GHz"),
        ({"units": "Index"}, "wavelength units"),
    ],
)
def test_quantity_that_is_not_honoured_is_refused(tmp_path, fields, words):
    with pytest.raises(ValueError, match=r"s\.hdr") as refused:
        open_scene(said(tmp_path / "s.hdr", **fields))
    assert words in str(refused.value)


# --- any header --------------------------------------------------------------------------------

FUZZ = settings(
    max_examples=int(os.environ.get("ASNLSR_FUZZ", 60)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SPACES = st.text(" \t", max_size=3)
PER_NM = dict.fromkeys(["nm", "NM", "Nanometer", "Nanometers", "nanometres"], 1)
PER_NM |= dict.fromkeys(["Micrometer", "um", "Microns", "micron", "µm", "\xb5M"], 1e-3)
PER_NM["Angstroms"] = 10
COMMENTS = st.sampled_from(["", " ; a comment", ";bands = 9", " ;", ","])


@st.composite
def headers(draw):
    """Draw values, the bytes of a file that holds them, and the text of a header that says how."""
    rows, cols, channels = (draw(st.integers(1, 4)) for _ in range(3))
    code, interleave = (draw(st.sampled_from(list(kinds))) for kinds in (ENVI_TYPES, FILE_ORDER))
    big, lead = draw(st.booleans()), draw(st.integers(0, 9))
    least = 0 if ENVI_TYPES[code][0] == "u" else -100
    count = rows * cols * channels
    values = draw(st.lists(st.integers(least, 120), min_size=count, max_size=count))
    values = np.array(values).reshape(rows, cols, channels)
    nm = sorted(draw(st.sets(st.integers(400, 2500), min_size=channels, max_size=channels)))
    unit = draw(st.sampled_from(list(PER_NM)))
    usable = draw(st.lists(st.sampled_from([0, 1]), min_size=channels, max_size=channels))
    gain = draw(st.lists(st.sampled_from([0.5, 1, 2]), min_size=channels, max_size=channels))
    brace = draw(st.sampled_from(["{", "\n{"]))
    breaks = draw(st.sampled_from([", ", ",", " ,\n ", ",;comment\n"]))
    fields = {
        "samples": cols, "lines": rows, "bands": channels, "data type": code,
        "interleave": draw(st.sampled_from([interleave, interleave.upper()])),
        "header offset": lead, "byte order": int(big), "wavelength units": unit,
        "wavelength": [value * PER_NM[unit] for value in nm], "bbl": usable,
        "data gain values": gain,
        "description": "{any {words} bands = 7 ; and\n lines = 9}",
    }  # fmt: skip
    lines = []
    for name, value in draw(st.permutations(list(fields.items()))):
        before, after, comment = draw(SPACES), draw(SPACES), draw(COMMENTS)
        if isinstance(value, list):
            value = brace + breaks.join(map(str, value)) + draw(st.sampled_from(["}", "\n,}"]))
        name = draw(st.sampled_from([name, name.upper(), name.title()]))
        lines.append(f"{before}{name}{after}={before}{value}{after}{comment}")
    newline = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\n; lines = 7\n"]))
    text = draw(st.sampled_from(["ENVI", "\nENVI ", "envi"])) + newline + newline.join(lines)
    text = text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"])))
    ordered = np.einsum(f"rci->{FILE_ORDER[interleave]}", values)
    stored = ordered.astype((">" if big else "<") + ENVI_TYPES[code])
    return values * np.array(gain), nm, usable, text, b"\7" * lead + stored.tobytes()


@FUZZ
@given(drawn=headers())
def test_fuzz_any_valid_header_is_read_exactly(tmp_path, drawn):
    values, nm, usable, text, pixels = drawn
    (tmp_path / "s.hdr").write_bytes(text)
    (tmp_path / "s.img").write_bytes(pixels)
    scene = open_scene(tmp_path / "s.hdr")
    for first in range(scene.rows):
        block = scene.read_rows(first, scene.rows)
        assert block.dtype == np.dtype("=f4")
        np.testing.assert_array_equal(block, values[first:])
    np.testing.assert_allclose(scene.wavelength_nm, nm)
    assert scene.usable.tolist() == usable


@FUZZ
@given(drawn=headers(), data=st.data())
def test_fuzz_any_damaged_header_ends_in_one_line(tmp_path, drawn, data):
    """Or is one of another scene that fits the same bytes."""
    *_, text, pixels = drawn
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 20)))
    spoilt = text[:start] + data.draw(st.binary(max_size=8)) + text[stop:]
    (tmp_path / "s.hdr").write_bytes(spoilt)
    (tmp_path / "s.img").write_bytes(pixels)
    told = str(tmp_path)
    try:
        scene = open_scene(tmp_path / "s.hdr")
        assert scene.read_rows(0, scene.rows).shape == (scene.rows, scene.cols, scene.channels)
    except (ValueError, OSError) as error:
        told = str(error)
    assert str(tmp_path) in told


def test_real_scenes_are_calibrated(shared):
    for hdr in sorted((shared / "data/aviris").glob("*.hdr")):
        scene = open_scene(hdr)
        radiance = scene.read_rows(0, scene.rows)[..., scene.usable]
        stored = np.fromfile(scene.img, "<u2").reshape(scene.rows, scene.channels, scene.cols)
        expected = stored[40, :, 60][scene.usable] * 1e-5
        np.testing.assert_allclose(radiance[40, 60], expected, rtol=1e-6)
        assert radiance.max() < 2  # the ceiling of the log scaling
