"""The site: built without a warning, complete, and readable without a network."""

import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import nbformat
import pytest
from selenium.webdriver.common.keys import Keys

from tests.chromium import forget, quiet_requests, wait_until
from tests.smoke_book import BUILD, HTML, PAGES, ROOT, smoke_book
from workflow import build_site

each_page = pytest.mark.parametrize("page", [*PAGES, "search", "genindex"])

# What a browser fetches of another host on its own (an <a href> waits for the reader's click), and
# url(...) and @import of a style sheet, whether in a file, a <style> or a style attribute.
ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|object|embed|link(?![^>]*canonical))\b[^>]*
    \s(?:src|srcset|href|poster|data)=["'](?:https?:)?//[^"']*
    |(?:url\(|@import)\s*["']?\s*(?:https?:)?//[^)"']*""",
    re.IGNORECASE | re.VERBOSE,
)


@pytest.fixture(scope="module", autouse=True)
def site() -> Path:
    smoke_book()
    return HTML


def test_build_has_no_warning():
    log = (HTML.parents[1] / "site.log").read_text()
    assert "build succeeded" in log
    assert re.findall(r".*(?:WARNING|ERROR).*", log) == []


def test_pages_and_style_sheets_ask_nobody():
    assert len(ELSEWHERE.findall("<img class=a src='//b.example'> @import 'https://a.b'")) == 2
    assert all((HTML / f"{page}.html").exists() for page in PAGES)
    for path in (*HTML.glob("*.html"), *HTML.rglob("*.css")):
        assert ELSEWHERE.findall(path.read_text()) == [], path


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
            (tmp_path / folder / f"{name}.tsv").write_text("s\n180\n")
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
    assert ELSEWHERE.findall(text) == []
    site_map = (tmp_path / "_build/html/sitemap.xml").read_text()
    assert "<loc>https://owner.github.io/book/one.html</loc>" in site_map


# In a real browser, from the file system, with no network


def open_page(browser: Any, page: str) -> list[str]:
    """Open a page without an error, wait until its formulas are set; return the requests."""
    forget(browser)
    browser.get((HTML / f"{page}.html").as_uri())
    browser.execute_async_script(
        "const done = arguments[0];"
        "const ready = () => window.MathJax?.startup?.promise"
        "  ? MathJax.startup.promise.then(() => setTimeout(done, 200)) : setTimeout(done, 500);"
        "document.readyState === 'complete' ? ready() : addEventListener('load', ready);"
    )
    return quiet_requests(browser)


@pytest.mark.browser
@each_page
def test_page_opens_from_the_file_system_and_is_light(browser, page):
    """With all pictures and formulas; its files, itself included, travel as they are."""
    files = {unquote(urlparse(a).path) for a in open_page(browser, page) if a[:5] == "file:"}
    assert 0 < sum(Path(file).stat().st_size for file in files) < 3e6
    lacking = browser.execute_script(
        "const all = (what) => [...document.querySelectorAll(what)];"
        "return all('mjx-merror, .math:not(:has(mjx-container))').map(math => math.outerHTML)"
        "  .concat(all('main img').filter(image => !image.naturalWidth).map(image => image.src))"
    )
    assert lacking == []


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
@each_page
def test_page_is_accessible(browser, page):
    axe = ROOT / "build/npm/node_modules/axe-core/axe.min.js"
    if not axe.exists():
        pytest.skip("no axe-core: npm install --prefix build/npm axe-core@4.14.1")
    open_page(browser, page)
    browser.execute_script(axe.read_text())
    for theme in ("light", "dark"):
        found = browser.execute_async_script(
            "const [theme, done] = arguments;"
            "document.head.append(Object.assign(document.createElement('style'),"
            "  {textContent: '* {transition: none !important}'}));"  # no colour half-way
            "document.documentElement.dataset.theme = theme;"
            "axe.run(document, {resultTypes: ['violations']}).then(({violations}) => done("
            "  violations.map(({impact, id, nodes}) => [impact, id, nodes.map(n => n.html)])))",
            theme,
        )
        assert [each for each in found if each[0] in ("serious", "critical")] == []


@pytest.mark.browser
def test_band_browser_is_alive(browser):
    open_page(browser, "01_scenes")
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
    results = wait_until(lambda: browser.execute_script(found), 10)
    assert all("endmember" in text.lower() for text, _ in results)
    (section,) = [link for _, link in results if link and "06_unmixing.html#" in link]
    page, anchor = section.split("#")
    assert f'id="{anchor}"' in (HTML / Path(page).name).read_text()
