"""The results table: means and spreads from the long table of metrics."""

from __future__ import annotations

import pandas as pd

from asnlsr.metrics import METRICS
from asnlsr.models import MODELS

COLUMNS = ("psnr", "ssim", "ergas", "sam_deg", "rmse", "train_minutes", "ms_per_tile")


def results_table(metrics: pd.DataFrame, domain: str = "swir2") -> pd.DataFrame:
    """Aggregate tile metrics to one row per model and recipe.

    Tiles are averaged first; mean and standard deviation (ddof 1) are then taken over seeds.

    Parameters
    ----------
    metrics : DataFrame
        As written by `evaluate`, of one protocol.
    domain : str
        `swir2` (target) or `swir1` (source).

    Returns
    -------
    DataFrame
        Index (model, recipe) in the order of the registry; columns (metric, "mean" | "std" |
        "seeds"). The spread of a single seed is NaN.

    Raises
    ------
    ValueError
        If there is no row of `domain`, or rows of more than one protocol.
    """
    if metrics["protocol"].nunique() > 1:
        raise ValueError("rows of two protocols are not comparable: make a table of each")
    rows = metrics[(metrics["domain"] == domain) & metrics["metric"].isin(COLUMNS)]
    if rows.empty:
        raise ValueError(f"no metrics of domain {domain!r} in the table")
    keys = ["model", "recipe", "metric"]
    per_seed = rows.groupby([*keys, "seed"])["value"].mean()
    spread = pd.DataFrame(per_seed.groupby(keys).agg(["mean", "std", "count"]))
    spread = spread.rename(columns={"count": "seeds"})
    table = pd.DataFrame(spread.unstack("metric")).swaplevel(axis=1)
    order = {name: place for place, name in enumerate(MODELS)}
    table = table.sort_index(key=lambda names: names.map(lambda name: order.get(name, len(order))))
    return table.loc[:, [c for c in COLUMNS if c in table.columns.get_level_values(0)]]


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """Text of a table from `results_table`: mean, and ± spread where there are several seeds."""
    digits = {"psnr": 2, "sam_deg": 2, "ergas": 2, "train_minutes": 1, "ms_per_tile": 0}
    text = pd.DataFrame(index=range(len(table)))
    recipes = table.index.get_level_values("recipe")
    labels = [MODELS[m].label if m in MODELS else m for m in table.index.get_level_values("model")]
    one_recipe = len(set(recipes)) == 1
    text["model"] = (
        labels
        if one_recipe
        else [f"{label} ({recipe})" for label, recipe in zip(labels, recipes, strict=True)]
    )
    for metric in dict.fromkeys(table.columns.get_level_values(0)):
        label, higher = METRICS[metric]
        arrow = "" if metric in ("train_minutes", "ms_per_tile") else " ↑" if higher else " ↓"
        n = digits.get(metric, 3)
        text[label + arrow] = [
            f"{row['mean']:.{n}f}" + (f" ± {row['std']:.{n}f}" if row["seeds"] > 1 else "")
            for _, row in table[metric].iterrows()
        ]
    return text


def render(table: pd.DataFrame, fmt: str = "md") -> str:
    """Return a table from `results_table` as Markdown, CSV or LaTeX text.

    Raises
    ------
    ValueError
        On another format.
    """
    if fmt == "md":
        return formatted(table).to_markdown(index=False, disable_numparse=True)
    if fmt == "csv":
        flat = table.copy()
        flat.columns = ["_".join(column) for column in table.columns.to_flat_index()]
        return flat.to_csv()
    if fmt == "latex":
        return formatted(table).to_latex(index=False, escape=True)
    raise ValueError(f"unknown format {fmt!r}: choose md, csv or latex")
