"""The command line: wrong input ends in one line and exit code 2, nothing half-written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from asnlsr.config import setting
from asnlsr.files import locked
from asnlsr.scenes.bands import DOMAINS
from asnlsr.scenes.envi import open_scene, write_scene
from asnlsr.tiles.store import read_split
from tests.conftest import make_scene, smooth_radiance

VERBS = ["simulate", "fetch", "prepare", "split", "train", "evaluate", "upscale", "degrade"]
VERBS += ["import-weights", "import-tiles", "table", "doctor"]


def test_progress_in_a_log_file_is_lines_not_bars():
    """A short wait shows nothing, a long one a line now and then."""
    code = """
import sys, time
from asnlsr import terminal
terminal.EVERY = 0.5
with terminal.plain_terminal():
    from tqdm.auto import tqdm
    for unit, total in (("tile", 2), ("step", 200)):
        for _ in tqdm(range(total), desc=f"a {unit}", unit=unit):
            time.sleep(0.01)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    lines = done.stderr.splitlines()
    assert 2 <= len(lines) <= 4
    for line in lines:
        assert re.fullmatch(r"a step: \d+ of 200 steps, 00:0\d left", line)


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
    assert f"Example: asnlsr {verb}" in out


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


FILES = ["--tiles", "t", "--split", "s"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["prepare"], "Missing argument"),
        (["prepare", "a.hdr"], "--out"),
        (["prepare", "a.hdr", "--out", "t", "--tile", "big"], "--tile"),
        (["paint"], "paint"),
        (["split", "t", "--unknown"], "--unknown"),
        (["simulate", "--out", "s", "--size", "512"], "512x256"),
        (["simulate", "--out", "s", "--seed", "-1"], "--seed"),
        (["simulate", "--out", "s", "--seed", str(2**32)], "--seed"),
        (["fetch", "moon", "--out", "s"], "'moon'"),
        (["split", "t", "--by", "pixel", "--out", "s.json"], "'pixel'"),
        (["split", ".", "--out", "s.json"], "asnlsr prepare"),
        (["evaluate", "none", *FILES, "--out", "m.csv"], "No such file"),
        (["table", "m.csv", "--format", "html"], "'html'"),
        (["table", "m.csv", "--domain", "vis"], "'vis'"),
        (["train", "asnlsr", *FILES, "--out", "r", "--set", "lr"], "--set"),
        (["train", "asnlsr", *FILES, "--out", "r", "--preset", "huge"], "'huge'"),
        (["train", "asnlsr", *FILES, "--out", "r", "--protocol", "open"], "'open'"),
        (["train", "asnlsr", *FILES, "--out", "r", "--recipe", "cold"], "'cold'"),
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
    key, found = setting(text)
    assert (key, found) == (text.split("=")[0], value)
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["lr", "=1", "lr=", "lr=[1]", "lr={}"])
def test_setting_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="must be key=value"):
        setting(text)


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


def replace(old, new):
    return lambda hdr: edit(hdr, old, new)


