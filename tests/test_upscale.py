"""A whole scene upscaled: what is written, what a kill leaves, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import torch

import asnlsr.upscale as module
from asnlsr.models.registry import build
from asnlsr.physics import log_scale, unscale
from asnlsr.scenes.bands import BinnedScene
from asnlsr.scenes.degrade import degrade_scene
from asnlsr.scenes.envi import open_scene, write_scene
from asnlsr.training.folder import load_run
from asnlsr.training.run import train
from asnlsr.upscale import upscale
from tests.conftest import make_scene, smooth_radiance
from tests.test_cli import assert_refused
from tests.test_degraded import MAP


@pytest.fixture(scope="module")
def runs(tiny_tiles, tiny_split, tmp_path_factory):
    """A network without weights, and one for 30 bands after a single step."""
    folder = tmp_path_factory.mktemp("runs")
    for model in ("bicubic", "esrt"):
        train(
            model, tiny_tiles, tiny_split, folder / model,
            preset="smoke", overrides={"steps": 1}, progress=False,
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def lr(tmp_path_factory):
    """A low-resolution scene of 20 x 17 pixels that says what it is of."""
    return make_scene(
        tmp_path_factory.mktemp("lr") / "field.hdr", 20, 17,
        map_info=MAP, acquisition_time="noon", degraded_by=4, fwhm=[6] * 151,
    )  # fmt: skip


def read(hdr):
    scene = open_scene(hdr)
    return scene, scene.read_rows(0, scene.rows)


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


def test_quick_look(runs, lr, tmp_path):
    upscale(lr, runs / "esrt", tmp_path / "hr.hdr", progress=False)
    picture = matplotlib.image.imread(tmp_path / "hr.png")
    assert picture.shape == (80, 2 * 68, 4)  # both domains side by side
    for half in np.split(picture[..., :3], 2, axis=1):
        assert half.std() > 0.1


def test_quick_look_of_a_long_scene_is_thinned(runs, tmp_path):
    hdr = make_scene(tmp_path / "long.hdr", 300, 16, channels=61)
    upscale(hdr, runs / "bicubic", tmp_path / "hr.hdr", progress=False)
    picture = matplotlib.image.imread(tmp_path / "hr.png")
    assert picture.shape == (600, 2 * 32, 4)  # every second of 1200 x 64


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

KILLED_LATER = """
import os, signal, sys
import asnlsr.upscale as module
from pathlib import Path

calls, original = [], module.unscale

def deadly(z):
    calls.append(1)
    if len(calls) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(z)

