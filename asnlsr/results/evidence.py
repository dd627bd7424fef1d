"""The recorded runs behind the book's claims. The workflow reads them, and starts without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

SEEDS, FEW = 5, 3  # of the pair that the book asks about, and of most other rows
PAIR = ("asnlsr", "snlsr-unmix")  # with and without the adversary
# What is kept of run.json.
_KEPT = (
    "name", "model", "setting", "protocol", "recipe", "seed", "preset", "parameters", "minutes",
    "device", "machine", "python", "versions", "git_revision", "pixels_sha256",
    "split_sha256", "training_version", "config",
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """Results of runs: `metrics` and `history` have the columns `run` and `setting` too."""

    metrics: pd.DataFrame  # a row per run, domain, tile and metric
    history: pd.DataFrame  # a row per run and interval of training
    runs: dict[str, dict[str, Any]]  # name: configuration, versions, machine, time and memory
    missing: list[str]  # names of the runs that were wanted and are not there


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
