"""Fill README.md: `fill_readme.py` writes the tables between its marks."""

import re
from pathlib import Path

import nbformat
import pandas as pd

from asnlsr.notebook.workspace import key_of
from asnlsr.results.tables import render, results_table

README = Path("README.md")
RESULTS = {
    "results": Path("data/results/simulated-demo/metrics.csv.gz"),
    "real": Path("data/results/real-demo/metrics.csv.gz"),
}


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


def results(path: Path) -> str:
    """Return the recorded results of protocol `blind` and recipe `warm`, or how to get some."""
    if not path.exists():
        return "No results are recorded yet: `make` ends by printing its own."
    rows = pd.read_csv(path).query("protocol == 'blind' and recipe == 'warm'")
    return render(results_table(rows[rows["setting"].isna()]))


def filled(text: str) -> str:
    """Return README.md with what stands between its marks made anew."""
    blocks = {"chapters": chapters()} | {name: results(path) for name, path in RESULTS.items()}
    for name, block in blocks.items():
        mark = re.compile(rf"(<!-- {name}[^>]*-->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        text = mark.sub(lambda found, block=block: found[1] + block + found[2], text)
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text("utf-8")), "utf-8")
