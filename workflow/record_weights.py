"""Write the reference weights: `record_weights.py PRESET DATASET MODEL...`."""

import sys
from pathlib import Path

from asnlsr.config import AT_ONCE
from asnlsr.notebook.workspace import Workspace
from asnlsr.results.evidence import TOO_LARGE, WEIGHTS, export


def main(preset: str, dataset: str, models: list[str]) -> None:
    """Export seed 0 of every network that is trained, and say how much it takes."""
    space = Workspace(preset, dataset, base=Path("data"))
    for model in models:
        if model not in (*AT_ONCE, *TOO_LARGE):
            run = space.run(model)
            export(run, space.tiles(), space.split(), WEIGHTS / run.name)
    size = sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file())
    print(f"{WEIGHTS}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
