"""Fill README.md: `fill_readme.py` writes the list of chapters between its marks."""

import re
from pathlib import Path

import nbformat

from asnlsr.notebook.workspace import key_of

README = Path("README.md")


def chapters() -> str:
    """Return a row per chapter: its title, and what it is for (from the welcome page)."""
    aims = re.findall(r"\| \[\]\((\w+)\) \| (.*) \|", Path("book/intro.md").read_text("utf-8"))
    rows = ["| | chapter | you will be able to |", "| --- | --- | --- |"]
    for stem, aim in aims:
        opening = nbformat.read(f"book/{stem}.ipynb", 4).cells[0].source
        title = opening.splitlines()[0].removeprefix("# ")
        number = key_of(stem).removeprefix("appendix_").upper().lstrip("0")
        rows.append(f"| {number} | [{title}](book/{stem}.ipynb) | {aim} |")
    return "\n".join(rows)


def filled(text: str) -> str:
    """Return README.md with what stands between its marks made anew."""
    mark = re.compile(r"(<!-- chapters[^>]*-->\n).*?(<!-- /chapters -->)", re.DOTALL)
    return mark.sub(lambda found: f"{found[1]}{chapters()}\n{found[2]}", text)


if __name__ == "__main__":
    README.write_text(filled(README.read_text("utf-8")), "utf-8")
