"""A whole scene upscaled: what is written, what a kill leaves, what is refused."""

import itertools
import os
import shutil

import matplotlib.image
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import asnlsr.upscale as module
from asnlsr.config import Experiment
from asnlsr.models.registry import build
from asnlsr.physics import gaussian_psf, log_scale, unscale
from asnlsr.scenes.bands import BinnedScene, SceneBands
from asnlsr.scenes.degrade import degrade_scene
from asnlsr.scenes.envi import open_scene, write_scene
from asnlsr.scenes.windows import OVERLAP, WINDOW, enlarged_rows, ramps, spans
from asnlsr.training.folder import load_run
from asnlsr.training.run import train
from asnlsr.upscale import LEAST, in_pieces, upscale
from tests.conftest import assert_refused, make_scene, read, smooth_radiance
from tests.test_envi import MAP


@pytest.fixture(scope="module")
def runs(tiny_set, tmp_path_factory):
    """Two methods without weights, and a network for 30 bands after a single step."""
    folder = tmp_path_factory.mktemp("runs")
    for model in ("bicubic", "bicubic-centred", "esrt"):
        settings = {"steps": 1} if model == "esrt" else {}
        experiment = Experiment(model, "smoke", settings=settings)
        train(experiment, tiny_set, folder / model, progress=False)
    return folder


@pytest.fixture(scope="module")
def lr(tmp_path_factory):
    """A low-resolution scene of 20 x 17 pixels that says what it is of."""
    return make_scene(
        tmp_path_factory.mktemp("lr") / "field.hdr", 20, 17,
        map_info=MAP, acquisition_time="noon", degraded_by=4, fwhm=[6] * 151,
    )  # fmt: skip


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- what is written ---------------------------------------------------------------------------


def test_binned_bands_of_both_domains(runs, lr, tmp_path):
    upscale(lr, runs / "esrt", tmp_path / "hr.hdr", progress=False)
    assert sorted(files(tmp_path)) == ["hr.hdr", "hr.img", "hr.png"]
    scene, radiance = read(tmp_path / "hr.hdr")
    assert (scene.rows, scene.cols, scene.channels) == (80, 68, 60)
    bands = BinnedScene(open_scene(lr))
    # A channel at 1700 nm is the last bin of SWIR1 and the first of SWIR2.
    np.testing.assert_allclose(scene.wavelength_nm, bands.centres_nm, atol=0.002)
    # 1000-1700 nm in 45 bins and 1700-2500 nm in 38, as the published sensor's, here from 10 nm.
    np.testing.assert_allclose(scene.fwhm_nm[[0, 59]], [700 / 45, 800 / 38], rtol=0.03)
    network, _ = load_run(runs / "esrt")
    z = log_scale(torch.from_numpy(bands.read_rows(0, 20)))
    with torch.no_grad():
        expected = torch.cat([network(z[None, :30]).sr[0], network(z[None, 30:]).sr[0]])
    np.testing.assert_allclose(radiance, unscale(expected).movedim(0, -1), rtol=1e-5)


def test_own_bands_of_the_sensor(runs, lr, tmp_path):
    upscale(lr, runs / "bicubic", tmp_path / "hr.hdr", progress=False)
    scene, radiance = read(tmp_path / "hr.hdr")
    low, coarse = read(lr)
    np.testing.assert_array_equal(scene.wavelength_nm, low.wavelength_nm)
    np.testing.assert_array_equal(scene.fwhm_nm, low.fwhm_nm)
    z = log_scale(torch.from_numpy(coarse).movedim(-1, 0))[None]
    expected = unscale(build("bicubic")(z).sr[0]).movedim(0, -1)
    np.testing.assert_allclose(radiance, expected, rtol=1e-5)


def test_header_says_what_made_it(runs, lr, tmp_path):
    upscale(lr, runs / "esrt", tmp_path / "hr.hdr", progress=False)
    header = open_scene(tmp_path / "hr.hdr").header
    for word in ("field", "enlarged by 4", "ESRT", "run esrt", "W m-2 sr-1 nm-1"):
        assert word in header["description"]
    assert header["acquisition time"] == "noon"
    assert "degraded by" not in header
    # Degrading undoes it: the map is that of the low-resolution scene again.
    degrade_scene(tmp_path / "hr.hdr", tmp_path / "again.hdr", progress=False)
    again = open_scene(tmp_path / "again.hdr").header["map info"]
    assert again[0] == "UTM"
    assert [float(x) for x in again[1:7]] == pytest.approx([float(x) for x in MAP[1:7]])


