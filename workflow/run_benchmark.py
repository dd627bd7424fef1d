"""Measure methods for 36 sensors: `run_benchmark.py PRESET DATASET MODEL...`."""

import sys
from pathlib import Path

from asnlsr.notebook.workspace import Workspace
from asnlsr.results.benchmark import benchmark


def main(preset: str, dataset: str, *models: str) -> None:
    """Write data/results/benchmark/DATASET-PRESET.csv, or what is missing of it."""
    space = Workspace(preset, dataset, base=Path("data"))
    runs = [space.run(model) for model in models]
    out = Path(f"data/results/benchmark/{space.root.name}.csv")
    table = benchmark(runs, space.tile_set(), out)
    print(table.pivot_table("gain", ["assumed", "noise", "psf"], "model").round(2).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