# What is done to a whole scene of 64 x 128 x 151, and words of the answer.
DAMAGE = {
    "no header": (lambda hdr: hdr.unlink(), "s.hdr"),
    "no pixels": (lambda hdr: hdr.with_suffix(".img").unlink(), "s.img"),
    "pixels as header": (lambda hdr: shutil.copy(hdr.with_suffix(".img"), hdr), "s.hdr"),
    "empty header": (lambda hdr: hdr.write_text(""), "s.hdr"),
    "header cut in a list": (lambda hdr: hdr.write_text(hdr.read_text()[:-20]), "s.hdr"),
    "truncated": (truncate, "s.img"),
    "more rows": (replace("lines = 64", "lines = 65"), "s.img"),
    "no rows": (replace("lines = 64", "lines = 0"), "lines"),
    "rows in words": (replace("lines = 64", "lines = many"), "many"),
    "no bands": (lambda hdr: drop(hdr, "bands"), "bands"),
    "complex": (replace("data type = 4", "data type = 6"), "data type"),
    "ignore value": (replace("order = 0", "order = 0\ndata ignore value = none"), "none"),
    "byte order": (replace("byte order = 0", "byte order = 7"), "byte order"),
    "interleave": (replace("= bip", "= bap"), "bap"),
    "no wavelengths": (lambda hdr: drop(hdr, "wavelength"), "wavelength"),
    "too few wavelengths": (replace("{ 1000 , ", "{ "), "151"),
    "wavelengths in words": (replace("{ 1000 ,", "{ red ,"), "red"),
    "non-increasing": (replace("{ 1000 , 1010 , 1020", "{ 1000 , 1020 , 1010"), "increas"),
    "repeated": (replace("{ 1000 , 1010 ,", "{ 1000 , 1000 ,"), "increas"),
    "units of other wavelengths": (replace("= Nanometers", "= Micrometers"), "1e+06"),
    "wavenumbers": (replace("= Nanometers", "= Wavenumber"), "avenumber"),
    "no units": (lambda hdr: drop(hdr, "wavelength units"), "units"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_unusable_scene_is_refused(asnlsr, tmp_path, damage):
    hdr = make_scene(tmp_path / "s.hdr")
    spoil, word = DAMAGE[damage]
    spoil(hdr)
    before = sorted(tmp_path.iterdir())
    result = asnlsr("prepare", hdr, "--out", tmp_path / "tiles", "--tile", 64)
    assert_refused(result, "s.", word)
    assert sorted(tmp_path.iterdir()) == before


def test_negative_values_are_told(asnlsr, tmp_path):
    radiance = smooth_radiance(64, 64, 151)
    radiance[3, :5, 40] = -0.001
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, np.linspace(1000, 2500, 151))
    # In a process of its own, where the log goes to stderr and not to pytest.
    command = [sys.executable, "-m", "asnlsr.cli", "prepare", "s.hdr", "--out", "t", "--tile", "64"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "s.img: 5 negative values clipped to 0"


@pytest.mark.parametrize(
    ("low", "high", "channels", "value", "words"),
    [
        (1000, 1700, 100, 1, ["s.hdr", "SWIR2", "not covered"]),
        (400, 1000, 100, 1, ["s.hdr", "SWIR1", "not covered"]),
        (1000, 2500, 70, 1, ["s.hdr", "30 are needed"]),
        (1000, 2500, 151, np.nan, ["s.img", "NaN"]),
        (1000, 2500, 151, np.inf, ["s.img", "infinite"]),
    ],
)
def test_unsuitable_radiance_is_refused(asnlsr, tmp_path, low, high, channels, value, words):
    radiance = smooth_radiance(100, 64, channels)
    radiance[99, 7, 40] = value  # in the second block of rows
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, np.linspace(low, high, channels))
    result = asnlsr("prepare", tmp_path / "s.hdr", "--out", tmp_path / "t", "--tile", 64)
    assert_refused(result, *words)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tile", 128], ["scene-0.hdr", "64 x 128 pixels", "--tile"]),
        (["--tile", 30], ["tile 30 with scale 4"]),
        (["--tile", 0], ["tile 0"]),
        (["--tile", 64, "--scale", 0], ["scale 0"]),
        (["--tile", 64, "--border", "mirror"], ["'mirror'", "scene"]),
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


def test_disk_that_cannot_hold_the_output(asnlsr, tiny_scenes, tmp_path, small_files):
    result = asnlsr("prepare", tiny_scenes[0], "--out", tmp_path / "t", "--tile", 64)
    assert_refused(result, f"asnlsr: {tmp_path / 't'}", "File too large")
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
    assert (code, out, err) == (0, "", "")  # no bar: this is no terminal, and quick
    code, out, err = asnlsr("split", tiles, "--by", "scene", "--out", split)
    assert (code, out) == (0, "")
    assert err == "2 source_train, 2 target_train, 2 val, 2 test\n"
    assert sum(len(ids) for ids in read_split(split, tiles).values()) == 8


def test_damaged_tiles(asnlsr, tiny_tiles, tmp_path):
    shutil.copytree(tiny_tiles, tmp_path / "t")
    (tmp_path / "t/swir1.zarr/hr/.zarray").write_text('{"shape": ')
    result = asnlsr("split", tmp_path / "t", "--out", tmp_path / "s.json")
    assert_refused(result, "swir1.zarr", "asnlsr prepare")
    assert not (tmp_path / "s.json").exists()


def run_train(asnlsr, tiles, split, out, model="asnlsr", *options):
    preset = () if "--preset" in options else ("--preset", "smoke")
    files = ["--tiles", tiles, "--split", split, "--out", out]
    return asnlsr("train", model, *files, *preset, *options)


@pytest.fixture
def changed_split(tiny_split, tmp_path):
    """Write the tiny split with other tiles in some roles: the path."""

    def write(**roles):
        path = tmp_path / "split.json"
        old = json.loads(tiny_split.read_text())
        rest = "val" if "test" in roles else "test"  # gets the tiles that lose their role
        lost = {tile for role in roles for tile in old[role]} - set().union(*roles.values())
        path.write_text(json.dumps(old | roles | {rest: [*old[rest], *sorted(lost)]}))
        return path

    return write


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ({"val": ["moon/0/0"]}, ["split.json", "moon/0/0"]),
        ({"val": "moon"}, ["split.json", "not a split"]),
        ({"val": []}, ["split.json", "role val"]),
        ({"source_train": []}, ["split.json", "role source_train"]),
    ],
)
def test_split_that_does_not_fit(asnlsr, tiny_tiles, changed_split, tmp_path, roles, words):
    result = run_train(asnlsr, tiny_tiles, changed_split(**roles), tmp_path / "run", "linear")
    assert_refused(result, *words)
    assert_refused(run_train(asnlsr, tiny_tiles, tmp_path / "no.json", tmp_path / "run"), "no.json")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "setting", "words"),
    [
        ("vgg", "lr=1", ["'vgg'", "asnlsr"]),
        ("asnlsr", "depth=3", ["depth"]),
        ("asnlsr", "steps=many", ["steps"]),
        *(("asnlsr", f"{key}=0", [f"{key} = 0", "greater than 0"])
          for key in ("steps", "batch", "crop", "log_every", "lr", "restarts")),
        ("asnlsr", "relight=-1", ["relight = -1", "greater than or equal to 0"]),
        ("asnlsr", "relight=2", ["relight = 2", "less than or equal to 1"]),
        ("snlsr", "crop=59", ["crop=59", "60"]),
        ("esrt", "crop=3", ["crop=3", "4"]),
        ("asnlsr", "lr_min=NaN", ["lr_min"]),
        ("asnlsr", "lr=Infinity", ["lr = inf", "finite"]),
        ("esrt", "warmup_steps=4", ["warmup_steps", "esrt"]),
        ("esrt", "start=true", ["start", "esrt"]),
    ],
)  # fmt: skip
def test_setting_that_cannot_be(asnlsr, tiny_tiles, tiny_split, tmp_path, model, setting, words):
    run = tmp_path / "run"
    result = run_train(asnlsr, tiny_tiles, tiny_split, run, model, "--set", setting)
    assert_refused(result, *words)
    assert not run.exists()


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


