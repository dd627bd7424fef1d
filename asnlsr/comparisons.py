"""Pairs of models on the seeds, tiles and scenes that both have, and what may be said of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from asnlsr.config import AT_ONCE
from asnlsr.evidence import Results
from asnlsr.metrics import METRICS
from asnlsr.statistics import FEWEST, paired_difference, scene_interval
from asnlsr.tables import ORACLES, seed_table

FEWEST_SCENES = 3  # resampled two have three outcomes
FALL = 1.0  # dB of validation PSNR
SETTLING = 6  # pairs: with fewer, p of a sign-flip test cannot be below 0.05


def with_settings(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows whose `model` also names the setting of the run, as in `asnlsr_reversal=1.0`."""
    model, setting = metrics["model"], metrics["setting"]
    return metrics.assign(model=model.where(setting == "", model + "_" + setting))


def compared(
    rows: pd.DataFrame, metric: str, a: str, b: str, recipe: str = "warm"
) -> dict[str, Any]:
    """Model a less model b on the target, seed by seed.

    Parameters
    ----------
    rows : DataFrame
        Metrics of one protocol, as recorded.
    metric, a, b, recipe : str
        A key of `METRICS`, two values of the column `model`, and the recipe of both; a method
        that takes no training steps has one value for all seeds.

    Returns
    -------
    dict
        `metric` (its label), `mean`, `median` and `pairs`, and from `FEWEST` pairs on also `low`,
        `high` and `p` of `paired_difference`. Empty if no seed is common.
    """
    table = seed_table(rows, metric)
    columns = [(model, "warm" if model in AT_ONCE else recipe) for model in (a, b)]
    pair = table[columns].dropna() if set(columns) <= set(table) else table[:0]
    if pair.empty:
        return {}
    left, right = pair.to_numpy().T
    row = {"metric": METRICS[metric][0], "mean": (left - right).mean(), "pairs": len(pair)}
    row |= {"median": np.median(left - right)}
    return row | (vars(paired_difference(left, right)) if len(pair) >= FEWEST else {})


def tile_gaps(rows: pd.DataFrame, metric: str, a: str, b: str) -> pd.DataFrame:
    """Model a less model b for every target tile and every seed that both have.

    A method that takes no training steps has one value for all seeds.

    Returns
    -------
    DataFrame
        Columns `scene`, `tile`, `seed`, `value`, as `statistics.scene_interval` takes it.
    """
    rows = rows[(rows["domain"] == "swir2") & (rows["metric"] == metric)]
    each = rows.pivot_table(index=["scene", "tile", "seed"], columns="model", values="value")
    for model in {a, b} & set(AT_ONCE):
        each[model] = each.groupby(["scene", "tile"])[model].transform("first")
    return (each[a] - each[b]).dropna().rename("value").reset_index()


def over_scenes(rows: pd.DataFrame, metric: str, a: str, b: str) -> dict[str, Any]:
    """Model a less model b with scenes as the independent unit.

    Returns
    -------
    dict
        `scenes +`, in how many scenes the mean difference is positive, and from `FEWEST_SCENES`
        scenes on `scenes low` and `scenes high` of `statistics.scene_interval`.
    """
    gap = tile_gaps(rows, metric, a, b)
    means = gap.groupby("scene")["value"].mean()
    found: dict[str, Any] = {"scenes +": f"{(means > 0).sum()} of {len(means)}"}
    if len(means) >= FEWEST_SCENES:
        found["scenes low"], found["scenes high"] = scene_interval(gap)
    return found


def peak_of(rows: pd.DataFrame) -> float:
    """Peak (largest less smallest z) of a target test set, from PSNR and RMSE of any tile in it."""
    values = rows[(rows["domain"] == "swir2") & rows["tile"].notna()]
    tile = values.pivot_table(index=["model", "seed", "tile"], columns="metric", values="value")
    peaks = 10 ** (tile["psnr"] / 20) * tile["rmse"]
    return float(peaks.dropna().iloc[0])


def verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """Interval and judgement, in words, of a row of `compared`.

    A difference is settled where its interval excludes zero *and* p is below 0.05.
    """
    if row["pairs"] < FEWEST:
        return f"an interval needs {FEWEST} of them", "too few pairs of runs for a statement"
    interval = f"95 % interval {row['low']:+.3f} to {row['high']:+.3f}, "
    interval += f"sign-flip p = {row['p']:.3f}"
    if row["pairs"] < SETTLING:
        return interval, "too few pairs of runs for a statement"
    if (row["low"] > 0 or row["high"] < 0) and row["p"] < 0.05:
        return interval, "a gain" if row["mean"] > 0 else "a loss"
    return interval, "nothing that can be told from zero"


def seed_words(seeds: Iterable[int]) -> str:
    """Write 0, 1, 2, 4 as `0-2, 4`."""
    there = sorted(set(seeds))
    breaks = [n for n in range(1, len(there)) if there[n] > there[n - 1] + 1]
    parts = [there[a:b] for a, b in pairwise([0, *breaks, len(there)])]
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def courses(results: Results) -> pd.DataFrame:
    """History of all runs without a setting, with model, protocol, recipe and seed of each.

    Without oracles, whose validation looks at target truth.
    """
    named = pd.DataFrame([{"run": run} | kept for run, kept in results.runs.items()])
    named = named[["run", "model", "protocol", "recipe", "seed"]]
    rows = results.history[results.history["setting"] == ""].merge(named, on="run")
    return rows[~rows["model"].isin(ORACLES)]


def fallen(results: Results) -> list[str]:
    """Names of runs whose validation PSNR once fell by more than `FALL` below its best so far.

    Runs with a setting too; without oracles, as in `courses`.
    """
    curves = results.history.dropna(subset="val_psnr").groupby("run")["val_psnr"]
    falls = curves.apply(lambda curve: (curve.cummax() - curve).max())
    fell = falls.index[falls > FALL]
    return sorted(run for run in fell if results.runs[run]["model"] not in ORACLES)


def late_gain(curve: pd.Series) -> float:
    """Mean of the last fifth of a curve less that of the fifth before; NaN of one value."""
    fifth = max(1, len(curve) // 5)
    return float(curve.iloc[-fifth:].mean() - curve.iloc[-2 * fifth : -fifth].mean())
