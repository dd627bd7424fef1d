"""Peak memory of training steps and inference, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.workloads import NETWORKS, VARIANTS


def peak_mb(name, work):
    """Return the peak of a whole process, Python and PyTorch included."""
    command = [sys.executable, "-m", "benchmarks.workloads", name, work]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    before, peak = map(float, done.stdout.split())
    assert peak > before > 0
    return peak


@pytest.mark.parametrize("name", NETWORKS)
def test_peak_memory(name, report):
    ours = peak_mb(name, "")
    report.cost(f"{name} inference of a tile, peak memory", "MB", peak_mb(name, "inference"))
    report.cost(f"{name} training step, peak memory", "MB", ours)
    for variant in VARIANTS.get(name, {}):
        its = peak_mb(name, variant)
        report.ratio(f"{name} peak memory", "MB", ours, variant, its, ours / its)
