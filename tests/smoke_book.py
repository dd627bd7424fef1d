"""The book at preset smoke: made once by the workflow, shared by the tests that look at it."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "smoke"
CONTENTS = yaml.safe_load((ROOT / "book/_toc.yml").read_text())
PAGES = [
    CONTENTS["root"],
    *(page["file"] for part in CONTENTS["parts"] for page in part["chapters"]),
]
HTML = BUILD / "_build" / "html"


def copy_repository(to: Path, *more: str) -> Path:
    """Copy what the workflow is made of, and more folders, but for results; return the copy."""
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*-smoke")
    for name in ("asnlsr", "book", "workflow", "profiles", *more):
        if (ROOT / name).is_dir():  # no results may have been recorded yet
            shutil.copytree(ROOT / name, to / name, ignore=ignore)
    shutil.copy2(ROOT / "Snakefile", to)
    return to


def run(*arguments: str, cwd: Path = ROOT, **config: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow of the clone `cwd`, at preset smoke unless `config` says otherwise."""
    pairs = [f"{key}={value}" for key, value in {"preset": "smoke", **config}.items()]
    command = [sys.executable, "-m", "snakemake", *arguments, "--config", *pairs]
    return subprocess.run(
        command, cwd=cwd, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def snakemake(*arguments: str, cwd: Path = ROOT, **config: str) -> str:
    """Run the workflow as `run` does and return what it printed; fail if it fails."""
    done = run(*arguments, cwd=cwd, **config)
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


@functools.cache  # also if it fails: no test would fare better a second time
def make_book() -> subprocess.CompletedProcess[str]:
    """Run the workflow, while other workers of pytest wait: it locks the folder it works in."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with FileLock(BUILD / "pytest.lock"):
        return run("all")


def smoke_book() -> Path:
    """Make what is stale of scenes, tiles, runs, metrics, chapters and site; return its folder."""
    done = make_book()
    assert done.returncode == 0, done.stdout[-8000:]
    return BUILD
