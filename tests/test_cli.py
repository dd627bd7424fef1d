"""The command line: wrong input ends in one line and exit code 2, nothing half-written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from asnlsr.files import locked
from asnlsr.scenes.bands import DOMAINS
from asnlsr.scenes.envi import open_scene
from asnlsr.tiles.store import read_split
from tests.conftest import assert_refused, make_scene, tree

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


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("prepare", ["Missing argument"]),
        ("prepare a.hdr --out t --tile big", ["--tile"]),
        ("prepare a.hdr --out t", ["a.hdr"]),
        ("prepare SCENE --out t --tile 128", ["scene-0.hdr", "64 x 128 pixels", "--tile"]),
        ("prepare SCENE --out t --tile 30", ["tile 30 with scale 4"]),
        ("prepare SCENE --out t --tile 0", ["tile 0"]),
        ("prepare SCENE --out t --tile 64 --scale 0", ["scale 0"]),
        ("prepare SCENE --out t --tile 64 --border mirror", ["'mirror'", "scene"]),
        ("prepare SCENE SCENE --out t --tile 64", ["scene-0", "rename"]),
        ("paint", ["paint"]),
        ("simulate --out s --size 512", ["512x256"]),
        ("simulate --out s --size 10000000x10000000", ["memory", "smaller"]),
        (f"simulate --out s --seed {2**32}", ["--seed"]),
        ("fetch moon --out s", ["'moon'"]),
        ("split t --by pixel --out s.json", ["'pixel'"]),
        ("split . --out s.json", ["asnlsr prepare"]),
        ("evaluate none --tiles t --split s --out m.csv", ["No such file"]),
        ("table m.csv", ["m.csv"]),
        ("table m.csv --format html", ["'html'"]),
        ("train linear TILES --split no.json --out r", ["no.json"]),
        ("train asnlsr TILES SPLIT --out r --recipe cold", ["'cold'"]),
        ("train vgg TILES SPLIT --out r", ["'vgg'", "asnlsr"]),
        *(
            (f"train asnlsr TILES SPLIT --out r --set {text}", [f"--set {text}: must be key=value"])
            for text in ("lr", "=1", "lr=", "lr=[1]", "lr={}")
        ),
        ("train asnlsr TILES SPLIT --out r --set steps=many", ["steps"]),
        ("train asnlsr TILES SPLIT --out r --set lr_min=NaN", ["lr_min"]),
        ("train snlsr TILES SPLIT --out r --set crop=59", ["crop=59", "60"]),
        ("train esrt TILES SPLIT --out r --set crop=3", ["crop=3", "4"]),
    ],
)
def test_wrong_arguments(refused, line, words):
    refused(line, *words)


# --- scenes ------------------------------------------------------------------------------------


# What stands in the header of a whole scene of 64 x 128 x 151, what stands there instead, and
# words of the answer.
DAMAGE = [
    (".+", "", "s.hdr"),
    (".{20}$", "", "s.hdr"),  # cut in a list
    ("lines = 64", "lines = 65", "s.img"),
    ("lines = 64", "lines = 0", "lines"),
    ("lines = 64", "lines = many", "many"),
    ("lines = 64", "lines = 64\nlines = 65", "lines stands there twice"),
    ("lines = 64", "lines = 64\nbbl = {1, 1", "bbl: its brace"),
    ("\nbands.*?\n", "\n", "bands"),
    ("type = 4", "type = 6", "data type"),
    ("order = 0", "order = 0\ndata ignore value = none", "none"),
    ("order = 0", "order = 7", "byte order"),
    ("= bip", "= bap", "bap"),
    ("\nwavelength =.*?\n", "\n", "wavelength"),
    ("{ 1000 , ", "{ ", "151"),
    ("{ 1000 ,", "{ red ,", "red"),
    ("1010 , 1020", "1020 , 1010", "increas"),
    ("1000 , 1010 ,", "1000 , 1000 ,", "increas"),
    ("= Nanometers", "= Micrometers", "1e+06"),
    ("= Nanometers", "= Wavenumber", "avenumber"),
    ("\nwavelength units.*?\n", "\n", "units"),
]


@pytest.mark.parametrize(("old", "new", "word"), DAMAGE)
def test_unusable_header_is_refused(refused, tmp_path, old, new, word):
    hdr = make_scene(tmp_path / "s.hdr")
    text, changes = re.subn(old, new, hdr.read_text(), count=1, flags=re.DOTALL)
    assert changes
    hdr.write_text(text)
    refused("prepare s.hdr --out t --tile 64", "s.", word)


def test_negative_values_are_told(asnlsr, tmp_path):
    make_scene(tmp_path / "s.hdr", 64, 64, spoilt=(np.s_[3, :5, 40], -0.001))
    # In a process of its own, where the log goes to stderr and not to pytest.
    command = [sys.executable, "-m", "asnlsr.cli", "prepare", "s.hdr", "--out", "t", "--tile", "64"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "s.img: 5 negative values clipped to 0"


@pytest.mark.parametrize(
    ("low", "high", "channels", "value", "words"),
    [
        (1000, 1700, 100, 1, ["s.hdr", "SWIR2", "not covered"]),
        (1000, 2500, 151, np.nan, ["s.img", "NaN"]),
        (1000, 2500, 151, np.inf, ["s.img", "infinite"]),
    ],
)
def test_unsuitable_radiance_is_refused(refused, tmp_path, low, high, channels, value, words):
    spoilt = (99, 7, 40), value  # in the second block of rows
    make_scene(tmp_path / "s.hdr", 100, 64, channels, nm=(low, high), spoilt=spoilt)
    refused("prepare s.hdr --out t --tile 64", *words)


def test_scenes_that_cannot_share_tiles_are_refused(refused, tmp_path):
    make_scene(tmp_path / "o.hdr", nm=(1040, 2460))
    refused("prepare SCENE o.hdr --out t --tile 64", "o.hdr", "prepare the two")


# --- a disk that is full -----------------------------------------------------------------------


def test_disk_that_cannot_hold_the_output(refused, small_files):
    refused("prepare SCENE --out t --tile 64", "asnlsr: t", "File too large")
    refused("simulate --out s --scenes 1 --size 32x32", "park-0.img", "File too large")


# --- tiles, splits and what follows ------------------------------------------------------------

TRAIN = "train {} TILES SPLIT --out {} --preset smoke --set batch=2 --set steps={}"


def test_prepare_and_split(call):
    assert call("prepare SCENES --out t --tile 64") == (0, "", "")  # no bar: quick, and no terminal
    told = "2 source_train, 2 target_train, 2 val, 2 test\n"
    assert call("split t --by scene --out split.json") == (0, "", told)
    assert sum(len(ids) for ids in read_split(Path("split.json"), Path("t")).values()) == 8


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


def test_split_that_does_not_fit(refused, changed_split):
    absent = ["moon/1/1", "moon/0/0"], "2 of its tiles, such as moon/0/0"
    for role, tiles, word in (("val", *absent), ("source_train", [], "source_")):
        changed_split(**{role: tiles})
        refused("train linear TILES --split split.json --out run", "split.json", word)


def test_train_evaluate_table(call, tiny_split):
    assert call("train bicubic TILES SPLIT --out run")[0] == 0
    assert call("evaluate run TILES SPLIT --out m.csv")[:2] == (0, "")
    rows = pd.read_csv("m.csv")
    assert set(rows["model"]) == {"bicubic"}
    assert set(rows["domain"]) == set(DOMAINS)
    assert set(rows["tile"].dropna()) == set(read_split(tiny_split)["test"])
    code, out, _ = call("table m.csv")
    assert code == 0
    psnr = rows[(rows["metric"] == "psnr") & (rows["domain"] == "swir2")]["value"].mean()
    assert f"{psnr:.2f}" in out
    assert call("table m.csv --domain swir1")[1] != out
    assert "\\begin{tabular}" in call("table m.csv --format latex")[1]


def test_training_that_diverges_leaves_no_run(call):
    """Whether the loss or only the last weights are not finite; the same command says it again."""
    for log_every in (1, 4, 4):
        line = TRAIN.format("esrt", f"run{log_every}", 4)
        assert_refused(call(f"{line} --set lr=1e30 --set log_every={log_every}"), "diverged")
    assert not [*Path().rglob("run.json"), *Path().rglob("weights.safetensors")]


def test_nan_is_accepted_nowhere(call, refused):
    assert call(TRAIN.format("esrt", "run", 1))[0] == 0
    assert call("evaluate run TILES SPLIT --out m.csv")[0] == 0
    rows = pd.read_csv("m.csv")
    rows.loc[3, "value"] = np.nan
    rows.to_csv("m.csv", index=False)
    refused("table m.csv", "m.csv", "1 values are NaN")
    weights = load_file("run/weights.safetensors")
    next(iter(weights.values())).view(-1)[0] = np.inf
    save_file(weights, "run/weights.safetensors")
    refused("evaluate run TILES SPLIT --out n.csv", "weights.safetensors", "not finite")
    refused("upscale SCENE --run run --out hr.hdr", "weights.safetensors", "not finite")


def test_best_is_a_method_without_target_truth(call):
    assert call(TRAIN.format("best", "run", 2))[0] == 0
    assert json.loads(Path("run/run.json").read_text())["model"] == "bandwise"


def test_damaged_run_is_named(refused, tmp_path):
    for text in ("{", "[]", "{}"):
        (tmp_path / "run.json").write_text(text)
        refused("train bicubic TILES SPLIT --out .", "run.json", "damaged", "delete it")


def test_what_exists_is_kept_unless_forced(call, refused, tiny_tiles, tmp_path):
    jobs = {
        "s": "simulate --scenes 1 --size 32x32 --out s",
        "t": "prepare SCENE --tile 64 --out t",
        "split.json": f"split {tiny_tiles} --out split.json",
        "m.csv": "evaluate run TILES SPLIT --out m.csv",
        "low.hdr": "degrade SCENE --out low.hdr",
    }
    assert call("train linear TILES SPLIT --out run")[0] == 0
    for job in jobs.values():
        assert call(job)[0] == 0
    for name in ("split.json", "m.csv"):
        Path(name).write_text("mine")
    for out, job in jobs.items():
        refused(job, out, "exists", "--force")
    for other in ("bicubic", "linear --seed 1"):
        refused(f"train {other} TILES SPLIT --out run", "remove it")
    before = tree(tmp_path)
    assert call("train linear TILES SPLIT --out run")[0] == 0  # the same job
    assert tree(tmp_path) == before
    for job in jobs.values():
        assert call(f"{job} --force")[0] == 0
    assert b"mine" not in {path.read_bytes()[:4] for path in tmp_path.glob("*.*")}


@pytest.mark.parametrize("force", ["", "--force"])
def test_what_others_wrote_is_never_replaced(call, refused, tmp_path, force):
    """Beside what is named: not even with --force. A name that pixels could have is not taken."""
    assert call("train bicubic TILES SPLIT --out run")[0] == 0
    for name in ("a.img", "b.png", "c", "d.BSQ", "t/swir1.zarr/x", "s/park-0.img", "s/notes.txt",
                 "w/weights.safetensors", "w/config.json"):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("mine")
    make_scene(tmp_path / "small.hdr", 20, 16)
    for name in ("a.img", "c", "d.BSQ"):
        refused(f"degrade SCENE --out {Path(name).stem}.hdr {force}", name)
    for name in ("a.img", "b.png", "c"):
        refused(f"upscale small.hdr --run run --out {Path(name).stem}.hdr {force}", name)
    refused(f"prepare SCENE --tile 64 --out t {force}", "swir1.zarr", "exists already")
    refused(f"simulate --scenes 1 --size 32x32 --out s {force}", "asnlsr: s", "exists already")
    refused("train bicubic TILES SPLIT --out w", "no run but")


def test_two_at_once(call, refused, tmp_path):
    """The second says so, whatever both write; the lock of one that was killed does not count."""
    make_scene(tmp_path / "small.hdr", 20, 16)
    assert call("train bicubic TILES SPLIT --out run")[0] == 0
    for name, job in {
        "hr.img": "upscale small.hdr --run run --out hr.hdr",
        "s": "simulate --scenes 1 --size 32x32 --out s",
        "t/tiles": "prepare SCENE --tile 64 --out t",
        "b": "train linear TILES SPLIT --out b",
    }.items():
        with locked(Path(name)):
            refused(job, name, "another asnlsr is writing there")
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).with_name(f".{Path(name).name}.lock").touch()
        assert call(job)[0] == 0
    assert not [*tmp_path.rglob(".*.lock"), *tmp_path.rglob(".*.tmp")]


def test_files_follow_the_umask(call):
    for mask in (0o022, 0o002, 0o077):
        old = os.umask(mask)
        try:
            call(f"train linear TILES SPLIT --out {mask}")
        finally:
            os.umask(old)
        modes = {path.stat().st_mode & 0o777 for path in Path(f"{mask}").iterdir()}
        assert modes == {0o666 & ~mask}


def test_damaged_checkpoint(call):
    """It is named; the training begins anew and ends with the same weights."""
    assert call(TRAIN.format("esrt", "run", 2))[0] == 0
    record, weights, checkpoint = map(Path("run").joinpath, RUN)
    whole, expected = checkpoint.read_bytes(), weights.read_bytes()
    for damaged in (b"", whole[:-100], b"x"):
        record.unlink()
        weights.unlink()
        checkpoint.write_bytes(damaged)
        code, _, err = call(TRAIN.format("esrt", "run", 2))
        assert code == 0
        assert "last.ckpt: damaged; the training begins anew" in err
        assert weights.read_bytes() == expected


RUN = ("run.json", "weights.safetensors", "last.ckpt")


def test_evaluation_that_cannot_be(call, refused, changed_split):
    """No tile to test, or tiles of another scale; and a warning is one line too."""
    tested = json.loads(changed_split().read_text())["source_train"]
    assert call("train bicubic TILES --split split.json --out run")[0] == 0
    assert call("prepare SCENES --out t --tile 64 --scale 2")[0] == 0
    refused("evaluate run --split split.json --out m.csv --tiles t", "enlarges by 4", "for 2")
    line = "evaluate run --split split.json --out m.csv TILES"
    changed_split(test=[])
    refused(line, "split.json", "role test")
    changed_split(test=tested)
    code, _, err = call(line)
    assert code == 0
    for words in ("another split", f"{len(tested)} tiles of test are for training too"):
        (line,) = [line for line in err.splitlines() if words in line]
        assert "asnlsr: warning: " in line


def test_tiles_prepared_anew_are_told(call):
    """Smaller tiles at the old places have the old names: the split fits them too."""
    assert call("prepare SCENES --out t --tile 64")[0] == 0
    call("train bicubic --tiles t SPLIT --out run")
    assert call("prepare SCENES --out t --tile 32 --force")[0] == 0
    code, _, err = call("evaluate run --tiles t SPLIT --out m.csv")
    assert code == 0
    assert f"gives no role to {8 * 4 - 8} of {8 * 4} tiles" in err
    assert "another set of tiles" in err


def test_file_where_a_folder_is_to_be_made(refused, tmp_path):
    (tmp_path / "notes").write_text("mine")
    for line in ("simulate --out notes", "prepare SCENES --tile 64 --out notes"):
        refused(line, "notes")
    for out in ("notes", "notes/run"):
        refused(f"train bicubic TILES SPLIT --out {out}", "notes")


NO_PROTOCOL = "model,setting,seed,recipe,domain,metric,value\nbicubic,,0,warm,swir2,psnr,30\n"


COLUMNS = "model,setting,seed,protocol,recipe,domain,metric,value\n"
TEXT = COLUMNS + "bicubic,,0,blind,warm,swir2,psnr,foo\n"


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", '"unclosed', NO_PROTOCOL, TEXT])
def test_table_of_something_else(refused, tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    refused("table m.csv", "m.csv")


# --- the process -------------------------------------------------------------------------------


def test_interrupt_ends_with_130_and_a_defect_with_its_traceback(call, monkeypatch):
    broken = Mock(side_effect=[KeyboardInterrupt, RuntimeError])
    monkeypatch.setattr("asnlsr.tiles.prepare._tiles", broken)
    code, _, err = call("prepare SCENE --out t --tile 64")
    assert code == 130
    assert "Traceback" not in err
    with pytest.raises(RuntimeError):  # not dressed up as wrong input
        call("prepare SCENE --out t --tile 64")
    assert not Path("t").exists()


def test_any_locale(tiny_scenes, tmp_path):
    """What is printed and written is UTF-8, or would be lost: arrows, names, units."""
    (tmp_path / "m.csv").write_text(COLUMNS + "bicubic,,0,blind,warm,swir2,psnr,30\n")
    make_scene(tmp_path / "plaža.hdr", 32, 32, data_units="µW/(cm² sr nm)")
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment |= {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path.cwd())}
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
