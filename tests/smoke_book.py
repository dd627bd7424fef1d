"""The book at preset smoke: made once by the workflow, shared by the tests that look at it."""

import functools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "smoke"
HTML = BUILD / "_build" / "html"


def snakemake(*arguments: str, cwd: Path = ROOT, **config: str) -> str:
    """Run the workflow of the clone `cwd` at preset smoke; return what it printed."""
    pairs = [f"{key}={value}" for key, value in {"preset": "smoke", **config}.items()]
    command = [sys.executable, "-m", "snakemake", *arguments, "--config", *pairs]
    done = subprocess.run(
        command, cwd=cwd, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


@functools.cache
def smoke_book() -> Path:
    """Make what is stale of scenes, tiles, runs, metrics, chapters and site; return its folder."""
    snakemake("all")
    return BUILD
