"""Record what is finished of the evidence: `record_results.py PRESET DATASET MODEL...`."""

import sys
from pathlib import Path

from asnlsr.config import Workspace
from asnlsr.evidence import plan, record

RESULTS = Path("data/results")


def main(preset: str, dataset: str, models: list[str]) -> None:
    """Write data/results/DATASET-PRESET and say which runs are missing."""
    space = Workspace(preset, dataset, base=Path("data"))
    wanted = plan(models, ablation=dataset == "simulated")
    folder = RESULTS / space.root.name
    missing = record(space, wanted, folder, f"make evidence PRESET={preset}").missing
    print(f"{folder}: {len(wanted) - len(missing)} of {len(wanted)} runs")
    for name in missing:
        print(f"missing: {name}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
