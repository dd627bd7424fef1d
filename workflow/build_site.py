"""Render the book: `build_site.py BUILD BENCHMARKS [REPOSITORY]` (called by the Snakefile).

BUILD/src holds the executed chapters; the site is written to BUILD/_build/html. BENCHMARKS holds
what the workflow measured of its steps. REPOSITORY is the address of the book's source on GitHub;
with it the pages get links to edit them and to launch them, and the site a map.
"""

import html
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from asnlsr.models.registry import MODELS

BOOK = Path("book")
# Of MathJax only what formulas in TeX need: two thirds of the bundle that has everything.
MATHJAX = ("startup.js", "core.js", "input/tex.js", "output/chtml.js", "a11y/assistive-mml.js")
MATHJAX += ("output/chtml/fonts/tex.js", "output/chtml/fonts/woff-v2/*")
# What the theme and its parts write, and what it must be.
MENDED = {
    # Browsers refuse to preload a font from the file system, and say so in the console of every
    # page; the style sheet loads the same fonts anyway.
    r'<link rel="preload" as="font"[^>]*>\s*': "",
    # 1.5 MB that draw the same icons again; the fonts of the style sheet are enough.
    r'<script src="[^"]*fontawesome[^"]*">\s*</script>\s*': "",
    # What scrolls can be reached with the keyboard.
    r'(<div class="(?:output text_html|math notranslate nohighlight)")': r'\1 tabindex="0"',
    # Numbers in the text as computers write them.
    r'(?<=pasted-text">)([\d.]+)e-0*([1-9]\d*)(?=</span>)': r"\1&nbsp;×&nbsp;10<sup>−\2</sup>",
    r'(?<=pasted-text">)([\d.]+)e\+00(?=</span>)': r"\1",
    r'(?<=pasted-text">)[-+](0\.?0*)(?=</span>)': r"\1",
    r'((?:pasted-text"|<td[^>]*)>)-(?=[\d.])': r"\1−",
    # A name for screen readers that hides the text which is there to be read.
    r'(<summary) aria-label="Toggle hidden content"': r"\1",
    r'(search-button-field[^>]*?)\s+aria-label="Search"': r"\1",
    # A list of things that are no list items; the roles are out of use.
    r'<div role="list" class="citation-list">': '<div class="citation-list">',
    r'(<div class="citation" id="\w+") role="doc-biblioentry"': r"\1",
}


def copy_sources(src: Path) -> None:
    """Put the pages of prose, the drawings and MathJax beside the executed chapters."""
    for page in ("*.md", "*.bib", "_toc.yml"):
        for path in BOOK.glob(page):
            shutil.copy(path, src)
    shutil.copytree(BOOK / "drawings", src / "drawings", dirs_exist_ok=True)
    shutil.copy("data/README.md", src / "data_card.md")
    shutil.copy("CITATION.cff", src)
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("package sphinx-mathjax-offline is missing: install the extra book")
    mathjax = Path(spec.origin).parent / "static/mathjax"
    # Not called _static: jupyter-book would load every script in it on every page.
    offline = src / "offline"
    shutil.rmtree(offline, ignore_errors=True)
    for part in MATHJAX:
        for path in sorted(mathjax.glob(part)):
            copy = offline / "mathjax" / path.relative_to(mathjax)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    shutil.copy("workflow/book.css", offline)


def run_times(workflow: Path, chapters: Path) -> str:
    """Return what snakemake measured, in two folders: the sum, and a Markdown row per step."""
    # Further seeds, settings, protocols and recipes are not what `make` does.
    names = "|".join(name for name, entry in MODELS.items() if entry.control)
    further = re.compile(f"_|-s[1-9]|released|zero|{names}|published")
    steps = [path for path in workflow.glob("*.tsv") if not further.search(path.stem)]
    rows, minutes = [], 0.0
    for path in (*sorted(steps), *sorted(chapters.glob("*.tsv"))):
        measured = pd.read_csv(path, sep="\t").iloc[-1]
        minutes += measured["s"] / 60
        rows.append((path.stem, f"{measured['s'] / 60:.1f}"))
    table = pd.DataFrame(rows, columns=["step", "minutes"])
    text = f"All steps together: {minutes:.0f} minutes, on two cores about {minutes / 2:.0f}.\n\n"
    return text + table.to_markdown(index=False, disable_numparse=True)