@pytest.mark.parametrize(("model", "takes_it"), [("bicubic", False), ("bicubic-centred", True)])
def test_what_takes_the_psf_as_known_says_so(model, takes_it, runs, lr, tmp_path, caplog):
    upscale(lr, runs / model, tmp_path / "hr.hdr", progress=False)
    description = open_scene(tmp_path / "hr.hdr").header["description"]
    assert ("takes the PSF" in description, "takes the PSF" in caplog.text) == (takes_it, takes_it)


def test_psf_that_is_given_replaces_the_one_assumed(call, runs, lr, tmp_path):
    upscale(lr, runs / "bicubic-centred", tmp_path / "hr.hdr", progress=False)
    moved = np.roll(gaussian_psf(), 2, axis=1)
    for name, psf in (("same", 7 * gaussian_psf()), ("moved", moved)):
        np.savetxt(tmp_path / f"{name}.txt", psf)
        line = UPSCALE.format(lr, runs / "bicubic-centred", f"{name}.hdr")
        assert call(f"{line} --psf {name}.txt")[0] == 0
    assert files(tmp_path)["same.img"] == files(tmp_path)["hr.img"]
    said = open_scene(tmp_path / "moved.hdr").header["description"]
    assert "that was given" in said
    assert "takes the PSF" not in said
    # As the method does with it, here over the whole scene, which fits in one window.
    network, _ = load_run(runs / "bicubic-centred")
    network.take_psf(moved)
    bands = SceneBands(open_scene(lr))
    z = log_scale(torch.from_numpy(bands.read_rows(0, 20)))[None]
    radiance = read(tmp_path / "moved.hdr")[1]
    np.testing.assert_allclose(radiance, unscale(network(z).sr)[0].movedim(0, -1), rtol=1e-4)


def test_quick_look_shows_both_domains_and_is_thinned(runs, tmp_path):
    hdr = make_scene(tmp_path / "long.hdr", 300, 16, channels=61)
    upscale(hdr, runs / "bicubic", tmp_path / "hr.hdr", progress=False)
    picture = matplotlib.image.imread(tmp_path / "hr.png")
    assert picture.shape == (600, 2 * 32, 4)  # every second of 1200 x 64, side by side
    for half in np.split(picture[..., :3], 2, axis=1):
        assert half.std() > 0.1


def test_real_scene(shared, runs, tmp_path):
    hdr = shared / "data/aviris/jasper_ridge.hdr"
    degrade_scene(hdr, tmp_path / "lr.hdr", progress=False)
    upscale(tmp_path / "lr.hdr", runs / "esrt", tmp_path / "binned.hdr", progress=False)
    assert read(tmp_path / "binned.hdr")[1].shape == (100, 100, 60)
    upscale(tmp_path / "lr.hdr", runs / "bicubic", tmp_path / "own.hdr", progress=False)
    scene, radiance = read(tmp_path / "own.hdr")
    truth_scene, truth = read(hdr)
    np.testing.assert_array_equal(scene.usable, truth_scene.usable)
    z, truth_z = (log_scale(x[..., scene.usable]) for x in (radiance, truth))
    # Most of what tells pixels apart is left.
    assert np.sqrt(((z - truth_z) ** 2).mean()) < truth_z.std((0, 1)).mean() / 2


# --- interrupted -------------------------------------------------------------------------------

ROW_BYTES = 64 * 60 * 4  # of the output of `tall`


@pytest.fixture(scope="module")
def tall(tmp_path_factory):
    """A low-resolution scene of three rows of windows."""
    return make_scene(tmp_path_factory.mktemp("tall") / "tall.hdr", 200, 16)


@pytest.fixture(scope="module")
def unbroken(runs, tall):
    """Its output, made without a break."""
    upscale(tall, runs / "esrt", tall.parent / "out/hr.hdr", progress=False)
    return files(tall.parent / "out")


class Killed(BaseException):
    """Caught nowhere, as little as a signal."""