module.unscale = deadly
module.upscale(*map(Path, sys.argv[1:4]), progress=False)
"""


@pytest.fixture(scope="module")
def tall(tmp_path_factory):
    """A low-resolution scene of three rows of windows."""
    return make_scene(tmp_path_factory.mktemp("tall") / "tall.hdr", 200, 16)


@pytest.fixture(scope="module")
def unbroken(runs, tall):
    """Its output, made without a break."""
    upscale(tall, runs / "esrt", tall.parent / "out/hr.hdr", progress=False)
    return files(tall.parent / "out")


def killed(call, *arguments):
    """Run upscale in a process that kills itself before it writes for the `call`-th time."""
    command = [sys.executable, "-c", KILLED_LATER, *map(str, [*arguments, call])]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("call", [1, 27, 45])
def test_killed_and_called_again_gives_the_same_bytes(runs, tall, unbroken, tmp_path, call):
    # 800 rows, written 16 at a time and a block ended after 216 and 432: before the first
    # writing, in the middle of the second block, in the middle of the last.
    killed(call, tall, runs / "esrt", tmp_path / "hr.hdr")
    (left,) = tmp_path.iterdir()  # nothing that could be taken for whole
    assert (left.name[0], left.suffix) == (".", ".part")
    assert (left.stat().st_size > 0) == (call > 1)
    upscale(tall, runs / "esrt", tmp_path / "hr.hdr", progress=False)
    assert files(tmp_path) == unbroken


def test_killed_on_a_real_scene(shared, runs, tmp_path):
    hdr = shared / "data/aviris/abu-urban-3.hdr"
    killed(10, hdr, runs / "esrt", tmp_path / "broken/hr.hdr")  # in the second of two blocks
    for folder in ("broken", "unbroken"):
        upscale(hdr, runs / "esrt", tmp_path / folder / "hr.hdr", progress=False)
    assert files(tmp_path / "broken") == files(tmp_path / "unbroken")


def test_only_what_it_left_itself_is_removed(runs, lr, tmp_path):
    """`hr.hdr` and `hr.2.hdr` may be made at the same time."""
    own, other = (tmp_path / f".{name}.{'0' * 12}.part" for name in ("hr", "hr.2"))
    own.touch()
    other.touch()
    upscale(lr, runs / "bicubic", tmp_path / "hr.hdr", progress=False)
    assert (own.exists(), other.exists()) == (False, True)


def test_what_is_written_already_is_not_computed_again(runs, tall, unbroken, tmp_path, monkeypatch):
    row_bytes = 64 * 60 * 4
    firsts = []
    enlarged = module.enlarged_rows

    def noted(network, strips, shape, scale, first, advance):
        firsts.append(first)
        return enlarged(network, strips, shape, scale, first, advance)

    monkeypatch.setattr(module, "enlarged_rows", noted)
    killed(45, tall, runs / "esrt", tmp_path / "hr.hdr")
    (left,) = tmp_path.iterdir()
    pixels = unbroken["hr.img"]
    for rows in (432, 431, 800):
        left.write_bytes(pixels[: rows * row_bytes])
        upscale(tall, runs / "esrt", tmp_path / "hr.hdr", progress=False)
        assert files(tmp_path) == unbroken
        for path in tmp_path.iterdir():
            path.unlink()
    assert firsts == [2, 1]  # of the blocks 0, 1, 2; none where all is written


def test_finished_output_is_left_alone(runs, lr, tmp_path):
    upscale(lr, runs / "esrt", tmp_path / "hr.hdr", progress=False)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    upscale(lr, runs / "esrt", tmp_path / "hr.hdr", progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


def test_left_over_of_another_run_is_not_gone_on_with(runs, tall, unbroken, tmp_path):
    out = tmp_path / "hr.hdr"
    killed(45, tall, runs / "bicubic", out)
    upscale(tall, runs / "esrt", out, progress=False)
    assert files(tmp_path) == unbroken


# --- what is refused ---------------------------------------------------------------------------


def run_upscale(asnlsr, hdr, run, out):
    return asnlsr("upscale", hdr, "--run", run, "--out", out)


def test_verb(asnlsr, runs, lr, tmp_path):
    code, out, err = run_upscale(asnlsr, lr, runs / "esrt", tmp_path / "hr.hdr")
    assert (code, out) == (0, "")
    assert "1/1" in err
    assert sorted(files(tmp_path)) == ["hr.hdr", "hr.img", "hr.png"]


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ({"rows": 15}, ["s.hdr", "15 x 20 pixels", "16 a side"]),
        ({"cols": 8}, ["s.hdr", "20 x 8 pixels"]),
        ({"degraded_by": 2}, ["esrt", "enlarges by 4", "s.hdr was degraded by 2"]),
        ({"degraded_by": "half"}, ["s.hdr", "degraded by"]),
        ({"channels": 40}, ["s.hdr", "too few for 30 bins"]),
        ({"map_info": ["UTM", "east"]}, ["s.hdr", "map info"]),
    ],
)
def test_unsuitable_scene(asnlsr, runs, tmp_path, scene, words):
    hdr = make_scene(tmp_path / "s.hdr", **({"rows": 20, "cols": 20} | scene))
    before = files(tmp_path)
    assert_refused(run_upscale(asnlsr, hdr, runs / "esrt", tmp_path / "hr.hdr"), *words)
    assert files(tmp_path) == before


def test_maps_that_would_leave_seams(asnlsr, runs, lr, tmp_path):
    shutil.copytree(runs / "esrt", tmp_path / "guided")
    record = json.loads((tmp_path / "guided/run.json").read_text())
    record["config"]["materials"] = 4
    (tmp_path / "guided/run.json").write_text(json.dumps(record))
    result = run_upscale(asnlsr, lr, tmp_path / "guided", tmp_path / "hr.hdr")
    assert_refused(result, "guided", "window", "materials")
    assert [path.name for path in tmp_path.iterdir()] == ["guided"]


def test_missing_domain(asnlsr, runs, tmp_path):
    radiance = smooth_radiance(20, 20, 100)
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, np.linspace(1000, 1700, 100))
    before = files(tmp_path)
    result = run_upscale(asnlsr, tmp_path / "s.hdr", runs / "esrt", tmp_path / "hr.hdr")
    assert_refused(result, "s.hdr", "SWIR2", "not covered")
    assert files(tmp_path) == before


def test_nan_in_the_last_rows_leaves_nothing(asnlsr, runs, tmp_path):
    radiance = smooth_radiance(200, 16, 151)
    radiance[199, 3, 7] = np.nan
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, np.linspace(1000, 2500, 151))
    before = files(tmp_path)
    result = run_upscale(asnlsr, tmp_path / "s.hdr", runs / "esrt", tmp_path / "hr.hdr")
    assert_refused(result, "s.img: 1 values in usable channels are NaN")
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "run.json").unlink(), ["no finished run", "train it first"]),
        (lambda run: (run / "run.json").write_text("{"), ["run.json", "damaged"]),
        (lambda run: (run / "weights.safetensors").unlink(), ["weights.safetensors"]),
        (lambda run: os.truncate(run / "weights.safetensors", 100), ["weights.safetensors"]),
    ],
)
def test_unusable_run(asnlsr, runs, lr, tmp_path, spoil, words):
    shutil.copytree(runs / "esrt", tmp_path / "run")
    spoil(tmp_path / "run")
    out = tmp_path / "out" / "hr.hdr"
    assert_refused(run_upscale(asnlsr, lr, tmp_path / "run", out), tmp_path / "run", *words)
    assert not out.parent.exists()


def test_output_of_another_run_or_scene(asnlsr, runs, lr, tmp_path):
    run_upscale(asnlsr, lr, runs / "esrt", tmp_path / "hr.hdr")
    other = make_scene(tmp_path / "other.hdr", 20, 17, seed=1)
    before = files(tmp_path)
    for hdr, run in ((lr, "bicubic"), (other, "esrt")):
        result = run_upscale(asnlsr, hdr, runs / run, tmp_path / "hr.hdr")
        assert_refused(result, "hr.hdr", "another run", "remove it")
    assert_refused(run_upscale(asnlsr, other, runs / "esrt", other), "other.hdr", "overwrite")
    assert files(tmp_path) == before


def test_disk_that_is_too_small(asnlsr, runs, tall, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    needed = 800 * 64 * 60 * 4
    for free, code in ((needed - 1, 2), (needed, 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        result = run_upscale(asnlsr, tall, runs / "esrt", tmp_path / "out/hr.hdr")
        assert result[0] == code
        assert (tmp_path / "out").exists() == (code == 0)
        if code:
            assert_refused(result, "hr.img", "No space left on device; free some space")


def test_disk_that_fails_on_the_way_can_be_gone_on_with(asnlsr, runs, tall, tmp_path, small_files):
    result = run_upscale(asnlsr, tall, runs / "esrt", tmp_path / "hr.hdr")
    assert_refused(result, "hr.img", "File too large")
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