def test_training_that_diverges_leaves_no_run(asnlsr, tiny_tiles, tiny_split, tmp_path):
    """Whether the loss or only the last weights are not finite; the same command says it again."""
    for log_every in (1, 4):
        run = tmp_path / f"run{log_every}"
        settings = ["lr=1e30", "steps=4", f"log_every={log_every}", "batch=2"]
        options = [word for setting in settings for word in ("--set", setting)]
        for _ in range(2):
            result = run_train(asnlsr, tiny_tiles, tiny_split, run, "esrt", *options)
            assert_refused(result, "diverged")
        assert not {path.name for path in run.iterdir()} & {"run.json", "weights.safetensors"}


def test_nan_is_accepted_nowhere(asnlsr, tiny_scenes, tiny_tiles, tiny_split, tmp_path):
    run, metrics = tmp_path / "run", tmp_path / "m.csv"
    options = ("--set", "steps=1", "--set", "batch=2")
    assert run_train(asnlsr, tiny_tiles, tiny_split, run, "esrt", *options)[0] == 0
    files = ["--tiles", tiny_tiles, "--split", tiny_split]
    assert asnlsr("evaluate", run, *files, "--out", metrics)[0] == 0
    rows = pd.read_csv(metrics)
    rows.loc[3, "value"] = np.nan
    rows.to_csv(metrics, index=False)
    assert_refused(asnlsr("table", metrics), "m.csv", "1 values are NaN")
    weights = load_file(run / "weights.safetensors")
    next(iter(weights.values())).view(-1)[0] = np.inf
    save_file(weights, run / "weights.safetensors")
    result = asnlsr("evaluate", run, *files, "--out", tmp_path / "n.csv")
    assert_refused(result, "weights.safetensors", "not finite")
    result = asnlsr("upscale", tiny_scenes[0], "--run", run, "--out", tmp_path / "hr.hdr")
    assert_refused(result, "weights.safetensors", "not finite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "run"]


def test_best_is_a_method_without_target_truth(asnlsr, tiny_tiles, tiny_split, tmp_path):
    options = ("--set", "steps=2", "--set", "batch=2")
    code, _, _ = run_train(asnlsr, tiny_tiles, tiny_split, tmp_path / "run", "best", *options)
    assert code == 0
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["model"] == "bandwise"


def test_damaged_run_is_named(asnlsr, tiny_tiles, tiny_split, tmp_path):
    for text in ("{", "[]", "{}"):
        (tmp_path / "run.json").write_text(text)
        result = run_train(asnlsr, tiny_tiles, tiny_split, tmp_path, "bicubic")
        assert_refused(result, "run.json", "damaged", "delete it")


def test_what_exists_is_kept_unless_forced(asnlsr, tiny_scenes, tiny_tiles, tiny_split, tmp_path):
    run, files = tmp_path / "run", ["--tiles", tiny_tiles, "--split", tiny_split]
    jobs = {
        "s": ["simulate", "--scenes", 1, "--size", "32x32"],
        "t": ["prepare", tiny_scenes[0], "--tile", 64],
        "split.json": ["split", tiny_tiles],
        "m.csv": ["evaluate", run, *files],
        "low.hdr": ["degrade", tiny_scenes[0]],
    }
    assert run_train(asnlsr, tiny_tiles, tiny_split, run, "linear")[0] == 0
    for out, job in jobs.items():
        assert asnlsr(*job, "--out", tmp_path / out)[0] == 0
    for path in [tmp_path / "split.json", tmp_path / "m.csv"]:
        path.write_text("mine")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for out, job in jobs.items():
        assert_refused(asnlsr(*job, "--out", tmp_path / out), tmp_path / out, "exists", "--force")
    for model, options in (("bicubic", ()), ("linear", ("--seed", 1))):
        assert_refused(run_train(asnlsr, tiny_tiles, tiny_split, run, model, *options), "remove it")
    assert run_train(asnlsr, tiny_tiles, tiny_split, run, "linear")[0] == 0  # the same job
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == kept
    for out, job in jobs.items():
        assert asnlsr(*job, "--out", tmp_path / out, "--force")[0] == 0
    assert b"mine" not in {path.read_bytes()[:4] for path in tmp_path.glob("*.*")}


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_what_others_wrote_is_never_replaced(
    asnlsr, tiny_scenes, tiny_tiles, tiny_split, tmp_path, force
):
    """Beside what is named: not even with --force. A name that pixels could have is not taken."""
    run = tmp_path / "run"
    assert run_train(asnlsr, tiny_tiles, tiny_split, run, "bicubic")[0] == 0
    foreign = ["a.img", "b.png", "c", "d.BSQ", "t/swir1.zarr/x", "s/park-0.img", "s/notes.txt",
               "w/weights.safetensors", "w/config.json"]  # fmt: skip
    for name in foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    small = make_scene(tmp_path / "small.hdr", 20, 16)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    jobs = [(name, ["degrade", tiny_scenes[0]]) for name in ("a.img", "c", "d.BSQ")]
    jobs += [(name, ["upscale", small, "--run", run]) for name in ("a.img", "b.png", "c")]
    for name, job in jobs:
        out = (tmp_path / name).with_suffix(".hdr")
        assert_refused(asnlsr(*job, "--out", out, *force), tmp_path / name)
    job = ["prepare", tiny_scenes[0], "--tile", 64, "--out", tmp_path / "t"]
    assert_refused(asnlsr(*job, *force), "swir1.zarr", "exists already")
    job = ["simulate", "--scenes", 1, "--size", "32x32", "--out", tmp_path / "s"]
    assert_refused(asnlsr(*job, *force), tmp_path / "s", "exists already")
    result = run_train(asnlsr, tiny_tiles, tiny_split, tmp_path / "w", "bicubic")
    assert_refused(result, "no run but")
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_two_at_once(asnlsr, tiny_scenes, tiny_tiles, tiny_split, tmp_path):
    """The second says so, whatever both write; the lock of one that was killed does not count."""
    small, run = make_scene(tmp_path / "small.hdr", 20, 16), tmp_path / "run"
    jobs = {
        "hr.img": lambda: asnlsr("upscale", small, "--run", run, "--out", tmp_path / "hr.hdr"),
        "s": lambda: asnlsr("simulate", "--scenes", 1, "--size", "32x32", "--out", tmp_path / "s"),
        "t/tiles": lambda: asnlsr("prepare", tiny_scenes[0], "--tile", 64, "--out", tmp_path / "t"),
        "b": lambda: run_train(asnlsr, tiny_tiles, tiny_split, tmp_path / "b", "linear"),
    }
    assert run_train(asnlsr, tiny_tiles, tiny_split, run, "bicubic")[0] == 0
    for name, job in jobs.items():
        with locked(tmp_path / name):
            assert_refused(job(), tmp_path / name, "another asnlsr is writing there")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).with_name(f".{(tmp_path / name).name}.lock").touch()
        assert job()[0] == 0
    assert not [*tmp_path.rglob(".*.lock"), *tmp_path.rglob(".*.tmp")]


