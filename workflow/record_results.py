"""Record what is finished of the evidence: `record_results.py PRESET DATASET SCENES MODEL...`."""

import sys
from pathlib import Path

from asnlsr.notebook.workspace import Workspace
from asnlsr.results.evidence import plan, record

RESULTS = Path("data/results")


def main(preset: str, dataset: str, scenes: str, models: list[str]) -> None:
    """Write data/results/DATASET-PRESET and say which runs are missing.

    `scenes`, with a / between them, are those that are left out one after the other.
    """
    space = Workspace(preset, dataset, base=Path("data"))
    wanted = [run.name for run in plan(models, preset, scenes=scenes.split("/") if scenes else ())]
    folder = RESULTS / space.root.name
    called = "" if dataset in ("simulated", "real") else f" SCENES_NAME={dataset}"
    try:
        missing = record(
            space.root, wanted, folder, f"make evidence PRESET={preset}{called}"
        ).missing
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"{folder}: {len(wanted) - len(missing)} of {len(wanted)} runs")
    for name in missing:
        print(f"missing: {name}")


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
