"""The site: built without a warning, complete, and readable without a network."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.smoke_book import HTML, PAGES, smoke_book

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


# In a real browser, from the file system, with no network


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--window-size=1280,1000",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    session.set_page_load_timeout(60)
    session.get("about:blank")
    session.get_log("performance")  # forget what chromium's own first page asked for
    yield session
    session.quit()


def open_page(browser: Any, page: str) -> tuple[list[str], list[str]]:
    """Open a page and wait until its formulas are set; return console errors and requests."""
    browser.get((HTML / f"{page}.html").as_uri())
    browser.set_script_timeout(30)
    browser.execute_async_script(
        "const done = arguments[0];"
        "const ready = () => window.MathJax?.startup?.promise"
        "  ? MathJax.startup.promise.then(() => setTimeout(done, 200)) : setTimeout(done, 500);"
        "document.readyState === 'complete' ? ready() : addEventListener('load', ready);"
    )
    errors = [
        entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"
    ]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return errors, requests


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
    open_page(browser, "10_results")
    table = browser.find_element("css selector", "table[onclick]")
    heading = table.find_elements("css selector", "th")[1]

    def numbers() -> list[float]:
        cells = table.find_elements("css selector", "tbody td:nth-child(2)")
        return [float(cell.text.split()[0]) for cell in cells]

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", heading)
    heading.click()
    assert numbers() == sorted(numbers(), reverse=True)
    heading.click()
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