def test_files_follow_the_umask(asnlsr, tiny_tiles, tiny_split, tmp_path):
    for mask in (0o022, 0o002, 0o077):
        old = os.umask(mask)
        try:
            assert run_train(asnlsr, tiny_tiles, tiny_split, tmp_path / f"{mask}", "esrt",
                             "--set", "steps=1", "--set", "batch=2")[0] == 0  # fmt: skip
        finally:
            os.umask(old)
        # Of the checkpoint Lightning's writer decides, which looks at the umask once.
        for path in (tmp_path / f"{mask}").glob("*[!t]"):
            assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path


@pytest.mark.parametrize(
    "spoil", [lambda b: b"", lambda b: b[:-100], lambda b: b[:2000], lambda b: b"x"]
)
def test_damaged_checkpoint(asnlsr, tiny_tiles, tiny_split, tmp_path, spoil):
    """It is named; the training begins anew and ends with the same weights."""
    run, options = tmp_path / "run", ("--set", "steps=2", "--set", "batch=2")
    assert run_train(asnlsr, tiny_tiles, tiny_split, run, "esrt", *options)[0] == 0
    whole = (run / "weights.safetensors").read_bytes()
    for name in ("run.json", "weights.safetensors"):
        (run / name).unlink()
    (run / "last.ckpt").write_bytes(spoil((run / "last.ckpt").read_bytes()))
    code, _, err = run_train(asnlsr, tiny_tiles, tiny_split, run, "esrt", *options)
    assert code == 0
    assert "last.ckpt: damaged; the training begins anew" in err
    assert (run / "weights.safetensors").read_bytes() == whole


