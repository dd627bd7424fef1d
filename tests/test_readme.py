"""README.md is what `make readme` writes."""

import re

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
