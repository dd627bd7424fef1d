"""Killed at any moment, the same command ends with the bytes of an unbroken one; full disks."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import test_fetch, test_workflow
from tests.test_workflow import SMOKE

KILLS = int(os.environ.get("ASNLSR_KILLS", "0"))  # of every verb: make torture; else one of two
TIMED = {"run.json", "last.ckpt"}  # hold how long it took
VERBS = ("simulate", "prepare", "train", "evaluate", "upscale", "fetch")
share, server, url = test_fetch.share, test_fetch.server, test_fetch.url
clone = test_workflow.clone
pytestmark = pytest.mark.slow


def start(arguments, out):
    command = [sys.executable, "-W", "ignore", "-m", "asnlsr.cli", *map(str, arguments)]
    return subprocess.Popen([*command, "--out", out], stderr=subprocess.PIPE, text=True)


def finished(arguments, out):
    """Run a command to its end; return the seconds it took."""
    begun = time.monotonic()
    process = start(arguments, out)
    _, told = process.communicate()
    assert process.returncode == 0, told
    return time.monotonic() - begun


def tree(folder):
    """Every file below a folder, with its bytes unless they hold times."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): ""
        if path.name in TIMED or path.suffix == ".tsv"
        else path.read_bytes()
        for path in files
    }


@pytest.fixture(scope="module")
def ready(tiny_scenes, tiny_tiles, tiny_split, tmp_path_factory):
    """Scenes, the options that name tiles and split, and a run: what the verbs work on."""
    tiles = ["--tiles", tiny_tiles, "--split", tiny_split]
    run = tmp_path_factory.mktemp("run") / "r"
    finished(["train", "bicubic", *tiles, "--preset", "smoke"], run)
    return tiny_scenes, tiles, run


def arguments_of(verb, ready, url):
    """Return what a verb is called with, and the name of its output."""
    scenes, tiles, run = ready
    steps = ["--set", "steps=20", "--set", "log_every=5", "--set", "batch=2"]
    return {
        "simulate": (["--scenes", 2, "--size", "64x64"], "scenes"),
        "prepare": ([*scenes, "--tile", 64], "tiles"),
        "train": (["bandwise", *tiles, "--preset", "smoke", *steps], "run"),
        "evaluate": ([run, *tiles], "metrics.csv"),
        "upscale": ([scenes[0], "--run", run], "hr.hdr"),
        "fetch": (["--url", url], "published"),
    }[verb]


@pytest.mark.parametrize("verb", VERBS if KILLS else ("train", "upscale"))
def test_killed_command_goes_on_to_the_same_bytes(tmp_path, ready, url, verb):
    arguments, out = arguments_of(verb, ready, url)
    arguments = [verb, *arguments]
    for name in ("unbroken", *range(KILLS or 1)):
        (tmp_path / str(name)).mkdir()
    seconds = finished(arguments, tmp_path / "unbroken" / out)
    for n in range(KILLS or 1):
        process = start(arguments, tmp_path / str(n) / out)
        time.sleep(random.Random(f"{verb} {n}").uniform(0.3, 1) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if tree(tmp_path / str(n)) != tree(tmp_path / "unbroken"):  # else it was done
            finished(arguments, tmp_path / str(n) / out)
        assert tree(tmp_path / str(n)) == tree(tmp_path / "unbroken"), f"kill {n}"


def test_killed_workflow_goes_on(clone):
    """Killed with all that it has started; what was kept, and what it makes of it, is the same."""
    target = "all" if KILLS else f"{SMOKE}/table-blind.md"
    command = [sys.executable, "-m", "snakemake", target, "--config", "preset=smoke"]
    stale = [f"{SMOKE}/split-scene.json", f"{SMOKE}/runs/rcam-blind-warm-s0"]
    stale += [f"{SMOKE}/table-blind.md", "build/smoke/src/01_scenes.ipynb", "build/smoke/_build"]

    def make():
        return subprocess.Popen(
            command, cwd=clone, start_new_session=True, stderr=subprocess.PIPE, text=True
        )

    whole, made, seconds = {}, set(), 20.0
    for n in range(-1, KILLS or 1):
        for path in stale:
            shutil.rmtree(clone / path, ignore_errors=True)
            (clone / path).unlink(missing_ok=True)
        if n >= 0:
            process = make()
            time.sleep(random.Random(f"make {n}").uniform(0.1, 0.9) * seconds)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        begun = time.monotonic()
        process = make()
        _, told = process.communicate()
        assert process.returncode == 0, told
        whole = whole or tree(clone / SMOKE)
        assert tree(clone / SMOKE) == whole, f"kill {n}"
        names = set(tree(clone / "build"))
        made = made or names
        assert names == made, f"kill {n}"
        seconds = seconds if n >= 0 else time.monotonic() - begun


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 100 kB; needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(not KILLS, reason="make torture")
@pytest.mark.parametrize("disk", ["full", "read-only"])
@pytest.mark.parametrize("verb", VERBS)
def test_disk_that_takes_nothing(small_disk, ready, url, verb, disk):
    arguments, out = arguments_of(verb, ready, url)
    if disk == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    else:
        Path(small_disk / "filler").write_bytes(bytes(100 * 1024))
    process = start([verb, *arguments], small_disk / out)
    _, told = process.communicate()
    assert process.returncode == 2, told
    assert told.startswith("asnlsr: ")
    assert told.count("\n") == 1
    assert str(small_disk) in told
    left = [path.name for path in small_disk.rglob("*") if path.is_file() and path.stat().st_size]
    assert set(left) <= {"filler"} or verb in ("train", "upscale", "fetch")  # these go on later
