"""The command line: wrong input ends in one line and exit code 2, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from asnlsr.cli import _setting
from asnlsr.scenes.bands import DOMAINS
from asnlsr.scenes.envi import write_scene
from asnlsr.tiles.store import open_tiles, read_split
from tests.conftest import make_scene, smooth_radiance

VERBS = ["simulate", "fetch", "prepare", "split", "train", "evaluate", "upscale", "degrade"]
VERBS += ["import-weights", "table"]


def plain_lines(err):
    """Lines of stderr without those of progress bars, which start with a carriage return."""
    return [line for line in err.split("\n") if line and not line.startswith("\r")]


def assert_refused(result, *words):
    """One line on stderr that holds the words, nothing on stdout, exit code 2."""
    code, out, err = result
    assert (code, out) == (2, "")
    (line,) = plain_lines(err)
    assert line.startswith("asnlsr: ")
    for word in words:
        assert str(word) in line


# --- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(asnlsr, verb):
    code, out, _ = asnlsr(verb, "--help")
    assert code == 0
    assert f"Example: asnlsr {verb} " in out


def test_help_is_quick():
    # Importing torch alone takes longer than the whole of --help may.
    code = "import sys, asnlsr.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version(asnlsr):
    from importlib.metadata import version

    assert asnlsr("--version") == (0, f"asnlsr {version('asnlsr')}\n", "")


def test_no_verb_shows_the_verbs(asnlsr):
    code, out, err = asnlsr()
    assert (code, out) == (2, "")
    assert all(verb in err for verb in VERBS)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["prepare"], "Missing argument"),
        (["prepare", "a.hdr"], "--out"),
        (["prepare", "a.hdr", "--out", "t", "--tile", "big"], "--tile"),
        (["paint"], "paint"),
        (["split", "t", "--unknown"], "--unknown"),
        (["simulate", "--out", "s", "--size", "512"], "512x256"),
        (["train", "asnlsr", "--tiles", "t", "--split", "s", "--out", "r", "--set", "lr"], "--set"),
    ],
)
def test_wrong_arguments(asnlsr, tmp_path, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    assert_refused(asnlsr(*arguments), word)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "value"),
    [("lr=0.001", 0.001), ("steps=12", 12), ("skip=false", False), ("lr=1e-3", 1e-3),
     ("name=warm", "warm"), ("name=a=b", "a=b"), ('name="1"', "1")],
)  # fmt: skip
def test_setting_is_a_json_scalar(text, value):
    key, found = _setting(text)
    assert (key, found) == (text.split("=")[0], value)
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["lr", "=1", "lr=", "lr=[1]", "lr={}"])
def test_setting_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="must be key=value"):
        _setting(text)


# --- scenes ------------------------------------------------------------------------------------


def edit(hdr, old, new):
    text = hdr.read_text()
    assert old in text
    hdr.write_text(text.replace(old, new))


def drop(hdr, key):
    lines = hdr.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f"{key} =")]
    assert len(kept) == len(lines) - 1
    hdr.write_text("".join(kept))


def truncate(hdr):
    os.truncate(hdr.with_suffix(".img"), 1000)


# What is done to a whole scene of 64 x 128 x 151, and words of the answer.
DAMAGE = {
    "no header": (lambda hdr: hdr.unlink(), ["s.hdr", "no such header"]),
    "no pixels": (lambda hdr: hdr.with_suffix(".img").unlink(), ["s.img", "no pixel file"]),
    "pixels as header": (lambda hdr: shutil.copy(hdr.with_suffix(".img"), hdr), ["s.hdr", "ENVI"]),
    "empty header": (lambda hdr: hdr.write_text(""), ["s.hdr", "not an ENVI header"]),
    "header cut in a list": (
        lambda hdr: hdr.write_text(hdr.read_text()[:-20]),
        ["s.hdr", "ENVI header"],
    ),
    "truncated": (truncate, ["s.img", "1000 bytes", "4947968"]),
    "more rows": (lambda hdr: edit(hdr, "lines = 64", "lines = 65"), ["s.img", "65 x 128 x 151"]),
    "no rows": (lambda hdr: edit(hdr, "lines = 64", "lines = 0"), ["s.hdr", "lines = 0"]),
    "rows in words": (lambda hdr: edit(hdr, "lines = 64", "lines = many"), ["lines = many"]),
    "no bands": (lambda hdr: drop(hdr, "bands"), ["s.hdr", "bands"]),
    "complex": (lambda hdr: edit(hdr, "data type = 4", "data type = 6"), ["s.hdr", "data type"]),
    "encoding": (
        lambda hdr: hdr.write_bytes(hdr.read_bytes().replace(b"radiance,", b"20 \xb0C,")),
        ["s.hdr", "UTF-8"],
    ),
    "ignore value": (
        lambda hdr: edit(hdr, "byte order = 0", "byte order = 0\ndata ignore value = none"),
        ["s.hdr", "data ignore value = none"],
    ),
    "byte order": (
        lambda hdr: edit(hdr, "byte order = 0", "byte order = 7"),
        ["s.hdr", "byte order = 7"],
    ),
    "interleave": (lambda hdr: edit(hdr, "= bip", "= bap"), ["s.hdr", "interleave = bap"]),
    "no wavelengths": (lambda hdr: drop(hdr, "wavelength"), ["s.hdr", "no wavelength"]),
    "too few wavelengths": (lambda hdr: edit(hdr, "{ 1000 , ", "{ "), ["s.hdr", "151"]),
    "wavelengths in words": (lambda hdr: edit(hdr, "{ 1000 ,", "{ red ,"), ["wavelength", "'red'"]),
    "non-increasing": (
        lambda hdr: edit(hdr, "{ 1000 , 1010 , 1020", "{ 1000 , 1020 , 1010"),
        ["s.hdr", "do not increase"],
    ),
    "repeated": (
        lambda hdr: edit(hdr, "{ 1000 , 1010 ,", "{ 1000 , 1000 ,"),
        ["s.hdr", "do not increase"],
    ),
    "units of other wavelengths": (
        lambda hdr: edit(hdr, "= Nanometers", "= Micrometers"),
        ["s.hdr", "1e+06", "wavelength units"],
    ),
    "wavenumbers": (lambda hdr: edit(hdr, "= Nanometers", "= Wavenumber"), ["Wavenumber"]),
    "no units": (lambda hdr: drop(hdr, "wavelength units"), ["s.hdr", "units"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_unusable_scene_is_refused(asnlsr, tmp_path, damage):
    hdr = make_scene(tmp_path / "s.hdr")
    spoil, words = DAMAGE[damage]
    spoil(hdr)
    before = sorted(tmp_path.iterdir())
    result = asnlsr("prepare", hdr, "--out", tmp_path / "tiles", "--tile", 64)
    assert_refused(result, *words)
    assert sorted(tmp_path.iterdir()) == before


def test_nan_is_refused_with_its_count(asnlsr, tmp_path):
    radiance = smooth_radiance(100, 64, 151)
    radiance[3, :5, 40] = np.nan
    radiance[99, 7, 90] = np.inf  # in another block of rows
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, np.linspace(1000, 2500, 151))
    result = asnlsr("prepare", tmp_path / "s.hdr", "--out", tmp_path / "t", "--tile", 64)
    assert_refused(result, "s.img: 6 values in usable channels are NaN")
    assert not (tmp_path / "t").exists()


def test_negative_values_are_told(asnlsr, tmp_path):
    radiance = smooth_radiance(64, 64, 151)
    radiance[3, :5, 40] = -0.001
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, np.linspace(1000, 2500, 151))
    # In a process of its own, where the log goes to stderr and not to pytest.
    command = [sys.executable, "-m", "asnlsr.cli", "prepare", "s.hdr", "--out", "t", "--tile", "64"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "s.img: 5 negative values clipped to 0"


@pytest.mark.parametrize(
    ("low", "high", "channels", "words"),
    [
        (1000, 1700, 100, ["s.hdr", "SWIR2", "not covered"]),
        (400, 1000, 100, ["s.hdr", "SWIR1", "not covered"]),
        (1000, 2500, 70, ["s.hdr", "too few for 30 bins"]),
    ],
)
def test_unsuitable_sensor_is_refused(asnlsr, tmp_path, low, high, channels, words):
    radiance = smooth_radiance(64, 64, channels)
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, np.linspace(low, high, channels))
    result = asnlsr("prepare", tmp_path / "s.hdr", "--out", tmp_path / "t", "--tile", 64)
    assert_refused(result, *words)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tile", 128], ["scene-0.hdr", "64 x 128 pixels", "smaller --tile"]),
        (["--tile", 30], ["tile 30 with scale 4"]),
        (["--tile", 0], ["tile 0"]),
        (["--tile", 64, "--scale", 0], ["scale 0"]),
        (["--tile", 64, "--border", "mirror"], ["border 'mirror'"]),
    ],
)
def test_unusable_recipe_is_refused(asnlsr, tiny_scenes, tmp_path, options, words):
    assert_refused(asnlsr("prepare", tiny_scenes[0], "--out", tmp_path / "t", *options), *words)
    assert not list(tmp_path.iterdir())


def test_scenes_that_cannot_share_tiles_are_refused(asnlsr, tiny_scenes, tmp_path):
    out = ["--out", tmp_path / "t", "--tile", 64]
    assert_refused(asnlsr("prepare", tiny_scenes[0], tiny_scenes[0], *out), "scene-0", "rename")
    radiance = smooth_radiance(64, 64, 151)
    other = tmp_path / "other.hdr"
    write_scene(other, [radiance], radiance.shape, np.linspace(1040, 2460, 151))
    assert_refused(asnlsr("prepare", tiny_scenes[0], other, *out), "other.hdr", "prepare the two")


# --- a disk that is full -----------------------------------------------------------------------


def test_prepare_that_cannot_write(asnlsr, tiny_scenes, tmp_path, small_files):
    result = asnlsr("prepare", tiny_scenes[0], "--out", tmp_path / "t", "--tile", 64)
    assert_refused(result, f"asnlsr: {tmp_path / 't'}", "File too large")
    assert not (tmp_path / "t").exists()


def test_simulate_that_cannot_write(asnlsr, tmp_path, small_files):
    result = asnlsr("simulate", "--out", tmp_path / "s", "--scenes", 1, "--size", "32x32")
    assert_refused(result, "park-0.img", "File too large")
    assert not list(tmp_path.rglob("*.*"))


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 512 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root and the right to mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk(asnlsr, tiny_scenes, small_disk):
    result = asnlsr("prepare", tiny_scenes[0], "--out", small_disk / "t", "--tile", 64)
    assert_refused(result, f"asnlsr: {small_disk}", "No space left on device; free some space")
    assert not list(small_disk.iterdir())


# --- tiles, splits and what follows ------------------------------------------------------------


def test_prepare_and_split(asnlsr, tiny_scenes, tmp_path):
    tiles, split = tmp_path / "tiles", tmp_path / "split.json"
    code, out, err = asnlsr("prepare", *tiny_scenes, "--out", tiles, "--tile", 64)
    assert (code, out) == (0, "")
    assert "4/4" in err  # the progress bar; each scene is one row of tiles
    code, out, err = asnlsr("split", tiles, "--by", "scene", "--out", split)
    assert (code, out) == (0, "")
    assert err == "2 source_train, 2 target_train, 2 val, 2 test\n"
    assert sum(len(ids) for ids in read_split(split, tiles).values()) == 8


def test_simulated_scenes_open(asnlsr, tmp_path):
    code, *_ = asnlsr("simulate", "--out", tmp_path, "--scenes", 2, "--size", "64x96")
    assert code == 0
    headers = sorted(tmp_path.glob("*.hdr"))
    assert len(headers) == 2
    assert asnlsr("prepare", *headers, "--out", tmp_path / "t", "--tile", 64)[0] == 0
    for domain in DOMAINS:
        assert open_tiles(tmp_path / "t", domain).sizes["tile"] == 2


def test_folder_that_holds_no_tiles(asnlsr, tmp_path):
    result = asnlsr("split", tmp_path, "--out", tmp_path / "s.json")
    assert_refused(result, "swir1.zarr", "asnlsr prepare")


def test_damaged_tiles(asnlsr, tiny_tiles, tmp_path):
    shutil.copytree(tiny_tiles, tmp_path / "t")
    (tmp_path / "t/swir1.zarr/hr/.zarray").write_text('{"shape": ')
    result = asnlsr("split", tmp_path / "t", "--out", tmp_path / "s.json")
    assert_refused(result, "swir1.zarr", "damaged")
    shutil.rmtree(tmp_path / "t/swir1.zarr/hr")
    assert_refused(asnlsr("split", tmp_path / "t", "--out", tmp_path / "s.json"), "swir1.zarr")
    assert not (tmp_path / "s.json").exists()


def test_unknown_split(asnlsr, tiny_tiles, tmp_path):
    result = asnlsr("split", tiny_tiles, "--by", "pixel", "--out", tmp_path / "s.json")
    assert_refused(result, "'pixel'", "scene")
    assert not list(tmp_path.iterdir())


def run_train(asnlsr, tiles, split, out, model="asnlsr", *options):
    preset = () if "--preset" in options else ("--preset", "smoke")
    files = ["--tiles", tiles, "--split", split, "--out", out]
    return asnlsr("train", model, *files, *preset, *options)


def test_train_on_absent_tiles(asnlsr, tiny_tiles, tiny_split, tmp_path):
    split = json.loads(tiny_split.read_text())
    split["val"] = ["moon/0/0"]
    (tmp_path / "split.json").write_text(json.dumps(split))
    result = run_train(asnlsr, tiny_tiles, tmp_path / "split.json", tmp_path / "run")
    assert_refused(result, "split.json", "moon/0/0")
    assert not (tmp_path / "run").exists()


def test_train_on_a_corrupt_split(asnlsr, tiny_tiles, tmp_path):
    (tmp_path / "split.json").write_text('{"val": [')
    result = run_train(asnlsr, tiny_tiles, tmp_path / "split.json", tmp_path / "run")
    assert_refused(result, "split.json", "JSON")
    assert_refused(run_train(asnlsr, tiny_tiles, tmp_path / "no.json", tmp_path / "run"), "no.json")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("vgg", (), ["'vgg'", "asnlsr"]),
        ("asnlsr", ("--preset", "huge"), ["'huge'", "demo"]),
        ("asnlsr", ("--protocol", "open"), ["'open'", "blind"]),
        ("asnlsr", ("--recipe", "cold"), ["'cold'", "warm"]),
        ("asnlsr", ("--set", "depth=3"), ["depth"]),
        ("asnlsr", ("--set", "steps=many"), ["steps"]),
        *(
            ("asnlsr", ("--set", f"{key}=0"), [f"{key}=0", "more than 0"])
            for key in ("steps", "batch", "crop", "log_every", "lr", "restarts")
        ),
        ("asnlsr", ("--set", "relight=-1"), ["relight=-1", "at least 0"]),
        ("asnlsr", ("--set", "relight=2"), ["relight=2", "at most 1"]),
        ("snlsr", ("--set", "crop=59"), ["crop=59", "60"]),
        ("esrt", ("--set", "crop=3"), ["crop=3", "4"]),
        ("asnlsr", ("--set", "lr_min=NaN"), ["lr_min", "at least 0"]),
        ("asnlsr", ("--set", "lr=Infinity"), ["lr=inf", "finite"]),
        ("esrt", ("--set", "warmup_steps=4"), ["warmup_steps", "esrt"]),
        ("snlsr", ("--set", "contrast=true"), ["contrast", "rcam and srformer"]),
        ("asnlsr", ("--set", "halved=0.5"), ["halved", "bandwise"]),
        ("bandwise", ("--set", "neighbours=2"), ["neighbours=2", "7"]),
    ],
)
def test_unknown_choice_of_training(
    asnlsr, tiny_tiles, tiny_split, tmp_path, model, options, words
):
    result = run_train(asnlsr, tiny_tiles, tiny_split, tmp_path / "run", model, *options)
    assert_refused(result, *words)
    assert not (tmp_path / "run").exists()


def test_train_evaluate_table(asnlsr, tiny_tiles, tiny_split, tmp_path):
    run, metrics = tmp_path / "run", tmp_path / "metrics.csv"
    assert run_train(asnlsr, tiny_tiles, tiny_split, run, "bicubic")[0] == 0
    files = ["--tiles", tiny_tiles, "--split", tiny_split, "--out", metrics]
    code, out, _ = asnlsr("evaluate", run, *files)
    assert (code, out) == (0, "")
    rows = pd.read_csv(metrics)
    assert set(rows["model"]) == {"bicubic"}
    assert set(rows["domain"]) == set(DOMAINS)
    tested = set(rows["tile"].dropna())
    assert tested == set(read_split(tiny_split)["test"])
    code, out, _ = asnlsr("table", metrics)
    assert code == 0
    psnr = rows[(rows["metric"] == "psnr") & (rows["domain"] == "swir2")]["value"].mean()
    assert f"{psnr:.2f}" in out
    assert asnlsr("table", metrics, "--domain", "swir1")[1] != out
    assert "\\begin{tabular}" in asnlsr("table", metrics, "--format", "latex")[1]
    assert_refused(asnlsr("table", metrics, "--format", "html"), "'html'")
    assert_refused(asnlsr("table", metrics, "--domain", "vis"), "'vis'")


def test_best_is_a_method_without_target_truth(asnlsr, tiny_tiles, tiny_split, tmp_path):
    options = ("--set", "steps=2", "--set", "batch=2")
    code, _, _ = run_train(asnlsr, tiny_tiles, tiny_split, tmp_path / "run", "best", *options)
    assert code == 0
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["model"] == "bandwise"


def test_runs_that_a_table_could_not_tell_apart(asnlsr, tiny_tiles, tiny_split, tmp_path):
    """They would be averaged as if they were the tiles of one run."""
    for name, options in (("a", ()), ("b", ("--set", "steps=9"))):
        run_train(asnlsr, tiny_tiles, tiny_split, tmp_path / name, "bicubic", *options)
    files = ["--tiles", tiny_tiles, "--split", tiny_split, "--out", tmp_path / "m.csv"]
    result = asnlsr("evaluate", tmp_path / "a", tmp_path / "b", *files)
    assert_refused(result, str(tmp_path / "a"), str(tmp_path / "b"), "one by one")
    assert not (tmp_path / "m.csv").exists()


def test_damaged_run_is_named(asnlsr, tiny_tiles, tiny_split, tmp_path):
    for text in ("{", "[]", "{}"):
        (tmp_path / "run.json").write_text(text)
        result = run_train(asnlsr, tiny_tiles, tiny_split, tmp_path, "bicubic")
        assert_refused(result, "run.json", "damaged", "delete it")


def test_nothing_but_its_own_kind_is_written_over(asnlsr, tiny_tiles, tiny_split, tmp_path):
    run, split = tmp_path / "run", tmp_path / "split.json"
    shutil.copy(tiny_split, split)
    run_train(asnlsr, tiny_tiles, split, run, "linear")
    files = ["--tiles", tiny_tiles, "--split", split, "--out"]
    scene = tmp_path / "scene.img"
    scene.write_bytes(b"pixels")
    kept = {path: path.read_bytes() for path in [*run.iterdir(), split, scene]}
    for out in (split, scene, run / "run.json", run / "history.csv"):
        assert_refused(asnlsr("evaluate", run, *files, out), str(out))
    for out in (scene, run / "run.json", run / "history.csv"):
        assert_refused(asnlsr("split", tiny_tiles, "--out", out), str(out))
    for model, options in (("bicubic", ()), ("linear", ("--seed", 1))):
        assert_refused(run_train(asnlsr, tiny_tiles, split, run, model, *options), "remove it")
    assert {path: path.read_bytes() for path in kept} == kept
    for _ in range(2):  # its own, again
        assert asnlsr("evaluate", run, *files, tmp_path / "m.csv")[0] == 0
        assert asnlsr("split", tiny_tiles, "--out", tmp_path / "s.json")[0] == 0


def test_run_among_scenes_is_refused(asnlsr, tiny_scenes, tiny_tiles, tiny_split):
    for folder in (tiny_scenes[0].parent, tiny_tiles):
        before = sorted(folder.iterdir())
        result = run_train(asnlsr, tiny_tiles, tiny_split, folder, "bicubic")
        assert_refused(result, str(folder), "no run but")
        assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("role", ["source_train", "val"])
def test_role_without_tiles(asnlsr, tiny_tiles, tiny_split, tmp_path, role):
    split = json.loads(tiny_split.read_text())
    split |= {role: [], "test": [*split["test"], *split[role]]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    result = run_train(asnlsr, tiny_tiles, tmp_path / "split.json", tmp_path / "run", "linear")
    assert_refused(result, "split.json", role)


def test_evaluation_that_cannot_be(asnlsr, tiny_scenes, tiny_tiles, tiny_split, tmp_path):
    """No tile to test, or tiles of another scale; and a warning is one line too."""
    assert run_train(asnlsr, tiny_tiles, tiny_split, tmp_path / "run", "bicubic")[0] == 0
    split = json.loads(tiny_split.read_text())
    split |= {"test": [], "val": [*split["val"], *split["test"]]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    files = ["--split", tmp_path / "split.json", "--out", tmp_path / "m.csv"]
    result = asnlsr("evaluate", tmp_path / "run", "--tiles", tiny_tiles, *files)
    assert_refused(result, "split.json", "test")
    sizes = ["--tile", 64, "--scale", 2]
    assert asnlsr("prepare", *tiny_scenes, "--out", tmp_path / "t", *sizes)[0] == 0
    files = ["--split", tiny_split, "--out", tmp_path / "m.csv"]
    result = asnlsr("evaluate", tmp_path / "run", "--tiles", tmp_path / "t", *files)
    assert_refused(result, "enlarges by 4", "for 2")
    (tmp_path / "split.json").write_text(tiny_split.read_text() + "\n")
    files = ["--split", tmp_path / "split.json", "--out", tmp_path / "m.csv"]
    code, _, err = asnlsr("evaluate", tmp_path / "run", "--tiles", tiny_tiles, *files)
    assert code == 0
    (line,) = [line for line in err.splitlines() if "another split" in line]
    assert "asnlsr: warning: " in line


@pytest.mark.parametrize("role", ["source_train", "test"])
def test_tested_tiles_that_are_for_training_are_told(
    asnlsr, tiny_tiles, tiny_split, tmp_path, role
):
    split = json.loads(tiny_split.read_text())
    (tmp_path / "split.json").write_text(json.dumps(split | {"test": split["source_train"]}))
    run_train(asnlsr, tiny_tiles, tmp_path / "split.json", tmp_path / "run", "bicubic")
    files = ["--tiles", tiny_tiles, "--split", tmp_path / "split.json", "--role", role]
    code, _, err = asnlsr("evaluate", tmp_path / "run", *files, "--out", tmp_path / "m.csv")
    assert code == 0
    assert f"{len(split['source_train'])} tiles of {role} are for training too" in err


def test_tiles_prepared_anew_are_told(asnlsr, tiny_scenes, tiny_split, tmp_path):
    """Smaller tiles at the old places have the old names: the split fits them too."""
    tiles, run = tmp_path / "tiles", tmp_path / "run"
    assert asnlsr("prepare", *tiny_scenes, "--out", tiles, "--tile", 64)[0] == 0
    run_train(asnlsr, tiles, tiny_split, run, "bicubic")
    assert asnlsr("prepare", *tiny_scenes, "--out", tiles, "--tile", 32)[0] == 0
    files = ["--tiles", tiles, "--split", tiny_split, "--out", tmp_path / "m.csv"]
    code, _, err = asnlsr("evaluate", run, *files)
    assert code == 0
    assert f"gives no role to {8 * 4 - 8} of {8 * 4} tiles" in err
    assert "another set of tiles" in err


def test_file_where_a_folder_is_to_be_made(asnlsr, tiny_scenes, tiny_tiles, tiny_split, tmp_path):
    (tmp_path / "notes").write_text("mine")
    out = tmp_path / "notes"
    for result in (
        asnlsr("simulate", "--out", out),
        asnlsr("prepare", *tiny_scenes, "--out", out, "--tile", 64),
        run_train(asnlsr, tiny_tiles, tiny_split, out, "bicubic"),
        run_train(asnlsr, tiny_tiles, tiny_split, out / "run", "bicubic"),
    ):
        assert_refused(result, str(out), "a folder is needed")
    assert out.read_text() == "mine"


def test_size_that_no_memory_holds(asnlsr, tmp_path):
    result = asnlsr("simulate", "--out", tmp_path / "s", "--size", "10000000x10000000")
    assert_refused(result, "memory", "smaller")


def test_folder_where_a_file_is_to_be_written(asnlsr, tiny_tiles, tiny_split, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").rename(tmp_path / "run.json")
    result = asnlsr("split", tiny_tiles, "--out", tmp_path / "run.json")
    assert_refused(result, str(tmp_path / "run.json"), "is a folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "run.json"]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_that_no_generator_takes(asnlsr, tmp_path, seed):
    result = asnlsr("simulate", "--out", tmp_path / "scenes", "--seed", seed)
    assert_refused(result, "--seed")
    assert not (tmp_path / "scenes").exists()


def test_evaluate_of_no_run(asnlsr, tiny_tiles, tiny_split, tmp_path):
    files = ["--tiles", tiny_tiles, "--split", tiny_split, "--out", tmp_path / "m.csv"]
    assert_refused(asnlsr("evaluate", tmp_path / "none", *files), "none")
    assert not list(tmp_path.iterdir())


NO_PROTOCOL = "model,seed,recipe,domain,metric,value\nbicubic,0,warm,swir2,psnr,30\n"


TEXT = "model,seed,protocol,recipe,domain,metric,value\nbicubic,0,blind,warm,swir2,psnr,foo\n"


@pytest.mark.parametrize("text", [None, "", "a,b\n1,2\n", '"unclosed', NO_PROTOCOL, TEXT])
def test_table_of_something_else(asnlsr, tmp_path, text):
    if text is not None:
        (tmp_path / "m.csv").write_text(text)
    assert_refused(asnlsr("table", tmp_path / "m.csv"), "m.csv")


# --- the process -------------------------------------------------------------------------------


def test_interrupt_ends_with_130(asnlsr, tiny_scenes, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("asnlsr.tiles.prepare._pairs", interrupt)
    code, _, err = asnlsr("prepare", tiny_scenes[0], "--out", tmp_path / "t", "--tile", 64)
    assert code == 130
    assert "Traceback" not in err
    assert not (tmp_path / "t").exists()


def test_wrong_input_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "asnlsr.cli", "prepare", "no.hdr", "--out", "tiles"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert_refused((result.returncode, result.stdout, result.stderr), "no.hdr")
    assert not list(tmp_path.iterdir())


def test_defect_ends_with_1(monkeypatch, asnlsr, tiny_scenes, tmp_path):
    def broken(*arguments):
        raise RuntimeError("a defect")

    # Not dressed up as wrong input: the traceback is what a developer needs.
    monkeypatch.setattr("asnlsr.tiles.prepare._pairs", broken)
    from asnlsr.cli import main

    argv = ["asnlsr", "prepare", str(tiny_scenes[0]), "--out", str(tmp_path / "t"), "--tile", "64"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(RuntimeError, match="a defect"):
        main()
    assert not (tmp_path / "t").exists()
