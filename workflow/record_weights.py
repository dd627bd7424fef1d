"""Write the reference weights: `record_weights.py PRESET DATASET MODEL...`."""

import sys
from pathlib import Path

from asnlsr.config import Experiment
from asnlsr.models.registry import spec
from asnlsr.notebook.workspace import Workspace
from asnlsr.results.evidence import export

WEIGHTS = Path("data/weights")
TOO_LARGE = ("srformer",)  # half of what all weights together may take


def main(preset: str, dataset: str, models: list[str]) -> None:
    """Export seed 0 of every network that is trained, and say how much it takes."""
    space = Workspace(preset, dataset, base=Path("data"))
    for model in models:
        if spec(model).takes_steps and model not in TOO_LARGE:
            run = space.root / "runs" / Experiment(model, preset).name
            export(run, space.tile_set(), WEIGHTS / run.name)
    size = sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file())
    print(f"{WEIGHTS}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
