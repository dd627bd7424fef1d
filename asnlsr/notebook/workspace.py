"""The workflow seen from Python: what a step depends on, and making what a chapter needs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """Where the workflow keeps what it makes for one preset and dataset."""

    preset: str = "demo"
    dataset: str = "simulated"  # else a name for the ENVI scenes of a reader, "real" by default
    base: Path = Path(__file__).resolve().parents[2] / "data"

    @property
    def root(self) -> Path:
        """Folder of all generated files of this preset and dataset."""
        return self.base / f"{self.dataset}-{self.preset}"

    @property
    def scenes(self) -> Path:
        """Folder of ENVI radiance scenes."""
        return self.root / "scenes"

    def tiles(self, border: str = "scene") -> Path:
        """Folder of the tile stores degraded with `border`."""
        return self.root / f"tiles-{border}"

    def split(self, by: str = "scene") -> Path:
        """File of the split of tiles into roles."""
        return self.root / f"split-{by}.json"

    def run(self, model: str, protocol: str = "blind", recipe: str = "warm", seed: int = 0) -> Path:
        """Folder of one training run."""
        return self.root / "runs" / f"{model}-{protocol}-{recipe}-s{seed}"

    def metrics(self, protocol: str = "blind") -> Path:
        """CSV file of all test metrics of `protocol`."""
        return self.root / f"metrics-{protocol}.csv"


ROOT = Path(__file__).resolve().parents[2]


def _imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a module or a notebook imports, each with its packages."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
        text = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
    for node in ast.walk(ast.parse(text, str(path))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for parts in (name.split(".") for name in names):
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def sources(entry: str) -> list[str]:
    """Return the files of this package that a step depends on, by following its imports.

    The workflow makes a step again when one of them changes, and no list of dependencies has to
    be kept by hand. Only absolute imports are followed.

    Parameters
    ----------
    entry : str
        A module such as `asnlsr.tiles.prepare`, or the path of a notebook.

    Returns
    -------
    list of str
        Paths relative to the root of the repository, sorted.
    """
    found: set[Path] = set()
    notebook = entry.endswith(".ipynb")
    names = [*_imports(ROOT / entry)] if notebook else ["asnlsr", entry]
    while names:
        name = names.pop()
        path = ROOT.joinpath(*name.split("."))
        for file in {path.with_suffix(".py"), path / "__init__.py"} - found:
            if name.split(".")[0] == "asnlsr" and file.is_file():
                found.add(file)
                names.extend(_imports(file))
                # What a widget brings for the browser lies beside its module.
                found.update(filter(Path.is_file, map(path.with_suffix, (".js", ".css"))))
    return sorted(str(path.relative_to(ROOT)) for path in found)


def ensure(*paths: Path, preset: str = "demo", dataset: str = "simulated") -> None:
    """Make what is missing of `paths`, results of the workflow as `Workspace` names them.

    For a chapter that is opened alone; when everything is there, nothing happens.

    Raises
    ------
    FileNotFoundError
        If something is missing and there is no workflow to make it with.
    RuntimeError
        If the workflow fails; its messages stand above.
    """
    # A run that was killed leaves its folder, but only a finished one has its run.json.
    targets = [path / "run.json" if path.parent.name == "runs" else path for path in paths]
    missing = [str(path.relative_to(ROOT)) for path in targets if not path.exists()]
    if missing and not (ROOT / "Snakefile").is_file():
        raise FileNotFoundError(f"{missing[0]} is missing: work in a clone, set up with `make`")
    command = [sys.executable, "-m", "snakemake", "--config", f"preset={preset}"]
    command += [f"dataset={dataset}", "--", *missing]
    if not missing:
        return
    # On standard error, Jupyter would show its progress in red.
    if subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.STDOUT).returncode:
        raise RuntimeError(f"the workflow could not make {missing[0]}: see its messages above")