def test_run_among_scenes_is_refused(asnlsr, tiny_scenes, tiny_tiles, tiny_split):
    for folder in (tiny_scenes[0].parent, tiny_tiles):
        before = sorted(folder.iterdir())
        result = run_train(asnlsr, tiny_tiles, tiny_split, folder, "bicubic")
        assert_refused(result, str(folder), "no run but")
        assert sorted(folder.iterdir()) == before


def test_evaluation_that_cannot_be(asnlsr, tiny_scenes, tiny_tiles, changed_split, tmp_path):
    """No tile to test, or tiles of another scale; and a warning is one line too."""
    run, split = tmp_path / "run", changed_split()
    tested = json.loads(split.read_text())["source_train"]
    assert run_train(asnlsr, tiny_tiles, split, run, "bicubic")[0] == 0
    files = ["--split", split, "--out", tmp_path / "m.csv", "--tiles"]
    sizes = ["--tile", 64, "--scale", 2]
    assert asnlsr("prepare", *tiny_scenes, "--out", tmp_path / "t", *sizes)[0] == 0
    assert_refused(asnlsr("evaluate", run, *files, tmp_path / "t"), "enlarges by 4", "for 2")
    changed_split(test=[])
    assert_refused(asnlsr("evaluate", run, *files, tiny_tiles), "split.json", "role test")
    changed_split(test=tested)
    code, _, err = asnlsr("evaluate", run, *files, tiny_tiles)
    assert code == 0
    for words in ("another split", f"{len(tested)} tiles of test are for training too"):
        (line,) = [line for line in err.splitlines() if words in line]
        assert "asnlsr: warning: " in line


