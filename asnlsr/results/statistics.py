"""What seeds and scenes allow to say: means, paired differences, tests.

Everywhere the units of `x` are those of the metric. Seeds are the unit for "does it depend on the
random start?", scenes for "does it hold elsewhere?"; tiles of a scene are not independent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from asnlsr.metrics import METRICS
from asnlsr.models.registry import MODELS

AT_ONCE = [name for name, entry in MODELS.items() if not entry.takes_steps]
ORACLES = [name for name, entry in MODELS.items() if entry.oracle]
RESAMPLES = 9999
SCENE_RESAMPLES = 2000
FEWEST = 5  # pairs that an interval shown in the book needs; the bootstrap of four is no more


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its 95 % interval; `p` of the sign-flip test."""

    mean: float
    low: float
    high: float
    p: float
    pairs: int


def paired_difference(x: ArrayLike, y: ArrayLike, seed: int = 0) -> Difference:
    """Compare two models on the same seeds.

    Parameters
    ----------
    x, y : array_like, (n,)
        A metric of both models, pair by pair.

    Returns
    -------
    Difference
        Of x - y: bias-corrected accelerated bootstrap interval of the mean, and the two-sided
        p of the test that flips the sign of every difference. All 2^n flips are tried if they
        are no more than `RESAMPLES`, so p is at least 2 / 2^n: 0.0625 for five pairs.

    References
    ----------
    Efron 1987, JASA 82 (BCa); Fisher 1935 (sign flips).
    """
    d = np.asarray(x, dtype=float) - np.asarray(y, dtype=float)
    if len(d) < 2:
        raise ValueError(f"{len(d)} pairs: a difference needs at least two seeds")
    low, high = (d.mean(), d.mean()) if np.ptp(d) == 0 else _bca(d, seed)
    flips = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, vectorized=True, rng=seed
    )
    return Difference(float(d.mean()), float(low), float(high), float(flips.pvalue), len(d))


def _bca(d: NDArray[np.float64], seed: int) -> tuple[float, float]:
    found = stats.bootstrap((d,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=seed)
    interval = found.confidence_interval
    return float(interval.low), float(interval.high)


def scene_interval(tiles: pd.DataFrame, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a mean over tiles when scenes are the independent unit.

    Scenes are drawn with replacement, then tiles within each drawn scene; and seeds, the same
    for all tiles, where there are any.

    Parameters
    ----------
    tiles : DataFrame
        Columns `scene`, `tile`, `value` and, where a tile has a row per seed, `seed`.

    References
    ----------
    Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.8.
    """
    rng = np.random.default_rng(seed)
    tiles = tiles if "seed" in tiles else tiles.assign(seed=0)
    table = tiles.pivot(index=["scene", "tile"], columns="seed", values="value")
    scenes = [group.to_numpy(dtype=float) for _, group in table.groupby(level="scene")]
    seeds = table.shape[1]
    means = np.empty(SCENE_RESAMPLES)
    for n in range(SCENE_RESAMPLES):
        drawn = [scenes[k] for k in rng.integers(len(scenes), size=len(scenes))]
        parts = [values[rng.integers(len(values), size=len(values))] for values in drawn]
        means[n] = np.concatenate(parts)[:, rng.integers(seeds, size=seeds)].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return p-values corrected for their number, in the given order (Holm 1979)."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = stepped.clip(max=1)
    return corrected


def compare_all(
    table: pd.DataFrame, pairs: Iterable[tuple[str, str]] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Compare pairs of models on the seeds that both have; a pair needs two.

    Parameters
    ----------
    table : DataFrame, (seeds, models)
        A metric; NaN where a model has not been run.
    pairs : iterable of (str, str), optional
        The pairs that are asked about, by default all; p is corrected for their number, also
        for those that the table cannot answer yet.

    Returns
    -------
    DataFrame
        Columns `a`, `b` and those of `Difference` (of a - b), `p_holm`.
    """
    rows = []
    asked = list(combinations(table, 2) if pairs is None else pairs)
    for a, b in asked:
        both = table[[a, b]].dropna() if {a, b} <= set(table) else table[:0]
        if len(both) > 1:
            rows.append({"a": a, "b": b} | vars(paired_difference(both[a], both[b], seed)))
    names = ["a", "b", *(field.name for field in fields(Difference))]
    found = pd.DataFrame(rows, columns=names)
    unanswered = [1.0] * (len(asked) - len(found))
    return found.assign(p_holm=holm([*found["p"], *unanswered])[: len(found)])


FEWEST_SCENES = 3  # resampled two have three outcomes


def with_settings(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows whose `model` also names the setting of the run, as in `asnlsr_reversal=1.0`."""
    model = metrics["model"]
    setting = metrics["setting"].fillna("") if "setting" in metrics else model.str[:0]
    return metrics.assign(model=model.where(setting == "", model + "_" + setting))


def seed_table(metrics: pd.DataFrame, metric: str, domain: str = "swir2") -> pd.DataFrame:
    """Mean over tiles of a metric: a row per seed, a column per (model, recipe).

    The one value of a method that takes no training steps stands in every row.
    """
    rows = metrics[(metrics["domain"] == domain) & (metrics["metric"] == metric)]
    table = rows.pivot_table(index="seed", columns=["model", "recipe"], values="value")
    for model in set(AT_ONCE) & set(table.columns.get_level_values("model")):
        table[model] = table[model].ffill().bfill()
    return table


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
