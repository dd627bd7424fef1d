"""Record what is finished of the evidence.

`python -m workflow.record_results PRESET DATASET SCENES MODEL...`
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from asnlsr.files import replacing
from asnlsr.notebook.workspace import Workspace
from asnlsr.results.evidence import Results, collect, read_results
from workflow.plan import plan

RESULTS = Path("data/results")


def check_scenes(folder: Path, results: Results, scenes: Iterable[str]) -> None:
    """Raise `ValueError` if results in `folder` were tested on a scene that is not in `scenes`."""
    if others := sorted(_tested(results) - set(scenes)):
        raise ValueError(
            f"{folder} holds results on other scenes ({', '.join(others)}): "
            "give yours a name of their own (SCENES_NAME=mine) or delete that folder"
        )


def _tested(results: Results) -> set[str]:
    """Names of the scenes held back for the test when tiles are split by scene."""
    rows = results.metrics
    if rows.empty:
        return set()
    by_scene = (rows["protocol"] == "blind") & ~rows["setting"].str.contains("by=tile")
    return set(rows.loc[by_scene, "scene"].dropna())


def merged(newer: Results, older: Results) -> Results:
    """Return the newer results, and the older ones of other runs."""
    tables = {}
    for name in ("metrics", "history"):
        rows = getattr(older, name)
        both = [getattr(newer, name), rows[~rows["run"].isin(list(newer.runs))]]
        kept = [part for part in both if len(part)] or both[:1]
        tables[name] = pd.concat(kept).sort_values("run", kind="stable")
    missing = [name for name in newer.missing if name not in older.runs]
    runs = dict(sorted((older.runs | newer.runs).items()))
    return Results(runs=runs, missing=missing, **tables)


def record(made: Path, wanted: Sequence[str], folder: Path, command: str) -> Results:
    """Add the results of the finished runs in `made`/runs to those recorded in a folder.

    Writes `metrics.csv.gz`, `history.csv.gz` and `runs.json`, which also names the command and
    the missing runs. A run recorded before is kept unless it is there again.

    Raises
    ------
    ValueError
        If the recorded results were measured on other tiles or test scenes.
    """
    found, older = collect(made, wanted), read_results(folder)
    if tested := _tested(found):
        check_scenes(folder, older, tested)
    runs = [*found.runs.values(), *older.runs.values()]
    # Runs of before 2026-12 have a hash of another kind.
    tiles = {(run["protocol"], run["pixels_sha256"]) for run in runs if run.get("pixels_sha256")}
    if len(tiles) > len(dict(tiles)):
        raise ValueError(
            f"{folder} and {made}/runs hold runs on different tiles, of other scenes or cut "
            "otherwise: delete the older ones or give yours a name of their own (SCENES_NAME=mine)"
        )
    results = merged(found, older)
    packed = {"method": "gzip", "mtime": 0}  # same results, same bytes
    for name in ("metrics", "history"):
        with replacing(folder / f"{name}.csv.gz") as part:
            rows = getattr(results, name)
            rows.to_csv(part, index=False, float_format="%.6g", compression=packed)
    document = {"command": command, "missing": results.missing, "runs": results.runs}
    with replacing(folder / "runs.json") as part:
        part.write_text(json.dumps(document, indent=1) + "\n")
    return results


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
