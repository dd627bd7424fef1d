"""Render the book: `build_site.py BUILD` (called by the Snakefile).

BUILD/src holds the executed chapters; the site is written to BUILD/_build/html.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

BOOK = Path("book")
# Browsers refuse to preload a font from the file system, and say so in the console of every
# page; the style sheet loads the same fonts anyway.
FONT_PRELOAD = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')


def copy_sources(src: Path) -> None:
    """Put the pages of prose and MathJax beside the executed chapters."""
    for page in ("*.md", "*.bib", "_toc.yml"):
        for path in BOOK.glob(page):
            shutil.copy(path, src)
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("package sphinx-mathjax-offline is missing: install the extra book")
    fonts = Path("output/chtml/fonts/woff-v2")
    mathjax = Path(spec.origin).parent / "static/mathjax"
    # Not called _static: jupyter-book would load every script in it on every page.
    offline = src / "offline/mathjax"
    shutil.rmtree(offline, ignore_errors=True)
    shutil.copytree(mathjax / fonts, offline / fonts)
    shutil.copy(mathjax / "tex-mml-chtml.js", offline)


def main(build: Path) -> None:
    """Build the site from nothing, so that no page of an earlier edition stays; warnings fail."""
    copy_sources(build / "src")
    shutil.rmtree(build / "_build", ignore_errors=True)
    command = ["jupyter-book", "build", "--config", "_config.yml"]
    command += ["--path-output", str(build), "-W", "-n", "--keep-going", str(build / "src")]
    subprocess.run(command, check=True)
    for page in (build / "_build/html").glob("*.html"):
        page.write_text(FONT_PRELOAD.sub("", page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
