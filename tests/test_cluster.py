"""The same workflow on a cluster: a Slurm of one node, started for this test and for it only."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from asnlsr.results.evaluate import CEILING
from tests.chromium import wait_until
from tests.smoke_book import copy_repository

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
RUNS = Path("data/simulated-smoke/runs")
SWEEP = ["bicubic", "snlsr-frozen", "asnlsr"]
DAEMONS = ("munged", "slurmctld", "slurmd")
CONF = """
ClusterName=book
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName={host} CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def slurm(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=False).stdout


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Start munge and Slurm with files of their own; yield their folder."""
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/sbin")
    if missing := [name for name in DAEMONS if not shutil.which(name)]:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons start as root only")
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    conf = folder / "slurm.conf"
    host = socket.gethostname().split(".")[0]
    conf.write_text(CONF.format(host=host, folder=folder, ports=free_ports(2)))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    # Inside of a job the executor takes all SLURM_* away and would look in /etc/slurm.
    srun = folder / "bin/srun"
    srun.parent.mkdir()
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    files = {"socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "seed"}
    munge = [f"--{option}={folder / name}" for option, name in files.items()]
    commands = [
        ["munged", "--foreground", "--force", f"--key-file={key}", *munge],
        ["slurmctld", "-D", "-c", "-f", str(conf)],
        ["slurmd", "-D", "-f", str(conf)],
    ]
    daemons = []
    try:
        for command in commands:
            log = (folder / f"{command[0]}.log").open("w")
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(1)
        wait_until(lambda: "idle" in slurm("sinfo", "-h", "-o", "%T"), 60)
        yield folder
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a copy of the repository without any results."""
    return copy_repository(tmp_path / "clone")


@pytest.fixture
def start(cluster: Path, clone: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return what starts a small sweep through Slurm; none is left running."""
    targets = [f"{RUNS}/{model}-blind-warm-s0/metrics.csv" for model in SWEEP]
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--keep-going"]
    command += ["--slurm-init-seconds-before-status-checks", "1"]
    command += ["--seconds-between-status-checks", "2", *targets]
    command += ["--config", "preset=smoke"]
    started = []

    def start() -> subprocess.Popen[str]:
        with (clone / "log").open("w") as log:
            started.append(subprocess.Popen(command, cwd=clone, stdout=log, stderr=log, text=True))
        return started[-1]

    yield start
    for sweep in started:
        sweep.kill()


def test_killed_job_is_finished_by_the_next_call(clone, start):
    first = start()
    run = clone / RUNS / "asnlsr-blind-warm-s0"
    wait_until(lambda: (run / "last.ckpt").exists() or first.poll(), 900)
    jobs = slurm("squeue", "-h", "-o", "%i %k")
    training = re.search(r"^(\d+) .*train.*_asnlsr_", jobs, re.MULTILINE)
    assert training, (clone / "log").read_text()[-4000:]
    slurm("scancel", training[1])
    assert first.wait(900) != 0
    assert not (run / "run.json").exists()
    others = [clone / RUNS / f"{model}-blind-warm-s0/run.json" for model in SWEEP[:2]]
    dates = [other.stat().st_mtime for other in others]  # the rest of the sweep went on

    assert start().wait(900) == 0, (clone / "log").read_text()[-4000:]
    assert [other.stat().st_mtime for other in others] == dates
    for model in SWEEP:
        metrics = pd.read_csv(clone / RUNS / f"{model}-blind-warm-s0/metrics.csv")
        assert set(metrics["model"]) - {CEILING} == {model}
