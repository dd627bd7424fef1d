"""The site: built without a warning, complete, and readable without a network."""

import os
import re
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import nbformat
import pytest
from selenium.webdriver.common.keys import Keys

from tests.chromium import noticed
from tests.smoke_book import BUILD, HTML, PAGES, ROOT, smoke_book
from workflow import build_site

each_page = pytest.mark.parametrize("page", [*PAGES, "search", "genindex"])

# What a browser fetches on its own; an <a href> waits for the reader's click.
FETCHED = {
    "script": ["src"],
    "img": ["src", "srcset"],
    "link": ["href"],
    "iframe": ["src"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "object": ["data"],
    "embed": ["src"],
}
ELSEWHERE = re.compile(r"(https?:)?//", re.IGNORECASE)
# url(...) and @import of a style sheet, whether in a file, a <style> or a style attribute.
STYLE_REQUEST = re.compile(r"""(?:url\(|@import)\s*["']?\s*(?:https?:)?//[^)"']*""", re.IGNORECASE)


class Requests(HTMLParser):
    """Collects the addresses that a page makes a browser fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in {"canonical", "author", "license"}:
            return
        self.addresses += [values[name] or "" for name in FETCHED.get(tag, []) if name in values]


@pytest.fixture(scope="module", autouse=True)
def site() -> Path:
    smoke_book()
    return HTML


def test_build_has_no_warning():
    log = (HTML.parents[1] / "site.log").read_text()
    assert "build succeeded" in log
    assert re.findall(r".*(?:WARNING|ERROR).*", log) == []


@each_page
def test_page_exists_and_asks_nobody(page):
    text = (HTML / f"{page}.html").read_text()
    addresses = Requests(text).addresses
    assert any(".css" in address for address in addresses)
    assert [address for address in addresses if ELSEWHERE.match(address)] == []
    assert STYLE_REQUEST.findall(text) == []


def test_style_sheets_ask_nobody():
    sheets = sorted(HTML.rglob("*.css"))
    assert len(sheets) > 3
    asked = {sheet.name: STYLE_REQUEST.findall(sheet.read_text()) for sheet in sheets}
    assert {name: found for name, found in asked.items() if found} == {}


def test_requests_finds_what_a_browser_would_fetch():
    text = (
        '<script src="https://a.example/x.js"></script><img src="//b.example/y.png">'
        '<a href="https://c.example">no</a><link rel="stylesheet" href="z.css">'
    )
    assert Requests(text).addresses == ["https://a.example/x.js", "//b.example/y.png", "z.css"]
    assert STYLE_REQUEST.search("@import 'https://fonts.example/css'")


@each_page
def test_page_says_what_it_is(page):
    text = (HTML / f"{page}.html").read_text()
    (title,) = re.findall(r"<title>(.*?)</title>", text, re.DOTALL)
    assert "super-resolution across the spectrum" in title
    if page in PAGES:
        (description,) = re.findall(r'<meta name="description" content="(.*?)">', text)
        assert 40 < len(description) <= 200


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_is_described(page):
    text = (HTML / f"{page}.html").read_text()
    article = re.search(r"<article.*</article>", text, re.DOTALL)[0]
    for picture in re.findall(r"<img[^>]*>", article):
        (alt,) = re.findall(r'alt="(.*?)"', picture)
        assert len(alt) > 20
        assert not re.search(r"_images|\.png|  |\(\)|\{", alt), alt  # a path, a missing word


def test_every_term_is_linked_from_a_chapter():
    """The glossary is worth its name if the chapters lead to it."""
    linked = {
        address
        for page in PAGES
        for address in re.findall(
            r'href="glossary.html#(term-[^"]+)"', (HTML / f"{page}.html").read_text()
        )
    }
    assert len(linked) > 15


def test_run_times_are_those_of_this_build():
    text = (HTML / "appendix_d_time_and_memory.html").read_text()
    steps = [path.stem for path in BUILD.glob("benchmarks/*.tsv")]
    assert len(steps) >= 6
    assert [step for step in steps if f">{step}<" not in re.sub(r"</?p>", "", text)] == []


def test_run_times_leave_out_further_runs(tmp_path):
    """Jobs of three minutes, of which `make` runs one and one chapter: 6 minutes in all."""
    for folder, names in (
        ("jobs", ["train-asnlsr-blind-warm-s0", "train-asnlsr-blind-published-s0"]),
        ("jobs", ["train-asnlsr-blind-warm-s1", "train-asnlsr_skip=false-blind-warm-s0"]),
        ("jobs", ["evaluate-asnlsr-blind-published-s0", "train-snlsr-unmix-blind-published-s0"]),
        ("jobs", ["train-asnlsr-as-released-warm-s0", "train-snlsr-coral-blind-warm-s0"]),
        ("jobs", ["prepare-zero"]),
        ("chapters", ["01_scenes"]),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / folder / f"{name}.tsv").write_text("s\tmax_rss\n180\t1024\n")
    text = build_site.run_times(tmp_path / "jobs", tmp_path / "chapters")
    assert "All steps together: 6 minutes" in text
    assert text.count("3.0") == 2


def test_bibliography_has_labels_that_can_be_read():
    """Numbers, and all 23 references of the article."""
    text = (HTML / "bibliography.html").read_text()
    labels = re.findall(r'class="label">(.*?)</span>\s*<', text)
    labels = [re.sub(r"<[^>]*>", "", label).strip("[]") for label in labels]
    assert len(labels) >= 23
    assert [label for label in labels if not label.isdecimal()] == []


def test_source_can_be_downloaded():
    text = (HTML / "01_scenes.html").read_text()
    assert re.search(r'href="_sources/01_scenes.ipynb"[^>]*download', text, re.DOTALL)
    assert (HTML / "_sources/01_scenes.ipynb").stat().st_size > 10_000


def test_a_public_repository_gives_links_and_a_map(tmp_path, monkeypatch):
    """A book of one page, as it is where ASNLSR_REPOSITORY names the address of the source."""
    source, measured = tmp_path / "src", tmp_path / "benchmarks"
    for folder in (source, measured):
        folder.mkdir()
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setattr(build_site, "copy_sources", lambda folder: None)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One\n\nA page.")])
    nbformat.write(notebook, source / "one.ipynb")
    (source / "_toc.yml").write_text("format: jb-book\nroot: one\n")
    (source / "references.bib").touch()
    (source / "offline").mkdir()
    build_site.main(tmp_path, measured, "https://github.com/owner/book.git")
    text = (tmp_path / "_build/html/one.html").read_text()
    for link in (
        "https://github.com/owner/book/edit/main/book/one.ipynb",
        "https://mybinder.org/v2/gh/owner/book/main?urlpath=lab/tree/book/one.ipynb",
        "https://colab.research.google.com/github/owner/book/blob/main/book/one.ipynb",
    ):
        assert link in text
    assert [a for a in Requests(text).addresses if ELSEWHERE.match(a)] == []
    site_map = (tmp_path / "_build/html/sitemap.xml").read_text()
    assert "<loc>https://owner.github.io/book/one.html</loc>" in site_map


# In a real browser, from the file system, with no network


def open_page(browser: Any, page: str) -> tuple[list[str], list[str]]:
    """Open a page and wait until its formulas are set; return console errors and requests."""
    browser.get((HTML / f"{page}.html").as_uri())
    browser.execute_async_script(
        "const done = arguments[0];"
        "const ready = () => window.MathJax?.startup?.promise"
        "  ? MathJax.startup.promise.then(() => setTimeout(done, 200)) : setTimeout(done, 500);"
        "document.readyState === 'complete' ? ready() : addEventListener('load', ready);"
    )
    return noticed(browser)


@pytest.mark.browser
@each_page
def test_page_opens_from_the_file_system(browser, page):
    errors, requests = open_page(browser, page)
    assert errors == []
    assert any(address.startswith("file:") for address in requests)
    assert [a for a in requests if not a.startswith(("file:", "data:", "blob:"))] == []
    formulas = browser.execute_script(
        "return document.querySelectorAll('span.math, div.math').length"
    )
    rendered = browser.execute_script(
        "return document.querySelectorAll('.math mjx-container').length"
    )
    assert rendered >= formulas
    broken = browser.execute_script("return document.querySelectorAll('mjx-merror').length")
    assert broken == 0


@pytest.mark.browser
def test_formulas_are_typeset_with_local_fonts(browser):
    _, requests = open_page(browser, "notation")
    assert browser.execute_script("return document.querySelectorAll('mjx-container').length") > 20
    assert any("/woff-v2/" in address for address in requests)


@pytest.mark.browser
def test_click_on_a_heading_sorts_the_table(browser):
    open_page(browser, "appendix_a_all_tables")
    table = browser.find_element("css selector", "table[onclick]")
    heading = table.find_elements("css selector", "th")[1]

    def numbers() -> list[float]:
        cells = table.find_elements("css selector", "tbody td:nth-child(2)")
        return [float(cell.text.split()[0]) for cell in cells]

    # A click of the mouse would miss: the page scrolls smoothly to what it is to hit.
    browser.execute_script("arguments[0].click()", heading)
    assert numbers() == sorted(numbers(), reverse=True)
    browser.execute_script("arguments[0].click()", heading)
    assert numbers() == sorted(numbers())
    assert len(set(numbers())) > 1


@pytest.mark.browser
def test_every_picture_is_there(browser):
    for page in PAGES:
        open_page(browser, page)
        pictures = browser.execute_script(
            "return [...document.querySelectorAll('main img')]"
            "  .map(image => [image.src.slice(-60), image.naturalWidth])"
        )
        assert [name for name, width in pictures if width == 0] == []


@pytest.mark.browser
@each_page
def test_page_is_light(browser, page):
    """All that a page loads, itself included; files of a site travel as they are."""
    _, requests = open_page(browser, page)
    files = {unquote(urlparse(address).path) for address in requests if address[:5] == "file:"}
    assert sum(Path(file).stat().st_size for file in files) < 3e6


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@each_page
def test_page_is_accessible(browser, page, theme):
    axe = ROOT / "build/npm/node_modules/axe-core/axe.min.js"
    if not axe.exists():
        pytest.skip("no axe-core: npm install --prefix build/npm axe-core@4.14.1")
    open_page(browser, page)
    browser.execute_script(
        "document.head.append(Object.assign(document.createElement('style'),"
        "  {textContent: '* {transition: none !important}'}));"  # no colour half-way
        "document.documentElement.dataset.theme = arguments[0]",
        theme,
    )
    browser.execute_script(axe.read_text())
    found = browser.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, {resultTypes: ['violations']}).then(({violations}) => done(violations"
        "  .map(({impact, id, nodes}) => [impact, id, nodes.map(node => node.html)])))"
    )
    assert [each for each in found if each[0] in ("serious", "critical")] == []


@pytest.mark.browser
@pytest.mark.parametrize("page", ["01_scenes", "08_asnlsr_from_scratch"])
def test_band_browser_is_alive(browser, page):
    open_page(browser, page)
    slider = browser.find_element("css selector", ".band-browser [aria-label=wavelength]")
    look = "return document.querySelector('.band-browser canvas').toDataURL()"
    slider.send_keys(Keys.HOME)
    first = browser.execute_script(look)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert browser.execute_script(look) != first


@pytest.mark.browser
def test_search_finds_sections_and_shows_excerpts(browser):
    """Of a page that was opened from the file system, too."""
    browser.get((HTML / "search.html").as_uri() + "?q=endmember")
    found = "return [...document.querySelectorAll('#search-results li')].map(li => [li.innerText,"
    found += " li.querySelector('p.context a')?.href])"
    for _ in range(50):
        time.sleep(0.2)
        if results := browser.execute_script(found):
            break
    assert all("endmember" in text.lower() for text, _ in results)
    (section,) = [link for _, link in results if link and "06_unmixing.html#" in link]
    page, anchor = section.split("#")
    assert f'id="{anchor}"' in (HTML / Path(page).name).read_text()
