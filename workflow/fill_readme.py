"""Fill README.md: `fill_readme.py` writes the list of chapters between its marks."""

import re
from pathlib import Path

import nbformat

README = Path("README.md")


def chapters() -> str:
    """Return a row per chapter: its title, and what it is for (from the welcome page)."""
    welcome = "\n".join(cell.source for cell in nbformat.read("book/intro.ipynb", 4).cells)
    rows = ["| | chapter | you will be able to |", "| --- | --- | --- |"]
    for stem, aim in re.findall(r"\| \[\]\((\w+)\) \| (.*) \|", welcome):
        (path,) = Path("book").glob(f"{stem}.*")
        notebook = path.suffix == ".ipynb"
        text = nbformat.read(path, 4).cells[0].source if notebook else path.read_text("utf-8")
        title = text.splitlines()[0].removeprefix("# ")
        number = stem.removeprefix("appendix_").split("_")[0].upper().lstrip("0")
        rows.append(f"| {number} | [{title}](book/{path.name}) | {aim} |")
    return "\n".join(rows)


def filled(text: str) -> str:
    """Return README.md with what stands between its marks made anew."""
    mark = re.compile(r"(<!-- chapters[^>]*-->\n).*?(<!-- /chapters -->)", re.DOTALL)
    return mark.sub(lambda found: f"{found[1]}{chapters()}\n{found[2]}", text)


if __name__ == "__main__":
    README.write_text(filled(README.read_text("utf-8")), "utf-8")
