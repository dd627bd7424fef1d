"""The runs behind the book's claims: which, in what order, and how their results are recorded.

The workflow plans with it, and starts without torch: functions that need it import it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from asnlsr.config import PRESETS, Experiment, setting
from asnlsr.files import replacing
from asnlsr.models.registry import BEST, MODELS, spec

SEEDS, FEW = 5, 3  # of the pair that the book asks about, and of every other row
PAIR = ("asnlsr", "snlsr-unmix")  # with and without the adversary
CONTROLS = tuple(name for name, entry in MODELS.items() if entry.control)
# Steps at `demo`. Planned, and to be tested: half and twice as many are in the plan (`DOUBLED`),
# and a budget is long enough where doubling it gains less than 0.05 dB on source validation.
BUDGETS = {name: 2000 for name, entry in MODELS.items() if entry.unmixes} | {
    "rcam": 1000, "esrt": 1000, "srformer": 1000, "bandwise": 1000, "bandwise-oracle": 1000,
}  # fmt: skip
DOUBLED = (*PAIR, "rcam", "esrt", "srformer", "bandwise")
REAL_STEPS = 500  # of a fold of the real scenes: every source tile 160 times; `bandwise` is quick
# Of A-SNLSR and its control: settings, seeds. The last two are the steps of the paper's recipe.
QUESTIONS = {"endmembers=apart": SEEDS, "relight=0.0": FEW}
SWEEP = ("reversal=0.1", "reversal=1.0")
PUBLISHED = {8000: FEW, 22_500: 1}
# What is kept of run.json.
_KEPT = (
    "name", "model", "setting", "protocol", "recipe", "seed", "preset", "parameters", "minutes",
    "device", "machine", "python", "versions", "git_revision", "pixels_sha256",
    "split_sha256", "training_version", "config",
)  # fmt: skip


def plan(
    models: Sequence[str], preset: str = "demo", seeds: int = SEEDS, scenes: Sequence[str] = ()
) -> list[Experiment]:
    """Return all runs of the evidence in the order in which they are to be computed.

    Blind; every network trained for its steps in `BUDGETS` at preset `demo`. First A-SNLSR and
    its control, seed by seed, then every other row, then what the steps, the start and the
    strength of the adversary change, then recipe `published`.

    Parameters
    ----------
    models : sequence of str
        Names in the registry.
    preset : str
    seeds : int
        At most so many seeds of each.
    scenes : sequence of str
        Leave out one after the other, and answer for these scenes only: one seed of every row,
        `FEW` of A-SNLSR, its control and the best method.
    """
    planned = _folds(models, scenes) if scenes else _plan([*models, *CONTROLS])
    known = {*models, *(CONTROLS if "asnlsr" in models else ())}
    return list(
        dict.fromkeys(
            trained_to_the_end(name, preset, recipe, seed, texts)
            for name, recipe, seed, texts in planned
            if seed < seeds and name in known
        )
    )


Planned = tuple[str, str, int, tuple[str, ...]]  # model, recipe, seed, settings


def trained_to_the_end(
    name: str, preset: str = "demo", recipe: str = "warm", seed: int = 0, texts: Iterable[str] = ()
) -> Experiment:
    """Return the run of a model with its steps in `BUDGETS`, where the preset is `demo`."""
    settings = dict(map(setting, texts))
    if preset == "demo" and spec(name).takes_steps:
        settings = {"steps": BUDGETS[name]} | settings
        if settings["steps"] == PRESETS["demo"].steps:
            del settings["steps"]
    else:
        settings.pop("steps", None)
    return Experiment(name, preset, "blind", recipe, seed, settings)


def _plan(models: Sequence[str]) -> Iterator[Planned]:
    rest = [name for name in models if name not in PAIR]
    yield from ((name, "warm", seed, ()) for seed in range(SEEDS) for name in PAIR)
    for seed in range(FEW):
        yield from ((name, "warm", seed, ()) for name in rest if seed < _seeds(name))
    for factor in (0.5, 2):
        for name in DOUBLED:
            yield name, "warm", 0, (f"steps={int(factor * BUDGETS[name])}",)
    for text, count in QUESTIONS.items():
        yield from ((name, "warm", seed, (text,)) for seed in range(count) for name in PAIR)
    yield from (("asnlsr", "warm", seed, (text,)) for seed in range(FEW) for text in SWEEP)
    for steps, count in PUBLISHED.items():
        for seed in range(count):
            yield from ((name, "published", seed, (f"steps={steps}",)) for name in PAIR)


def _folds(models: Sequence[str], scenes: Sequence[str]) -> Iterator[Planned]:
    for seed in range(FEW):
        for name in models:
            for scene in scenes if seed == 0 or name in (*PAIR, BEST) else ():
                texts = (f"steps={REAL_STEPS}",) if not spec(name).bands else ()
                yield name, "warm", seed, (*texts, f"by=without-{scene}")


def _seeds(name: str) -> int:
    return FEW if spec(name).takes_steps else 1  # nothing else in them is random


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


def blind(results: Results, table: str = "metrics") -> pd.DataFrame:
    """Return the rows of protocol `blind`, with a column for the steps of their run.

    Parameters
    ----------
    results : Results
    table : str
        `metrics` or `history`.

    Returns
    -------
    DataFrame
        With the model, recipe and seed of the run, its `steps` after the warm-up, and `setting`
        without the steps and without the scene that was left out.
    """
    rows = getattr(results, table)
    about = ["model", "recipe", "seed", "setting", "steps"]
    runs = pd.DataFrame(
        [
            kept | {"run": name, "steps": kept["config"]["steps"]}
            for name, kept in results.runs.items()
        ],
        columns=["run", "protocol", *about],
    )
    steps_or_fold = r"^steps=\d+_?|_?steps=\d+|_?by=without-.*$"
    runs["setting"] = runs["setting"].astype(str).str.replace(steps_or_fold, "", regex=True)
    runs = runs[runs["protocol"] == "blind"].drop(columns="protocol").astype({"run": str})
    shown: pd.DataFrame = rows[rows.columns.difference(about)].merge(runs, on="run")
    return shown


def in_full(rows: pd.DataFrame) -> pd.DataFrame:
    """Return those rows of `blind` that are of recipe `warm` and of no shortened run.

    That is, for every network, of the longest runs that `FEW` seeds are recorded of, `SEEDS` of
    `PAIR`, or of the longest at all.
    """
    warm = rows[rows["recipe"] == "warm"]
    seeds = warm[warm["setting"] == ""].groupby(["model", "steps"])["seed"].nunique().reset_index()
    wanted = seeds["model"].isin(PAIR).map({True: SEEDS, False: FEW})
    several = seeds[seeds["seed"] >= wanted].groupby("model")["steps"].max()
    steps = several.combine_first(warm.groupby("model")["steps"].max())
    return warm[warm["steps"] == warm["model"].map(steps)]


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
        runs[name] = {key: whole.get(key) for key in _KEPT}
        for table, parts in tables.items():
            if (made / f"{table}.csv").stat().st_size > 1:  # bicubic has no history
                rows = _read_table(made / f"{table}.csv")
                parts.append(rows[rows["run"] == name])  # and not the noise-free scene
    # With all columns, so that who reads nothing needs no special case.
    columns = "run model setting seed preset protocol recipe domain scene tile metric value"
    empty = pd.DataFrame(columns=columns.split()).astype({"value": float})
    whole_tables = {name: pd.concat(parts) if parts else empty for name, parts in tables.items()}
    return Results(runs=runs, missing=[n for n in wanted if n not in runs], **whole_tables)


def _read_table(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, dtype={"run": str, "setting": str})
    return rows.fillna({"setting": ""})  # CSV knows no empty word


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
    by_scene = (rows["protocol"] == "blind") & ~rows["setting"].str.contains("by=tile")
    return set(rows.loc[by_scene, "scene"].dropna())


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
