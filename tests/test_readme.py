"""README.md is what `make readme` writes."""

import re

from tests.smoke_book import ROOT
from workflow import fill_readme

README = (ROOT / "README.md").read_text()


def test_readme_is_up_to_date(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert fill_readme.filled(README) == README, "make readme"


def test_every_chapter_is_in_the_readme():
    for path in (ROOT / "book").glob("*.ipynb"):
        assert f"(book/{path.name})" in README


def test_links_lead_somewhere():
    places = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert "book/drawings/architecture.svg" in places
    assert [place for place in places if not (ROOT / place).exists()] == []