def test_tiles_prepared_anew_are_told(asnlsr, tiny_scenes, tiny_split, tmp_path):
    """Smaller tiles at the old places have the old names: the split fits them too."""
    tiles, run = tmp_path / "tiles", tmp_path / "run"
    assert asnlsr("prepare", *tiny_scenes, "--out", tiles, "--tile", 64)[0] == 0
    run_train(asnlsr, tiles, tiny_split, run, "bicubic")
    assert asnlsr("prepare", *tiny_scenes, "--out", tiles, "--tile", 32, "--force")[0] == 0
    files = ["--tiles", tiles, "--split", tiny_split, "--out", tmp_path / "m.csv"]
    code, _, err = asnlsr("evaluate", run, *files)
    assert code == 0
    assert f"gives no role to {8 * 4 - 8} of {8 * 4} tiles" in err
    assert "another set of tiles" in err


def test_size_that_no_memory_holds(asnlsr, tmp_path):
    result = asnlsr("simulate", "--out", tmp_path / "s", "--size", "10000000x10000000")
    assert_refused(result, "memory", "smaller")


def test_file_where_a_folder_is_to_be_made(asnlsr, tiny_scenes, tiny_tiles, tiny_split, tmp_path):
    (tmp_path / "notes").write_text("mine")
    out = tmp_path / "notes"
    for result in (
        asnlsr("simulate", "--out", out),
        asnlsr("prepare", *tiny_scenes, "--out", out, "--tile", 64),
        run_train(asnlsr, tiny_tiles, tiny_split, out, "bicubic"),
        run_train(asnlsr, tiny_tiles, tiny_split, out / "run", "bicubic"),
    ):
        assert_refused(result, out)
    assert out.read_text() == "mine"


NO_PROTOCOL = "model,setting,seed,recipe,domain,metric,value\nbicubic,,0,warm,swir2,psnr,30\n"


COLUMNS = "model,setting,seed,protocol,recipe,domain,metric,value\n"
TEXT = COLUMNS + "bicubic,,0,blind,warm,swir2,psnr,foo\n"


@pytest.mark.parametrize("text", [None, "", "a,b\n1,2\n", '"unclosed', NO_PROTOCOL, TEXT])
def test_table_of_something_else(asnlsr, tmp_path, text):
    if text is not None:
        (tmp_path / "m.csv").write_text(text)
    assert_refused(asnlsr("table", tmp_path / "m.csv"), "m.csv")


# --- the process -------------------------------------------------------------------------------


def test_interrupt_ends_with_130(asnlsr, tiny_scenes, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("asnlsr.tiles.prepare._tiles", interrupt)
    code, _, err = asnlsr("prepare", tiny_scenes[0], "--out", tmp_path / "t", "--tile", 64)
    assert code == 130
    assert "Traceback" not in err
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_any_locale(tiny_scenes, tmp_path, encoding):
    """What is printed and written is UTF-8, or would be lost: arrows, names, units."""
    (tmp_path / "m.csv").write_text(COLUMNS + "bicubic,,0,blind,warm,swir2,psnr,30\n")
    make_scene(tmp_path / "plaža.hdr", 32, 32, data_units="µW/(cm² sr nm)")
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment |= {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path.cwd())}
    for arguments in (["table", "m.csv"], ["degrade", "plaža.hdr", "--out", "b.hdr"],
                      ["degrade", "plaža.hdr", "--out", "b.hdr"]):  # fmt: skip
        command = [sys.executable, "-m", "asnlsr.cli", *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
        assert b"Traceback" not in result.stderr
        if arguments[0] == "table":
            assert "PSNR (dB) ↑" in result.stdout.decode()
    assert result.returncode == 2  # the output exists by now
    np.testing.assert_allclose(
        open_scene(tmp_path / "b.hdr").read_rows(0, 8).mean(), 2e-4, rtol=0.3
    )


def test_wrong_input_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "asnlsr.cli", "prepare", "no.hdr", "--out", "tiles"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert_refused((result.returncode, result.stdout, result.stderr), "no.hdr")
    assert not list(tmp_path.iterdir())


def test_defect_ends_with_1(monkeypatch, asnlsr, tiny_scenes, tmp_path):
    def broken(*arguments):
        raise RuntimeError("a defect")

    # Not dressed up as wrong input: the traceback is what a developer needs.
    monkeypatch.setattr("asnlsr.tiles.prepare._tiles", broken)
    from asnlsr.cli import main

    argv = ["asnlsr", "prepare", str(tiny_scenes[0]), "--out", str(tmp_path / "t"), "--tile", "64"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(RuntimeError, match="a defect"):
        main()
    assert not (tmp_path / "t").exists()
