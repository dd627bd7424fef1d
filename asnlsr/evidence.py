"""The runs behind the book's claims: which, in what order, and how their results are recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from asnlsr.config import Workspace
from asnlsr.files import replacing

PAIRED = ("snlsr-unmix", "asnlsr")  # compared with each other: ten seeds give a sign-flip test
SEEDS, FEWER_SEEDS = 10, 5
# Ablation of A-SNLSR and its controls. lambda = 0 is snlsr-unmix, step for step.
ABLATION = {
    "snlsr-frozen": ("skip=false",),
    "snlsr": ("skip=false",),
    "snlsr-unmix": ("skip=false", "by=tile"),
    "asnlsr": ("skip=false", "reversal=0.1", "reversal=1.0", "by=tile"),
    "bicubic": ("by=tile",),
}
# What is kept of run.json beside the configuration.
_KEPT = (
    "model", "protocol", "recipe", "seed", "preset", "parameters", "minutes", "peak_memory_gb",
    "device", "machine", "python", "versions", "git_revision", "code_sha256", "tiles_sha256",
    "split_sha256", "config",
)  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """One run of the evidence; `setting` is empty, a `--set` of training, or `by=tile`."""

    model: str
    protocol: str
    recipe: str
    seed: int
    setting: str = ""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        model = f"{self.model}_{self.setting}" if self.setting else self.model
        return f"{model}-{self.protocol}-{self.recipe}-s{self.seed}"

    @property
    def turn(self) -> tuple[bool, int, bool]:
        """Order of computing: ablation last, then seed by seed, the blind protocol first."""
        return bool(self.setting), self.seed, self.protocol != "blind"


def plan(models: Sequence[str], seeds: int = SEEDS, ablation: bool = True) -> list[Planned]:
    """Return all runs of the evidence in the order in which they are to be computed.

    Ten seeds of both recipes for the models of `PAIRED`, five of recipe `warm` for the others
    and, under the protocol of the published table, of recipe `published`. One of bicubic, which
    has nothing random.

    Parameters
    ----------
    models : sequence of str
        Names in the registry.
    seeds : int
        At most so many seeds of each.
    ablation : bool
        Whether to add the runs of `ABLATION`: blind, recipe `warm`, five seeds.
    """
    return sorted(_plan(models, seeds, ablation), key=lambda run: run.turn)


def _plan(models: Sequence[str], seeds: int, ablation: bool) -> Iterator[Planned]:
    for model in models:
        most = 1 if model == "bicubic" else SEEDS if model in PAIRED else FEWER_SEEDS
        for seed in range(min(most, seeds)):
            for protocol in ("blind", "as-released"):
                yield Planned(model, protocol, "warm", seed)
                if model in PAIRED or (protocol == "as-released" and model != "bicubic"):
                    yield Planned(model, protocol, "published", seed)
        for setting in ABLATION.get(model, ()) if ablation else ():
            for seed in range(min(most, FEWER_SEEDS, seeds)):
                yield Planned(model, "blind", "warm", seed, setting)


def recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the record of every run whose results are in `folder`: name of the run to record."""
    path = folder / "runs.json"
    runs: dict[str, dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else {}
    return runs


def record(space: Workspace, wanted: Sequence[Planned], folder: Path, command: str) -> list[str]:
    """Add the results of the finished runs of `space` to those recorded in `folder`.

    Writes `metrics.csv.gz` (a row per run, domain, tile and metric), `history.csv.gz` (a row per
    run and interval of training) and `runs.json`: the command, the missing runs, and of each run
    its configuration, versions, machine, time and memory.

    Parameters
    ----------
    space : Workspace
        Where the workflow keeps its runs.
    wanted : sequence of Planned
        Those to be recorded; what of them is not finished is named as missing.
    folder : Path
        A run recorded there before is kept unless the workflow has computed it again.
    command : str
        What makes these results.

    Returns
    -------
    list of str
        Names of the missing runs.
    """
    runs = recorded(folder)
    tables: dict[str, list[pd.DataFrame]] = {"metrics": [], "history": []}
    done = [run for run in wanted if _finished(space, run)]
    for run in done:
        made = space.root / "runs" / run.name
        whole = json.loads((made / "run.json").read_text())
        runs[run.name] = {key: whole.get(key) for key in _KEPT} | {
            "setting": run.setting,
            "benchmark": _benchmark(space.root / f"benchmarks/train-{run.name}.tsv"),
        }
        for name, parts in tables.items():
            if (made / f"{name}.csv").stat().st_size > 1:  # bicubic has no history
                rows = pd.read_csv(made / f"{name}.csv")
                parts.append(rows.assign(run=run.name, setting=run.setting))
    for name, parts in tables.items():
        _merge(folder / f"{name}.csv.gz", parts, {run.name for run in done})
    missing = [run.name for run in wanted if run.name not in runs]
    document = {"command": command, "missing": missing, "runs": dict(sorted(runs.items()))}
    with replacing(folder / "runs.json") as part:
        part.write_text(json.dumps(document, indent=1) + "\n")
    return missing


def _finished(space: Workspace, run: Planned) -> bool:
    made = space.root / "runs" / run.name
    return (made / "run.json").exists() and (made / "metrics.csv").exists()


def _benchmark(path: Path) -> dict[str, float]:
    """Seconds, largest memory (MB) and processor seconds that the workflow measured of a job."""
    if not path.exists():
        return {}
    measured = pd.read_csv(path, sep="\t").iloc[-1]
    return {key: float(measured[key]) for key in ("s", "max_rss", "cpu_time")}


def _merge(path: Path, parts: list[pd.DataFrame], new: set[str]) -> None:
    """Write the rows of `parts` and those of other runs than `new` that `path` held before."""
    if path.exists():
        past = pd.read_csv(path)
        parts = [*parts, past[~past["run"].isin(new)]]
    rows = pd.concat([part for part in parts if len(part)] or [pd.DataFrame({"run": []})])
    packed = {"method": "gzip", "mtime": 0}  # same results, same bytes
    with replacing(path) as part:
        rows.sort_values("run", kind="stable").to_csv(
            part, index=False, float_format="%.6g", compression=packed
        )
