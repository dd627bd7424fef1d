"""The workflow seen from Python: what a step depends on, and making what a chapter needs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _code(path: Path) -> str:
    """Return the Python code of a module or, without its magics, of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(source) for source in cells).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def _imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports from this package, packages before modules."""
    for node in ast.walk(ast.parse(_code(path), str(path))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "asnlsr":
                yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def sources(entry: str) -> list[str]:
    """Return the files of this package that a step depends on.

    The workflow makes a step again when one of them changes, so that no list of dependencies
    has to be kept by hand. Only absolute imports are followed.

    Parameters
    ----------
    entry : str
        A module such as `asnlsr.tiles`, or the path of a notebook.

    Returns
    -------
    list of str
        Paths relative to the root of the repository, sorted; `entry` itself if it is a module.
    """
    found: set[Path] = set()
    todo = [ROOT / entry] if entry.endswith(".ipynb") else [*map(_file, ["asnlsr", entry])]
    while todo:
        path = todo.pop()
        if path is None or path in found:
            continue
        found.add(path)
        todo.extend(_file(name) for name in _imports(path))
    return sorted(str(path.relative_to(ROOT)) for path in found if path.suffix == ".py")


def _file(module: str) -> Path | None:
    """Return the file of a module of this package, or None if the name is not a module."""
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def ensure(*paths: Path, preset: str = "demo", dataset: str = "simulated") -> None:
    """Make what is missing of `paths`, for a chapter that is opened alone.

    Parameters
    ----------
    *paths : Path
        Results of the workflow, as `asnlsr.config.Workspace` names them.
    preset, dataset : str
        Those of the workspace.

    Raises
    ------
    FileNotFoundError
        If something is missing and there is no workflow to make it with.
    RuntimeError
        If the workflow fails; its messages stand above.
    """
    targets = [path / "run.json" if path.parent.name == "runs" else path for path in paths]
    missing = [path for path in targets if not path.exists()]
    if not missing:
        return
    if not (ROOT / "Snakefile").is_file() or find_spec("snakemake") is None:
        raise FileNotFoundError(
            f"{missing[0]} is missing and there is no Snakefile in {ROOT}: "
            "work in a clone of the book, installed with `make`"
        )
    command = [sys.executable, "-m", "snakemake", "--config", f"preset={preset}"]
    command += [f"dataset={dataset}", "--", *(str(path.relative_to(ROOT)) for path in missing)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise RuntimeError(f"the workflow could not make {missing[0]}: see its messages above")