def broken_off(monkeypatch, call, *arguments):
    """Break off before it writes for the `call`-th time: what is left."""
    calls = iter(range(1, call))

    def deadly(z):
        if next(calls, None) is None:
            raise Killed
        return unscale(z)

    with monkeypatch.context() as patch:
        patch.setattr(module, "unscale", deadly)
        with pytest.raises(Killed):
            upscale(*arguments, progress=False)
    (left,) = arguments[2].parent.glob("*")  # nothing else
    assert (left.name[0], left.suffix) == (".", ".part")
    return left


@pytest.fixture
def firsts(monkeypatch):
    """Rows of windows from which scenes were computed."""
    found, enlarged = [], module.enlarged_rows

    def noted(*arguments, window):
        found.append(arguments[-1])
        return enlarged(*arguments, window=window)

    monkeypatch.setattr(module, "enlarged_rows", noted)
    return found


def test_larger_windows_are_gone_on_with(runs, tall, tmp_path, monkeypatch, firsts):
    """Those of a method for any number of bands, which are fewer: a block ends after 336 rows."""
    upscale(tall, runs / "bicubic", tmp_path / "out/hr.hdr", progress=False)
    whole = files(tmp_path / "out")
    left = broken_off(monkeypatch, 30, tall, runs / "bicubic", tmp_path / "broken/hr.hdr")
    assert left.stat().st_size > 336 * len(whole["hr.img"]) / 800
    upscale(tall, runs / "bicubic", tmp_path / "broken/hr.hdr", progress=False)
    assert files(tmp_path / "broken") == whole
    assert firsts == [0, 0, 1]


def test_what_is_left_is_gone_on_with(runs, tall, unbroken, tmp_path, monkeypatch, firsts):
    """Of 800 rows, written 16 at a time, a block ends after 216 and 432; none is computed twice."""
    left = broken_off(monkeypatch, 45, tall, runs / "esrt", tmp_path / "hr.hdr")
    pixels = unbroken["hr.img"]
    assert left.read_bytes() == pixels[: left.stat().st_size] != b""
    firsts.clear()
    for size in (left.stat().st_size, 0, 432 * ROW_BYTES, 432 * ROW_BYTES - 1, 800 * ROW_BYTES):
        left.write_bytes(pixels[:size])
        upscale(tall, runs / "esrt", tmp_path / "hr.hdr", progress=False)
        assert files(tmp_path) == unbroken
        for path in tmp_path.iterdir():
            path.unlink()
    assert firsts == [2, 0, 2, 1]  # of the blocks 0, 1, 2; none where all is written


def test_only_what_it_left_itself_is_removed(runs, lr, tmp_path):
    """`hr.hdr` and `hr.2.hdr` may be made at the same time."""
    own, other = (tmp_path / f".{name}.{'0' * 12}.part" for name in ("hr", "hr.2"))
    own.touch()
    other.touch()
    upscale(lr, runs / "bicubic", tmp_path / "hr.hdr", progress=False)
    assert (own.exists(), other.exists()) == (False, True)


def test_finished_output_is_left_alone_and_completed(runs, lr, tmp_path):
    upscale(lr, runs / "esrt", tmp_path / "hr.hdr", progress=False)
    whole = files(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    upscale(lr, runs / "esrt", tmp_path / "hr.hdr", progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    for missing in ("hr.png", "hr.img"):  # killed between the last files
        (tmp_path / missing).unlink()
        upscale(lr, runs / "esrt", tmp_path / "hr.hdr", progress=False)
        assert files(tmp_path) == whole


def test_left_over_of_another_run_is_not_gone_on_with(runs, tall, unbroken, tmp_path, monkeypatch):
    out = tmp_path / "hr.hdr"
    broken_off(monkeypatch, 45, tall, runs / "bicubic", out)
    upscale(tall, runs / "esrt", out, progress=False)
    assert files(tmp_path) == unbroken


# --- what is refused ---------------------------------------------------------------------------


UPSCALE = "upscale {} --run {} --out {}"


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ({"rows": 15}, ["s.hdr", "15 x 20 pixels", "16 a side"]),
        ({"cols": 8}, ["s.hdr", "20 x 8 pixels"]),
        ({"degraded_by": 2}, ["esrt", "enlarges by 4", "s.hdr was degraded by 2"]),
        ({"degraded_by": "half"}, ["s.hdr", "degraded by"]),
        ({"channels": 40}, ["s.hdr", "30 are needed"]),
        ({"map_info": ["UTM", "east"]}, ["s.hdr", "map info"]),
    ],
)
def test_unsuitable_scene(refused, runs, tmp_path, scene, words):
    make_scene(tmp_path / "s.hdr", **({"rows": 20, "cols": 20} | scene))
    refused(UPSCALE.format("s.hdr", runs / "esrt", "hr.hdr"), *words)


