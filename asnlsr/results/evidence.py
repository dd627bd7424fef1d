"""The runs behind the book's claims: which, in what order, and how their results are recorded.

The workflow plans with it, and starts without torch: functions that need it import it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from asnlsr.config import Experiment, setting
from asnlsr.files import replacing
from asnlsr.models.registry import MODELS, spec

if TYPE_CHECKING:
    pass

SEEDS, SETTING_SEEDS = 10, 3
# Settings under which the claims themselves are tested again get more.
MORE_SEEDS = {"relight=0.0": SEEDS, "by=tile": 5}
# Ablation of A-SNLSR and its controls, and of `bandwise`. lambda = 0 is snlsr-unmix, step for step.
ABLATION = {
    "snlsr-frozen": ("skip=false", "steps=1000"),  # else it gets fewer: see config
    "snlsr": ("skip=false",),
    "snlsr-unmix": ("skip=false", "relight=0.0", "by=tile"),
    "asnlsr": (
        *("skip=false", "reversal=0.1", "reversal=1.0", "relight=0.0", "by=tile"),
        *("skip=false_reversal=0.1", "skip=false_reversal=1.0"),
    ),
    "bicubic": ("by=tile",),
    "bandwise": ("deblur=0",),
}

CONTROLS = tuple(name for name, entry in MODELS.items() if entry.control)
# What is kept of run.json.
_KEPT = (
    "name", "model", "setting", "protocol", "recipe", "seed", "preset", "parameters", "minutes",
    "peak_memory_gb", "device", "machine", "python", "versions", "git_revision", "pixels_sha256",
    "split_sha256", "training_version", "config",
)  # fmt: skip


def turn(run: Experiment) -> tuple[bool, bool, int, bool]:
    """Order of computing: what the claims rest on, the rest seed by seed, the ablation."""
    model, blind = spec(run.model), run.protocol == "blind"
    claim = blind and run.recipe == "warm" and model.seeds == SEEDS
    return bool(run.settings) or model.control, not claim, run.seed, not blind


def plan(
    models: Sequence[str], preset: str = "demo", seeds: int = SEEDS, ablation: bool = True
) -> list[Experiment]:
    """Return all runs of the evidence in the order in which they are to be computed.

    Recipe `warm`: as many seeds as the registry says, one of those that take no training steps,
    because nothing in them is random. Recipe `published`: the same seeds under the protocol of
    the published table, and under `blind` those of the models with most seeds; never of ours.

    Parameters
    ----------
    models : sequence of str
        Names in the registry.
    preset : str
    seeds : int
        At most so many seeds of each.
    ablation : bool
        Whether to add the runs of `ABLATION`, and `CONTROLS` where A-SNLSR is among the models:
        blind, recipe `warm`, all seeds of controls, and three of settings but for `MORE_SEEDS`.
    """
    return sorted(_plan(models, preset, seeds, ablation), key=turn)


def _plan(models: Sequence[str], preset: str, seeds: int, ablation: bool) -> Iterator[Experiment]:
    for name in models:
        model = spec(name)
        for seed in range(min(model.seeds, seeds)):
            for protocol in ("blind", "as-released"):
                yield Experiment(name, preset, protocol, "warm", seed)
                published = protocol == "as-released" or model.seeds == SEEDS
                if published and model.takes_steps and not model.ours:
                    yield Experiment(name, preset, protocol, "published", seed)
        for text in ABLATION.get(name, ()) if ablation else ():
            settings = dict(setting(one) for one in text.split("_"))
            for seed in range(min(model.seeds, MORE_SEEDS.get(text, SETTING_SEEDS), seeds)):
                yield Experiment(name, preset, "blind", "warm", seed, settings)
    for name in CONTROLS if ablation and "asnlsr" in models else ():
        for seed in range(min(spec(name).seeds, seeds)):
            yield Experiment(name, preset, "blind", "warm", seed)


@dataclass(frozen=True)
class Results:
    """Results of runs: `metrics` and `history` have the columns `run` and `setting` too."""

    metrics: pd.DataFrame  # a row per run, domain, tile and metric
    history: pd.DataFrame  # a row per run and interval of training
    runs: dict[str, dict[str, Any]]  # name: configuration, versions, machine, time and memory
    missing: list[str]  # names of the runs that were wanted and are not there

    def merged(self, older: Results) -> Results:
        """Return these results and those of other runs in `older`."""
        tables = {}
        for name in ("metrics", "history"):
            rows = getattr(older, name)
            both = [getattr(self, name), rows[~rows["run"].isin(list(self.runs))]]
            kept = [part for part in both if len(part)] or both[:1]
            tables[name] = pd.concat(kept).sort_values("run", kind="stable")
        missing = [name for name in self.missing if name not in older.runs]
        runs = dict(sorted((older.runs | self.runs).items()))
        return Results(runs=runs, missing=missing, **tables)


def collect(folder: Path, wanted: Sequence[str]) -> Results:
    """Return the results of those runs in `folder`/runs that are finished and measured."""
    from asnlsr.training.folder import read_run

    runs: dict[str, dict[str, Any]] = {}
    tables: dict[str, list[pd.DataFrame]] = {"metrics": [], "history": []}
    for name in wanted:
        made = folder / "runs" / name
        if not ((made / "run.json").exists() and (made / "metrics.csv").exists()):
            continue
        whole = read_run(made)
        measured = _benchmark(folder / f"benchmarks/train-{name}.tsv")
        runs[name] = {key: whole.get(key) for key in _KEPT} | {"benchmark": measured}
        for table, parts in tables.items():
            if (made / f"{table}.csv").stat().st_size > 1:  # bicubic has no history
                parts.append(_read_table(made / f"{table}.csv"))
    empty = pd.DataFrame({"run": [], "setting": []}, dtype=str)
    whole_tables = {name: pd.concat(parts) if parts else empty for name, parts in tables.items()}
    return Results(runs=runs, missing=[n for n in wanted if n not in runs], **whole_tables)


def _read_table(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, dtype={"run": str, "setting": str})
    return rows.fillna({"setting": ""})  # CSV knows no empty word


def _benchmark(path: Path) -> dict[str, float]:
    """Seconds, largest memory (MB) and processor seconds that the workflow measured of a job."""
    if not path.exists():
        return {}
    measured = pd.read_csv(path, sep="\t").iloc[-1]
    return {key: float(measured[key]) for key in ("s", "max_rss", "cpu_time")}


def read_results(folder: Path) -> Results:
    """Return what is recorded in a folder; nothing where there is none."""
    if not (folder / "runs.json").exists():
        return collect(folder, [])
    tables = {name: _read_table(folder / f"{name}.csv.gz") for name in ("metrics", "history")}
    document = json.loads((folder / "runs.json").read_text())
    return Results(runs=document["runs"], missing=document["missing"], **tables)


def check_scenes(folder: Path, results: Results, scenes: Iterable[str]) -> None:
    """Raise `ValueError` if results in `folder` were tested on a scene that is not in `scenes`."""
    if others := sorted(_tested(results) - set(scenes)):
        raise ValueError(
            f"{folder} holds results on other scenes ({', '.join(others)}): "
            "give yours a name of their own (SCENES_NAME=mine) or delete that folder"
        )


def _tested(results: Results) -> set[str]:
    """Names of the scenes held back for the test when tiles are split by scene."""
    rows = results.metrics
    if rows.empty:
        return set()
    return set(rows.loc[(rows["protocol"] == "blind") & (rows["setting"] == ""), "scene"].dropna())


def record(made: Path, wanted: Sequence[str], folder: Path, command: str) -> Results:
    """Add the results of the finished runs in `made`/runs to those recorded in a folder.

    Writes `metrics.csv.gz`, `history.csv.gz` and `runs.json`, which also names the command and
    the missing runs. A run recorded before is kept unless it is there again.

    Raises
    ------
    ValueError
        If the recorded results were measured on other tiles or test scenes.
    """
    found, older = collect(made, wanted), read_results(folder)
    if tested := _tested(found):
        check_scenes(folder, older, tested)
    runs = [*found.runs.values(), *older.runs.values()]
    # Runs of before 2026-12 have a hash of another kind.
    tiles = {(run["protocol"], run["pixels_sha256"]) for run in runs if run.get("pixels_sha256")}
    if len(tiles) > len(dict(tiles)):
        raise ValueError(
            f"{folder} and {made}/runs hold runs on different tiles, of other scenes or cut "
            "otherwise: delete the older ones or give yours a name of their own (SCENES_NAME=mine)"
        )
    results = found.merged(older)
    packed = {"method": "gzip", "mtime": 0}  # same results, same bytes
    for name in ("metrics", "history"):
        with replacing(folder / f"{name}.csv.gz") as part:
            rows = getattr(results, name)
            rows.to_csv(part, index=False, float_format="%.6g", compression=packed)
    document = {"command": command, "missing": results.missing, "runs": results.runs}
    with replacing(folder / "runs.json") as part:
        part.write_text(json.dumps(document, indent=1) + "\n")
    return results
