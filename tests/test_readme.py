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


def test_numbers_of_the_claims_are_those_of_the_records():
    rows = pd.read_csv(ROOT / "data/results/simulated-demo/metrics.csv.gz")
    rows = rows.query("protocol == 'blind' and recipe == 'warm' and metric == 'psnr'")
    rows = rows[(rows["domain"] == "swir2") & rows["setting"].isna()]
    psnr = rows.groupby(["model", "seed"])["value"].mean().unstack("model")
    adversary = (psnr["asnlsr"] - psnr["snlsr-unmix"]).dropna()
    text = (ROOT / "README.md").read_text()
    mean = psnr.mean()
    assert f"| {mean['richardson-lucy']:.2f} dB, bicubic {mean['bicubic']:.2f} (simulated" in text
    assert len(adversary) == 10
    assert f"| {adversary.mean():.2f} dB, ten pairs" in text