def test_nan_in_the_last_rows_leaves_nothing(refused, runs, tmp_path):
    make_scene(tmp_path / "s.hdr", 200, 16, spoilt=((199, 3, 7), np.nan))
    line = UPSCALE.format("s.hdr", runs / "esrt", "hr.hdr")
    refused(line, "s.img: NaN, infinite or ignored values")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "run.json").unlink(), ["no finished run", "train it first"]),
        (lambda run: (run / "run.json").write_text("{"), ["run.json", "damaged"]),
        (lambda run: (run / "weights.safetensors").unlink(), ["weights.safetensors"]),
        (lambda run: os.truncate(run / "weights.safetensors", 100), ["weights.safetensors"]),
    ],
)
def test_unusable_run(refused, runs, lr, tmp_path, spoil, words):
    shutil.copytree(runs / "esrt", tmp_path / "run")
    spoil(tmp_path / "run")
    refused(UPSCALE.format(lr, "run", "out/hr.hdr"), "run", *words)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda psf: psf[:31],
        lambda psf: np.where(psf == psf.max(), np.nan, psf),
        lambda psf: psf - psf.mean(),
        lambda psf: psf * 0,
    ],
    ids=["size", "NaN", "negative", "dark"],
)
def test_unusable_psf(refused, runs, lr, tmp_path, spoil):
    np.savetxt(tmp_path / "psf.txt", spoil(gaussian_psf()))
    line = UPSCALE.format(lr, runs / "bicubic-centred", "out/hr.hdr")
    refused(f"{line} --psf psf.txt", "psf.txt", "not a PSF", "numpy.savetxt")


def test_what_is_no_psf_or_is_not_asked_for(refused, runs, lr, tmp_path):
    (tmp_path / "psf.txt").write_bytes(b"\x93NUMPY")
    line = UPSCALE.format(lr, runs / "bicubic-centred", "out/hr.hdr") + " --psf"
    refused(f"{line} psf.txt", "psf.txt", "not a PSF")
    refused(f"{line} none.txt", "none.txt")
    line = UPSCALE.format(lr, runs / "esrt", "out/hr.hdr")
    refused(f"{line} --psf psf.txt", "ESRT cannot be told a PSF")


def test_output_of_another_run_or_scene(call, refused, runs, lr, tmp_path):
    assert call(UPSCALE.format(lr, runs / "esrt", "hr.hdr")) == (0, "", "")  # no bar either
    make_scene(tmp_path / "other.hdr", 20, 17, seed=1)
    (tmp_path / "foreign.png").touch()
    jobs = (lr, "bicubic", "hr"), ("other.hdr", "esrt", "hr"), (lr, "esrt", "foreign")
    for hdr, run, out in jobs:
        refused(UPSCALE.format(hdr, runs / run, f"{out}.hdr"), out, "exists already")
    refused(UPSCALE.format("other.hdr", runs / "esrt", "other.hdr"), "other.hdr", "overwrite")
    upscale(lr, runs / "bicubic", tmp_path / "hr.hdr", progress=False, force=True)
    upscale(lr, runs / "bicubic", tmp_path / "new.hdr", progress=False)
    made = files(tmp_path)
    assert all(made[f"hr.{kind}"] == made[f"new.{kind}"] for kind in ("hdr", "img", "png"))


def test_disk_that_is_too_small(call, refused, runs, tall, tmp_path, monkeypatch):
    usage, line = shutil.disk_usage(tmp_path), UPSCALE.format(tall, runs / "esrt", "out/hr.hdr")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=800 * ROW_BYTES - 1))
    refused(line, "hr.img", "No space left on device; free some space")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=800 * ROW_BYTES))
    assert call(line)[0] == 0


def test_disk_that_fails_on_the_way_can_be_gone_on_with(call, runs, tall, tmp_path, small_files):
    result = call(UPSCALE.format(tall, runs / "esrt", "hr.hdr"))
    assert_refused(result, "hr.img", "File too large")
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]


