"""The chapters: how they are stored, that they run, and that the numbers in them are right."""

import ast
import re
from typing import Any

import nbformat
import pytest

from tests.smoke_book import PAGES, ROOT, smoke_book

CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def executed() -> dict[str, nbformat.NotebookNode]:
    """Every chapter as the workflow executed it, by its two-digit number."""
    folder = smoke_book() / "src"
    return {path.stem[:2]: nbformat.read(folder / path.name, 4) for path in CHAPTERS}


def plain_value(text: str) -> Any:
    """Return the value behind a repr: a literal, or a number in its NumPy wrapping."""
    return ast.literal_eval(re.sub(r"^np\.\w+\((.*)\)$", r"\1", text))


def glued(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return what a chapter stored for its prose with `myst_nb.glue`."""
    return {
        output.metadata.scrapbook.name: plain_value(text)
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "scrapbook" in output.get("metadata", {})
        # A plain value is stored with the prefix; a glued figure has no value to read back.
        for mime, text in output.data.items()
        if mime == "application/papermill.record/text/plain" and not text.startswith("<")
    }


# How they are stored


@each_chapter
def test_chapter_is_stored_without_results(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert [cell.outputs for cell in code_cells(notebook) if cell.outputs] == []
    assert {cell.execution_count for cell in code_cells(notebook)} == {None}
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}  # no jupytext, no widgets


@each_chapter
def test_chapter_has_one_cell_of_plain_parameters(path):
    cells = code_cells(nbformat.read(path, 4))
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    statements = ast.parse(cell.source).body
    values = {node.targets[0].id: node.value.value for node in statements}  # constants only
    assert values == {"PRESET": "demo", "DATASET": "simulated", "SEED": 0}


@each_chapter
def test_chapter_starts_with_its_only_title(path):
    cells = nbformat.read(path, 4).cells
    titles = [
        (number, line)
        for number, cell in enumerate(cells)
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if re.match("# ", line)
    ]
    assert [number for number, _ in titles] == [0]


def test_contents_name_every_chapter_and_page():
    present = {
        path.stem for path in (ROOT / "book").glob("*.*") if path.suffix in {".md", ".ipynb"}
    }
    assert sorted(PAGES) == sorted(present)


# That they run


@each_chapter
def test_chapter_ran_to_its_end(path, executed):
    cells = code_cells(executed[path.stem[:2]])
    counts = [cell.execution_count for cell in cells if cell.source.strip()]
    assert None not in counts
    assert counts == sorted(counts)
    assert [o for cell in cells for o in cell.outputs if o.output_type == "error"] == []


@each_chapter
def test_chapter_ran_at_the_preset_that_was_asked_for(path, executed):
    (injected,) = [
        cell
        for cell in code_cells(executed[path.stem[:2]])
        if "injected-parameters" in cell.metadata.get("tags", [])
    ]
    assert 'PRESET = "smoke"' in injected.source


@each_chapter
def test_page_needs_no_kernel(path, executed):
    notebook = executed[path.stem[:2]]
    assert "widgets" not in notebook.metadata
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                assert "text/html" in output.data  # the twin that is alive in a static page


# That their numbers are right: per chapter, against expectations with a reason of their own