def configuration(repository: str) -> dict[str, Any]:
    """Return _config.yml, with links to a repository on GitHub if it is there."""
    config: dict[str, Any] = yaml.safe_load(Path("_config.yml").read_text())
    if repository.startswith("https://github.com/"):
        owner, name = repository.removesuffix(".git").rstrip("/").split("/")[-2:]
        config["repository"] = {"url": f"https://github.com/{owner}/{name}", "branch": "main"}
        config["repository"]["path_to_book"] = "book"
        config["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        }
        buttons = ("use_repository_button", "use_edit_page_button", "use_issues_button")
        config["html"] |= dict.fromkeys(buttons, True)
        config["html"]["baseurl"] = f"https://{owner}.github.io/{name}/"
    return config


def mend(page: Path) -> None:
    """Mend what browsers and screen readers stumble over; describe the page to search engines."""
    text = page.read_text("utf-8")
    for wrong, right in MENDED.items():
        text = re.sub(wrong, right, text)
    if article := re.search(r"<article.*?</h1>(.*?)</article>", text, re.DOTALL):
        prose = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", article[1], flags=re.DOTALL)
        words = html.unescape(" ".join(prose.split()))[:160].rsplit(" ", 1)[0]
        meta = f'<meta name="description" content="{html.escape(words)}">'
        text = text.replace("</title>", f"</title>\n{meta}", 1)
    page.write_text(text, "utf-8")


def searched(page: Path) -> str:
    """Return the text of a page for the search, in sections that know their title."""
    article = re.search(r"<article.*?</article>", page.read_text("utf-8"), re.DOTALL)
    text = re.sub(
        r"<(script|style|svg)\b.*?</\1>", " ", article[0] if article else "", flags=re.DOTALL
    )
    title = re.compile(
        r'<section id="([^"]*)"[^>]*>((?:\s*<span[^>]*></span>)*\s*<h\d>(.*?)<a)', re.DOTALL
    )

    def titled(found: re.Match[str]) -> str:
        words = html.escape(html.unescape(re.sub("<[^>]+>", "", found[3])))
        return f'<section id="{found[1]}" data-title="{words}">{found[2]}'

    text = re.sub(r'<a class="headerlink".*?</a>', " ", title.sub(titled, text))
    text = re.sub(r"<(?!/?section\b)[^>]+>", " ", text)
    return f'<main role="main" data-page="{page.name}">{" ".join(text.split())}</main>'


def write_search(site: Path) -> None:
    """Give the page of the search the text of all pages: the file system answers no fetch."""
    pages = {page.name: searched(page) for page in sorted(site.glob("*.html"))}
    code = Path("workflow/search.js").read_text()
    script = f"const SEARCH_PAGES = {json.dumps(pages)};\n{code}"
    (site / "_static/search_pages.js").write_text(script, "utf-8")
    search, tool = site / "search.html", '<script src="_static/searchtools.js"></script>'
    text = search.read_text("utf-8")
    search.write_text(
        text.replace(tool, f'{tool}\n<script src="_static/search_pages.js"></script>')
    )


def main(build: Path, benchmarks: Path, repository: str = "") -> None:
    """Build the site from nothing, so that no page of an earlier edition stays; warnings fail."""
    copy_sources(build / "src")
    measured = f"Measured at preset `{build.name.rpartition('-')[2]}`. "
    measured += run_times(benchmarks, build / "benchmarks")
    (build / "src/run_times.md").write_text(measured)
    shutil.rmtree(build / "_build", ignore_errors=True)
    config = configuration(repository)
    (build / "_config.yml").write_text(yaml.safe_dump(config))
    command = ["jupyter-book", "build", "--config", str(build / "_config.yml")]
    command += ["--path-output", str(build), "-W", "-n", "--keep-going", str(build / "src")]
    subprocess.run(command, check=True)
    site = build / "_build/html"
    for page in site.glob("*.html"):
        mend(page)
    write_search(site)
    if address := config["html"].get("baseurl"):
        places = "".join(f"<url><loc>{address}{p.name}</loc></url>" for p in site.glob("*.html"))
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        (site / "sitemap.xml").write_text(f'<urlset xmlns="{space}">{places}</urlset>\n')


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]), *sys.argv[3:])