# --- windows ------------------------------------------------------------------------------------

REACH = OVERLAP // 4  # low-resolution pixels from which a blended window knows all around it


@pytest.mark.parametrize("length", [*range(LEAST, 420, 7), 96, 97, 155, 168, 169, 1452])
def test_windows_cover_a_side_without_a_seam(length):
    along = spans(length)
    assert along[0][0] == 0
    assert along[-1][1] == length
    for start, stop in along:
        assert start % 6 == 0
        assert LEAST <= stop - start <= WINDOW[0]
    for (_, stop), (start, _) in itertools.pairwise(along):
        assert stop - start >= OVERLAP
    for ramp in ramps(along):
        assert ramp.diff().abs().max() <= 1 / (4 * OVERLAP / 2) + 1e-6  # no step: no seam


class Local(torch.nn.Module):
    """Knows exactly `REACH` pixels around each: the largest reach for which windows are exact."""

    def __init__(self, bands):
        super().__init__()
        torch.manual_seed(0)
        self.kernel = torch.rand(16 * bands, bands, 2 * REACH + 1, 2 * REACH + 1) / bands / 169

    def forward(self, z):
        return F.pixel_shuffle(F.conv2d(z, self.kernel, padding=REACH), 4)


def enlarged(network, z, first=0):
    def strips(starts):
        return (z[:, start : start + WINDOW[0]] for start in starts)

    return list(enlarged_rows(network, strips, z.shape, 4, first))


@pytest.mark.parametrize(("rows", "cols"), [(230, 110), (97, 50), (50, 155)])
def test_windows_give_what_the_whole_scene_gives(rows, cols):
    z = torch.from_numpy(smooth_radiance(rows, cols, 3)).movedim(-1, 0)
    network = Local(3)
    blocks = enlarged(network, z)
    assert len(blocks) == len(spans(rows))
    np.testing.assert_allclose(np.concatenate(blocks, 1), network(z[None])[0], atol=1e-6)
    for first in range(1, len(blocks)):  # later blocks do not need the earlier ones
        for one, other in zip(blocks[first:], enlarged(network, z, first), strict=True):
            np.testing.assert_array_equal(one, other)


# --- what a network is given of a scene: windows of it, or of what was unmixed as a whole --------


def scene_bands(folder, rows, cols, channels):
    """Bands of a scene that is ten times as bright at its lower end."""
    radiance = smooth_radiance(rows, cols, channels)
    radiance *= np.linspace(0.3, 3, rows, dtype=np.float32)[:, None, None]
    wavelength_nm = np.linspace(1000, 2500, channels)
    write_scene(folder / "s.hdr", [radiance], radiance.shape, wavelength_nm)
    bands = SceneBands(open_scene(folder / "s.hdr"))
    return bands, log_scale(torch.from_numpy(bands.read_rows(0, rows)))


class SeesAll:
    """Abundances of one material: how far the first band is from its mean over all pixels."""

    def unmix(self, x):
        return x[:, :1] - x[:, :1].mean((2, 3), keepdim=True)

    def super_resolve(self, x, abundances):
        return F.interpolate(x + abundances, scale_factor=4)


def test_unmixed_is_the_whole_scene(tmp_path):
    bands, z = scene_bands(tmp_path, 130, 20, 6)
    network, strips = in_pieces(SeesAll(), bands, group=3, unmixes=True)
    found = np.concatenate(list(enlarged_rows(network, strips, z.shape, 4)), 1)
    deviation = (z - z.mean((1, 2), keepdim=True))[[0, 0, 0, 3, 3, 3]]  # of each group's first band
    expected = F.interpolate((z + deviation)[None], scale_factor=4)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Means of windows would not do: the upper one is darker.
    assert (z[0, :96].mean() - z[0].mean()).abs() > 0.01


def test_very_large_scene_is_not_unmixed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("asnlsr.upscale._WHOLE", 17 * 20 - 1)
    bands, _ = scene_bands(tmp_path, 17, 20, 60)
    _, strips = in_pieces(build("snlsr"), bands, group=30, unmixes=True)
    (strip,) = strips([0])
    assert strip.shape == (60, 17, 20)  # no abundances behind the bands
