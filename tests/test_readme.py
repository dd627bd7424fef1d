"""README.md is what `make readme` writes."""

import re

import pandas as pd
import pytest

from tests.smoke_book import ROOT
from workflow import fill_readme


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_readme_is_up_to_date():
    text = (ROOT / "README.md").read_text()
    assert fill_readme.filled(text) == text, "make readme"


def test_every_chapter_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    for path in (ROOT / "book").glob("*.ipynb"):
        assert f"(book/{path.name})" in text


def test_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    places = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert "book/drawings/architecture.svg" in places
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_results_are_those_that_are_recorded(tmp_path, monkeypatch):
    """Two seeds of 30 and 31 dB: 30.50 ± 0.71, and no row of an ablation or of another recipe."""
    row = {"model": "asnlsr", "recipe": "warm", "protocol": "blind", "domain": "swir2"}
    row |= {"tile": "t", "metric": "psnr", "setting": None}
    rows = [row | {"seed": seed, "value": 30.0 + seed} for seed in (0, 1)]
    rows += [row | {"seed": 0, "value": 99.0, "setting": "skip=false"}]
    rows += [row | {"seed": 0, "value": 99.0, "recipe": "published"}]
    pd.DataFrame(rows).to_csv(tmp_path / "metrics.csv.gz", index=False)
    monkeypatch.setitem(fill_readme.RESULTS, "results", tmp_path / "metrics.csv.gz")
    text = fill_readme.filled("<!-- results -->\nold\n<!-- /results -->")
    assert "30.50 ± 0.71" in text
    assert "old" not in text
    assert "99" not in text
