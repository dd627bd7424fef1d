"""Where results live, what each chapter reads of them, and making what is missing. No torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asnlsr.config import PROTOCOLS, Experiment

if TYPE_CHECKING:
    from asnlsr.tiles.store import TileSet

_HERE = (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[2])
# The checkout: the nearest folder with a workflow, else that of the package.
ROOT = next((folder for folder in _HERE if (folder / "Snakefile").is_file()), _HERE[-1])

# What each chapter reads: scenes; tiles (with the split); the run of a MODEL;
# metrics (of all models of the table); recorded results; other files of the repository. With a
# question mark: only as long as no results are recorded. The workflow makes it before the chapter
# runs, and `open_chapter` where a reader opens it alone.
READS = {
    "01": "scenes",
    "02": "scenes tiles",
    "03": "tiles",
    "04": "tiles back-projection richardson-lucy metrics",
    "05": "tiles richardson-lucy rcam esrt srformer metrics",
    "06": "",
    "07": "",
    "08": "tiles asnlsr",
    "09": "tiles snlsr-unmix asnlsr",
    "10": "tiles metrics richardson-lucy asnlsr bandwise",
    "11": "metrics? data/paper/table1.csv recorded",
    "12": "tiles bicubic richardson-lucy asnlsr bandwise",
    "appendix_a": "recorded",
    "appendix_b": "tiles snlsr-frozen asnlsr richardson-lucy metrics data/paper/table1.csv"
    " recorded",
    "appendix_c": "recorded",
    "intro": "tiles asnlsr bandwise recorded",
}


def key_of(chapter: str) -> str:
    """Return the key in `READS` of a chapter, or of the name of its file."""
    return next((key for key in READS if chapter.startswith(key)), chapter)


@dataclass(frozen=True)
class Workspace:
    """Where the workflow keeps what it makes for one preset and dataset."""

    preset: str = "demo"
    dataset: str = "simulated"  # else a name for the ENVI scenes of a reader, "real" by default
    base: Path = ROOT / "data"
    retrain: bool = False  # use no shipped weights

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

    def tile_set(self, protocol: str = "blind") -> TileSet:
        """Tiles and roles of a protocol."""
        from asnlsr.tiles.store import TileSet  # brings torch, which the workflow does without

        by, border = PROTOCOLS[protocol]
        return TileSet(self.tiles(border), self.split(by))

    def run(self, model: str, recipe: str = "warm", seed: int = 0) -> Path:
        """Folder of a training run of protocol `blind`.

        That of the weights in the repository, where there are any, unless it was made here.
        """
        own = self.root / "runs" / Experiment(model, self.preset, "blind", recipe, seed).name
        shipped = self.base / "weights" / (model if recipe == "warm" else f"{model}-{recipe}")
        of_these = (self.preset, self.dataset, seed) == ("demo", "simulated", 0)
        if self.retrain or not of_these or (own / "run.json").exists():
            return own
        return shipped if (shipped / "run.json").exists() else own

    def metrics(self, protocol: str = "blind") -> Path:
        """CSV file of all test metrics of `protocol`."""
        return self.root / f"metrics-{protocol}.csv"

    def reads(self, chapter: str, seed: int = 0, alone: bool = False) -> list[Path]:
        """Return the files that a chapter, a key of `READS`, reads apart from the package.

        Where it is opened `alone`, without those that recorded results stand in for.
        """
        recorded = sorted((self.base / "results").glob("*-demo/*"))
        found: list[Path] = []
        for word in READS[key_of(chapter)].split():
            if word.endswith("?") and alone and recorded:
                continue
            match word.removesuffix("?"):
                case "scenes":
                    found += [self.scenes] * (self.dataset == "simulated")
                case "tiles":
                    found += [self.tiles(), self.split()]
                case "metrics":
                    found.append(self.metrics())
                case "recorded":
                    found += recorded
                case name if "/" in name:
                    found.append(self.base.parent / name)
                case model:
                    found.append(self.run(model, seed=seed) / "run.json")
        return found


def open_chapter(
    chapter: str, preset: str = "demo", dataset: str = "simulated", seed: int = 0
) -> Workspace:
    """Make what is missing of all that a chapter reads, and say where it is.

    A line on the page tells that it was executed on other scenes or at another preset than the
    book's own, of which the text speaks.

    Parameters
    ----------
    chapter : str
        Key of `READS`: its two digits, `intro`, or the letter of an appendix.
    preset, dataset : str
        Of the `Workspace`.
    seed : int
        Of the runs.

    Raises
    ------
    FileNotFoundError
        If something is missing and there is no workflow to make it with.
    RuntimeError
        If the workflow fails; its messages stand above.
    """
    space = Workspace(preset, dataset)
    wanted = space.reads(chapter, seed, alone=True)
    missing = [str(path.relative_to(ROOT)) for path in wanted if not path.exists()]
    if missing:
        _make(missing, space)
    if space != Workspace():
        from IPython.display import Markdown, display

        here = f"Executed on {dataset} scenes at preset `{preset}`"
        own = "the text speaks of the book's simulated scenes at preset `demo`"
        display(Markdown(f"*{here}; {own}.*"))  # type: ignore[no-untyped-call]
    return space


def _make(missing: list[str], space: Workspace) -> None:
    if not (ROOT / "Snakefile").is_file():
        raise FileNotFoundError(f"{missing[0]} is missing: work in a clone, set up with `make`")
    command = [sys.executable, "-m", "snakemake", "--config", f"preset={space.preset}"]
    command += [f"dataset={space.dataset}", "--", *missing]
    # On standard error, Jupyter would show its progress in red.
    if subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.STDOUT).returncode:
        raise RuntimeError(f"the workflow could not make {missing[0]}: see its messages above")
