"""The results table: means and spreads from the long table of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
import pandas as pd

from asnlsr.metrics import METRICS
from asnlsr.models.registry import MODELS

AT_ONCE = [name for name, entry in MODELS.items() if not entry.takes_steps]
ORACLES = [name for name, entry in MODELS.items() if entry.oracle]
COLUMNS = ("psnr", "psnr_clean", "ssim", "ergas", "sam_deg")


def read_metrics(path: Path) -> pd.DataFrame:
    """Read a file made by `asnlsr evaluate`; raises `ValueError` naming a file that is none."""
    try:
        rows = pd.read_csv(path, dtype={"setting": str})
        rows["value"] = pd.to_numeric(rows["value"])
        rows[["model", "setting", "seed", "protocol", "recipe", "domain", "metric"]]
    except (ValueError, KeyError):
        raise ValueError(f"{path}: not a metrics file; make it with asnlsr evaluate") from None
    if odd := len(rows) - rows["value"].count():
        raise ValueError(f"{path}: {odd} values are NaN; train those runs again and evaluate them")
    return rows


def seed_table(
    metrics: pd.DataFrame,
    metric: str = "psnr",
    domain: str = "swir2",
    by: Sequence[str] = ("seed",),
    columns: str | Sequence[str] = ("model", "recipe"),
) -> pd.DataFrame:
    """Mean over tiles of a metric, to compare methods seed by seed.

    Parameters
    ----------
    metrics : DataFrame
        As written by `evaluate`.
    metric, domain : str
    by : sequence of str
        The index: `("seed", "scene")` for the mean of every scene too.
    columns : str or sequence of str
        What names a method, `model` first.

    Returns
    -------
    DataFrame
        The one value of a method that takes no training steps stands in every seed.
    """
    rows = metrics[(metrics["domain"] == domain) & (metrics["metric"] == metric)]
    names = columns if isinstance(columns, str) else list(columns)
    table = rows.pivot_table(index=list(by), columns=names, values="value")
    at_once = table.columns.get_level_values("model").isin(AT_ONCE)
    places = [level for level in by if level != "seed"] or np.zeros(len(table))
    table.loc[:, at_once] = table.loc[:, at_once].groupby(places).transform("first")
    return table


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
        Index (model, recipe) in the order of the registry, the model with its setting, as in
        `asnlsr_reversal=1.0`; columns (metric, "mean" | "std" |
        "seeds"). The spread of a single seed is NaN.

    Raises
    ------
    ValueError
        If there is no row of `domain`, or rows of more than one protocol.
    """
    if metrics["protocol"].nunique() > 1:
        raise ValueError("rows of two protocols are not comparable: make a table of each")
    variant = ("_" + metrics["setting"].fillna("")).replace("_", "")
    metrics = metrics.assign(model=metrics["model"] + variant)
    rows = metrics[(metrics["domain"] == domain) & metrics["metric"].isin(COLUMNS)]
    if rows.empty:
        raise ValueError(f"no metrics of domain {domain!r} in the table")
    keys = ["model", "recipe", "metric"]
    per_seed = rows.groupby([*keys, "seed"])["value"].mean()
    spread = pd.DataFrame(per_seed.groupby(keys).agg(["mean", "std", "count"]))
    spread = spread.rename(columns={"count": "seeds"})
    table = pd.DataFrame(spread.unstack("metric")).swaplevel(axis=1)
    order = {name: place for place, name in enumerate(MODELS)}
    table = table.sort_index(
        key=lambda names: names.map(lambda name: order.get(name.split("_")[0], len(order)))
    )
    return table.loc[:, [c for c in COLUMNS if c in table.columns.get_level_values(0)]]


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """Text of a table from `results_table`: mean, and ± spread of several seeds."""
    text = pd.DataFrame(index=range(len(table)))
    recipes = table.index.get_level_values("recipe")
    one_recipe = len(set(recipes)) == 1
    text["model"] = [
        _label(model) + ("" if one_recipe or model in AT_ONCE else f" ({recipe})")
        for model, recipe in table.index
    ]
    for metric in dict.fromkeys(table.columns.get_level_values(0)):
        label, higher = METRICS[metric]
        arrow = " ↑" if higher else " ↓"
        n = 3 if metric == "ssim" else 2
        text[label + arrow] = [
            (f"{row['mean']:.{n}f}" if row["seeds"] > 0 else "-")
            + (f" ± {row['std']:.{n}f}" if row["seeds"] > 1 else "")
            for _, row in table[metric].iterrows()
        ]
    return text


def _label(variant: str) -> str:
    """Name a row: the label of the model, then its settings."""
    model, *settings = variant.split("_", 1)
    return ", ".join([MODELS[model].label if model in MODELS else model, *settings])


def render(table: pd.DataFrame, fmt: Literal["md", "csv", "latex"] = "md") -> str:
    """Return a table from `results_table` as Markdown, CSV or LaTeX text."""
    if fmt == "md":
        return formatted(table).to_markdown(index=False, disable_numparse=True)
    if fmt == "latex":
        return latex(formatted(table))
    return table.set_axis(["_".join(column) for column in table.columns], axis=1).to_csv()


_TEX = {"±": "pm", "↑": "uparrow", "↓": "downarrow"}


def latex(text: pd.DataFrame) -> str:
    """Return the LaTeX of a table of text; needs only the package booktabs."""
    tex = text.to_latex(index=False, escape=True, na_rep="-")
    for sign, name in _TEX.items():
        tex = tex.replace(sign, f"$\\{name}$")
    return tex.replace("\N{NO-BREAK SPACE}", "~")


# Sorts by the numbers with which the cells of the clicked column begin, else by their text.
_SORT = """
const th = event.target.closest('th'), body = this.tBodies[0];
if (!th || !this.tHead.contains(th)) return;
const down = th.dataset.down = th.dataset.down ? '' : '1', sign = down ? -1 : 1;
const cell = row => row.cells[th.cellIndex].textContent.replace('\u2212', '-');
const order = (a, b) => (parseFloat(a) - parseFloat(b)) || a.localeCompare(b);
body.append(...[...body.rows].sort((p, q) => sign * order(cell(p), cell(q))));
""".replace("\n", " ")

_FILTER = """
const word = this.value.toLowerCase();
for (const row of this.closest('div').querySelector('tbody').rows)
  row.hidden = !row.textContent.toLowerCase().includes(word);
""".replace("\n", " ")


def sortable(text: pd.DataFrame, name: str) -> str:
    """Return HTML of a table that sorts by the clicked column and filters rows, with its files.

    What is missing has a dash. All of it is in the text: no script is loaded and nothing is
    asked of another host.
    """
    html = text.to_html(index=False, border=0, na_rep="-")
    html = html.replace("± ", "±\N{NO-BREAK SPACE}")
    html = html.replace("<table", f'<table title="click a heading to sort" onclick="{_SORT}"', 1)
    files = {"csv": text.to_csv(index=False), "tex": latex(text)}
    links = [
        f'<a download="{name}.{kind}" href="data:text/plain;charset=utf-8,{quote(content)}">'
        f"{kind.upper()}</a>"
        for kind, content in files.items()
    ]
    field = f'<input type="search" aria-label="filter rows" oninput="{_FILTER}">'
    return f"<div><p>filter rows {field}</p>{html}<p>download as {' or '.join(links)}</p></div>"
