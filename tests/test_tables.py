"""Tables: values of seeds, and pages that sort and export by themselves."""

import re
from urllib.parse import unquote

import pandas as pd
import pytest

from asnlsr.results.tables import COLUMNS, formatted, latex, results_table, seed_table, sortable


def metrics(**values):
    """Long table of one protocol: model -> PSNR of seeds 0, 1, ...; other metrics are equal."""
    rows = [
        {
            "model": model.replace("_", "-"), "setting": "", "seed": seed,
            "protocol": "blind", "recipe": "warm", "domain": "swir2",
            "tile": tile, "metric": metric,
            "value": value + shift if metric == "psnr" else 1.0,
        }
        for model, seeds in values.items()
        for seed, value in enumerate(seeds)
        for tile, shift in (("x", -1), ("y", 1))
        for metric in COLUMNS[:5]
    ]  # fmt: skip
    return pd.DataFrame(rows)


TEN = {
    "bicubic": [30.0],
    "snlsr_unmix": [31 + 0.1 * (seed % 3) for seed in range(10)],
    "asnlsr": [31 + 0.1 * ((seed + 1) % 3) for seed in range(10)],
}


def test_value_of_a_seed_is_the_mean_over_tiles_and_bicubic_holds_for_all():
    table = seed_table(metrics(**TEN), "psnr")
    assert table["asnlsr", "warm"].tolist() == pytest.approx(TEN["asnlsr"])
    assert table["bicubic", "warm"].tolist() == [30.0] * 10


def test_values_of_scenes_stand_beside_each_other():
    """Tile x is 1 below and tile y 1 above the mean of a run; each has a scene of its own here."""
    rows = metrics(**TEN).assign(scene=lambda table: "of " + table["tile"])
    table = seed_table(rows, by=("seed", "scene"), columns="model")
    assert table["asnlsr"].xs("of y", level="scene").tolist() == pytest.approx(
        [value + 1 for value in TEN["asnlsr"]]
    )
    assert table["bicubic"].tolist() == [29.0, 31.0] * 10


def test_recipe_stands_beside_what_is_trained():
    rows = metrics(**TEN)
    both = pd.concat([rows, rows[rows["model"] == "asnlsr"].assign(recipe="published")])
    names = formatted(results_table(both))["model"].tolist()
    assert {"bicubic", "A-SNLSR (warm)", "A-SNLSR (published)"} <= set(names)


def test_page_of_a_table_carries_its_files_and_asks_nobody():
    text = pd.DataFrame({"model": ["a & b"], "PSNR ↑": ["31.0 ± 0.1"]})
    html = sortable(text, "name")
    assert "31.0 ±\N{NO-BREAK SPACE}0.1" in html
    links = dict(re.findall(r'download="name\.(\w+)" href="data:[^,]*,([^"]*)"', html))
    assert unquote(links["csv"]) == text.to_csv(index=False)
    assert unquote(links["tex"]) == latex(text)
    assert "//" not in re.sub(r'href="data:[^"]*"', "", html)


def test_latex_is_plain_ascii():
    """Any LaTeX sets it, without packages for signs."""
    tex = latex(pd.DataFrame({"m ↑": ["1 ± 2", "3 &", "↓"]}))
    assert tex.isascii()
    assert r"1 $\pm$ 2" in tex
    assert r"\&" in tex
