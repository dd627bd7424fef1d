"""Tables: values of seeds, marks of the best, and pages that sort and export by themselves."""

import re
from urllib.parse import unquote

import pandas as pd
import pytest

from asnlsr.results.tables import (
    COLUMNS,
    formatted,
    latex,
    marked_best,
    results_table,
    seed_table,
    sortable,
)


def metrics(**values):
    """Long table of one protocol: model -> PSNR of seeds 0, 1, ...; other metrics are equal."""
    rows = [
        {
            "model": model.replace("_", "-"), "seed": seed, "protocol": "blind", "recipe": "warm",
            "domain": "swir2", "tile": tile, "metric": metric,
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


def test_best_is_marked_with_what_cannot_be_told_from_it():
    """Means 31.09 and 31.10, differences of -0.2 to 0.1: no. Bicubic is 1 dB below: yes."""
    marks = marked_best(metrics(**TEN))["psnr"]
    assert marks["asnlsr", "warm"] == "★"
    assert marks["snlsr-unmix", "warm"] == "≈"
    assert marks["bicubic", "warm"] == ""
    rows = metrics(**TEN)
    text = formatted(results_table(rows), marked_best(rows)).set_index("model")["PSNR (dB) ↑"]
    assert text["A-SNLSR"].endswith("★")
    assert text["bicubic"] == "30.00"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"bicubic": [30.0], "asnlsr": [31.0]}, ["★", "?"]),
        # all four differences are 1: the interval would say that bicubic is worse
        ({"bicubic": [30.0], "asnlsr": [31.0, 31.1, 30.9, 31.0]}, ["★", "?"]),
        # one value stands in every row of the seeds of others, which says nothing of them
        ({"bicubic": [31.0], "linear": [32.0], "asnlsr": [30.1, 30.2, 30, 30.1, 30.2]},
         ["", "?", "★"]),
    ],
)  # fmt: skip
def test_few_values_allow_no_mark_but_the_best(values, expected):
    assert marked_best(metrics(**values))["psnr"].sort_index().tolist() == expected


def test_recipe_stands_beside_what_is_trained():
    rows = metrics(**TEN)
    both = pd.concat([rows, rows[rows["model"] == "asnlsr"].assign(recipe="published")])
    names = formatted(results_table(both))["model"].tolist()
    assert {"bicubic", "A-SNLSR (warm)", "A-SNLSR (published)"} <= set(names)


def test_oracle_is_not_the_best_however_good():
    rows = metrics(**{"bicubic": [30.0], "bandwise-oracle": [40.0]})
    marks = marked_best(rows)["psnr"]
    assert marks.to_dict() == {("bicubic", "warm"): "★"}
    text = formatted(results_table(rows), marked_best(rows)).set_index("model")["PSNR (dB) ↑"]
    assert text["bandwise, target truth"] == "40.00"


def test_low_is_best_where_low_is_good():
    rows = metrics(bicubic=[30.0], asnlsr=[31.0])
    rows.loc[(rows["metric"] == "rmse") & (rows["model"] == "bicubic"), "value"] = 0.5
    assert marked_best(rows).loc[("bicubic", "warm"), "rmse"] == "★"


def test_page_of_a_table_carries_its_files_and_asks_nobody():
    text = pd.DataFrame({"model": ["a & b"], "PSNR ↑": ["31.0 ± 0.1 ★"]})
    html = sortable(text, "name")
    assert "31.0 ±\N{NO-BREAK SPACE}0.1" in html
    links = dict(re.findall(r'download="name\.(\w+)" href="data:[^,]*,([^"]*)"', html))
    assert unquote(links["csv"]) == text.to_csv(index=False)
    assert unquote(links["tex"]) == latex(text)
    assert "//" not in re.sub(r'href="data:[^"]*"', "", html)


def test_latex_is_plain_ascii():
    """Any LaTeX sets it, without packages for signs."""
    tex = latex(pd.DataFrame({"m ↑": ["1 ± 2 ★", "3 ≈ &", "γ ↓"]}))
    assert tex.isascii()
    assert r"1 $\pm$ 2 $\star$" in tex
    assert r"\&" in tex
