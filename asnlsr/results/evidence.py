"""The runs behind the book's claims: which, in what order, and how their results are recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from asnlsr.config import AT_ONCE
from asnlsr.files import replacing
from asnlsr.models.registry import spec
from asnlsr.notebook.workspace import ROOT, Workspace
from asnlsr.results.evaluate import evaluate
from asnlsr.training.folder import Run

# Compared with each other: ten seeds give a sign-flip test.
PAIRED = ("snlsr-unmix", "asnlsr", "bandwise")
OURS = ("bandwise", "bandwise-oracle")  # not in the paper, so without a published recipe
SEEDS, FEWER_SEEDS, SETTING_SEEDS = 10, 5, 3

# Settings under which the claims themselves are tested again get more.
MORE_SEEDS = {"relight=0.0": SEEDS, "by=tile": FEWER_SEEDS}

# Ablation of A-SNLSR and its controls, and of `bandwise`. lambda = 0 is snlsr-unmix, step for step.
ABLATION = {
    "snlsr-frozen": ("skip=false", "steps=1000"),  # else it gets fewer: see config
    "snlsr": ("skip=false",),
    "snlsr-unmix": ("skip=false", "relight=0.0", "by=tile"),
    "asnlsr": (
        *("skip=false", "reversal=0.1", "reversal=1.0", "relight=0.0", "by=tile"),
        *("skip=false_reversal=0.1", "skip=false_reversal=1.0"),
    ),
    "bicubic": ("by=tile",),
    "bandwise": (
        *("deblur=0", "neighbours=1", "neighbours=3"),
        *("materials=8", "halved=0.25", "internal=0.25"),
    ),
}

# In place of the discriminator of A-SNLSR, everything else equal.
CONTROLS = ("snlsr-coral", "snlsr-mmd", "snlsr-matched")

# What is kept of run.json beside the configuration.
_KEPT = (
    "model", "protocol", "recipe", "seed", "preset", "parameters", "minutes", "peak_memory_gb",
    "device", "machine", "python", "versions", "git_revision", "code_sha256", "tiles_sha256",
    "split_sha256", "config",
)  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """One run; `setting` is empty, `by=tile`, or one or more `--set` of training, joined by _."""

    model: str
    protocol: str
    recipe: str
    seed: int
    setting: str = ""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        model = f"{self.model}_{self.setting}" if self.setting else self.model
        return f"{model}-{self.protocol}-{self.recipe}-s{self.seed}"

    @property
    def turn(self) -> tuple[bool, bool, int, bool]:
        """Order of computing: what the claims rest on, the rest seed by seed, the ablation."""
        blind = self.protocol == "blind"
        claim = blind and self.recipe == "warm" and self.model in PAIRED
        ablation = bool(self.setting) or self.model in CONTROLS
        return ablation, not claim, self.seed, not blind


def plan(models: Sequence[str], seeds: int = SEEDS, ablation: bool = True) -> list[Planned]:
    """Return all runs of the evidence in the order in which they are to be computed.

    Recipe `warm`: ten seeds of the models of `PAIRED`, five of the others, one of those that take
    no training steps, because nothing in them is random. Recipe `published`: the same seeds under
    the protocol of the published table, and under `blind` those of `PAIRED`; never of `OURS`.

    Parameters
    ----------
    models : sequence of str
        Names in the registry.
    seeds : int
        At most so many seeds of each.
    ablation : bool
        Whether to add the runs of `ABLATION`, and `CONTROLS` where A-SNLSR is among the models:
        blind, recipe `warm`, five seeds of controls, and three of settings but for `MORE_SEEDS`.
    """
    return sorted(_plan(models, seeds, ablation), key=lambda run: run.turn)


def _plan(models: Sequence[str], seeds: int, ablation: bool) -> Iterator[Planned]:
    for model in models:
        most = 1 if model in AT_ONCE else SEEDS if model in PAIRED else FEWER_SEEDS
        for seed in range(min(most, seeds)):
            for protocol in ("blind", "as-released"):
                yield Planned(model, protocol, "warm", seed)
                published = protocol == "as-released" or model in PAIRED
                if published and model not in (*AT_ONCE, *OURS):
                    yield Planned(model, protocol, "published", seed)
        for setting in ABLATION.get(model, ()) if ablation else ():
            for seed in range(min(most, MORE_SEEDS.get(setting, SETTING_SEEDS), seeds)):
                yield Planned(model, "blind", "warm", seed, setting)
    for model in CONTROLS if ablation and "asnlsr" in models else ():
        for seed in range(min(FEWER_SEEDS, seeds)):
            yield Planned(model, "blind", "warm", seed)


@dataclass(frozen=True)
class Results:
    """Results of runs: `metrics` and `history` have the columns `run` and `setting` too."""

    metrics: pd.DataFrame  # a row per run, domain, tile and metric
    history: pd.DataFrame  # a row per run and interval of training
    runs: dict[str, dict[str, Any]]  # name: configuration, versions, machine, time and memory
    missing: list[str]  # names of the runs that were wanted and are not there

    def merged(self, older: Results) -> Results:
        """Return these results and those of other runs in `older`."""
        tables = {}
        for name in ("metrics", "history"):
            rows = getattr(older, name)
            both = [getattr(self, name), rows[~rows["run"].isin(list(self.runs))]]
            kept = [part for part in both if len(part)] or both[:1]
            tables[name] = pd.concat(kept).sort_values("run", kind="stable")
        missing = [name for name in self.missing if name not in older.runs]
        runs = dict(sorted((older.runs | self.runs).items()))
        return Results(runs=runs, missing=missing, **tables)


def collect(space: Workspace, wanted: Sequence[Planned]) -> Results:
    """Return the results of the runs of a workspace that are finished and measured."""
    runs: dict[str, dict[str, Any]] = {}
    tables: dict[str, list[pd.DataFrame]] = {"metrics": [], "history": []}
    for run in wanted:
        made = space.root / "runs" / run.name
        if not ((made / "run.json").exists() and (made / "metrics.csv").exists()):
            continue
        whole = json.loads((made / "run.json").read_text())
        runs[run.name] = {key: whole.get(key) for key in _KEPT} | {
            "setting": run.setting,
            "benchmark": _benchmark(space.root / f"benchmarks/train-{run.name}.tsv"),
        }
        for name, parts in tables.items():
            if (made / f"{name}.csv").stat().st_size > 1:  # bicubic has no history
                rows = pd.read_csv(made / f"{name}.csv")
                parts.append(rows.assign(run=run.name, setting=run.setting))
    empty = pd.DataFrame({"run": [], "setting": []}, dtype=str)
    whole_tables = {name: pd.concat(parts) if parts else empty for name, parts in tables.items()}
    missing = [run.name for run in wanted if run.name not in runs]
    return Results(runs=runs, missing=missing, **whole_tables)


def _benchmark(path: Path) -> dict[str, float]:
    """Seconds, largest memory (MB) and processor seconds that the workflow measured of a job."""
    if not path.exists():
        return {}
    measured = pd.read_csv(path, sep="\t").iloc[-1]
    return {key: float(measured[key]) for key in ("s", "max_rss", "cpu_time")}


def read_results(folder: Path) -> Results:
    """Return what is recorded in a folder; nothing where there is none."""
    if not (folder / "runs.json").exists():
        return collect(Workspace(base=folder), [])
    tables = {}
    for name in ("metrics", "history"):
        rows = pd.read_csv(folder / f"{name}.csv.gz", dtype={"run": str, "setting": str})
        tables[name] = rows.fillna({"setting": ""})  # CSV knows no empty word
    document = json.loads((folder / "runs.json").read_text())
    return Results(runs=document["runs"], missing=document["missing"], **tables)


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
    return set(rows.loc[(rows["protocol"] == "blind") & (rows["setting"] == ""), "scene"].dropna())


def record(space: Workspace, wanted: Sequence[Planned], folder: Path, command: str) -> Results:
    """Add the results of the finished runs of a workspace to those recorded in a folder.

    Writes `metrics.csv.gz`, `history.csv.gz` and `runs.json`, which also names the command and
    the missing runs. A run recorded before is kept unless the workspace holds it again.

    Raises
    ------
    ValueError
        If the recorded results were measured on other tiles or test scenes.
    """
    found, older = collect(space, wanted), read_results(folder)
    if tested := _tested(found):
        check_scenes(folder, older, tested)
    runs = [*found.runs.values(), *older.runs.values()]
    tiles = {(run["protocol"], run["tiles_sha256"]) for run in runs}
    if len(tiles) > len(dict(tiles)):
        raise ValueError(
            f"{folder} and {space.root}/runs hold runs on different tiles, of other scenes or cut "
            "otherwise: delete the older ones or give yours a name of their own (SCENES_NAME=mine)"
        )
    results = found.merged(older)
    packed = {"method": "gzip", "mtime": 0}  # same results, same bytes
    for name in ("metrics", "history"):
        with replacing(folder / f"{name}.csv.gz") as part:
            rows = getattr(results, name)
            rows.to_csv(part, index=False, float_format="%.6g", compression=packed)
    document = {"command": command, "missing": results.missing, "runs": results.runs}
    with replacing(folder / "runs.json") as part:
        part.write_text(json.dumps(document, indent=1) + "\n")
    return results


WEIGHTS = ROOT / "data/weights"

# Half of the 15 MB that all weights together may take.
TOO_LARGE = ("srformer",)


def trained(space: Workspace, model: str, seed: int = 0) -> Path:
    """Return the folder of a run (protocol `blind`, recipe `warm`).

    That of the workspace; where the workflow has not made it, the reference weights of that
    run, so that a chapter can be opened without training.
    """
    own = space.run(model, seed=seed)
    reference = WEIGHTS / own.name
    same_scenes = (space.preset, space.dataset) == ("demo", "simulated")
    if same_scenes and (reference / "run.json").exists() and not (own / "run.json").exists():
        return reference
    return own


def export(run: Path, tiles: Path, split: Path, out: Path) -> None:
    """Write a finished run with weights in float16, and a card that says what they are.

    Parameters
    ----------
    run : Path
        Folder of the run; `load_run` reads `out` like it.
    tiles, split : Path
        What the network is measured on for the card, after the rounding to float16.
    out : Path
        Folder to write.
    """
    record = Run.read(run)
    out.mkdir(parents=True, exist_ok=True)
    half = {
        name: value.half() if value.dtype == torch.float32 else value
        for name, value in load_file(run / "weights.safetensors").items()
    }
    with replacing(out / "weights.safetensors") as part:
        save_file(half, part)
    for name in ("history.csv", "run.json"):
        with replacing(out / name) as part:
            shutil.copy(run / name, part)
    metrics = evaluate([out], tiles, split, progress=False)
    with replacing(out / "README.md") as part:
        part.write_text(_card(record, metrics, len(json.loads(split.read_text())["test"])))


def _card(record: dict[str, object], metrics: pd.DataFrame, tiles: int) -> str:
    means = metrics[metrics["domain"] == "swir2"].groupby("metric")["value"].mean()
    config = record["config"]
    assert isinstance(config, dict)
    return f"""# {spec(str(record["model"])).label}, weights for trying out

- **Network**: `{record["model"]}`, {record["parameters"]} parameters, {record["bands"]} bands,
  enlargement by {record["scale"]}; float16, loaded by `asnlsr.training.folder.load_run`.
- **Data**: the simulated scenes of preset `{record["preset"]}` (hash of the tiles
  `{str(record["tiles_sha256"])[:12]}`), protocol `{record["protocol"]}`: trained on source scenes
  that are in no other role. Input and output are normalised log radiance.
- **Training**: recipe `{record["recipe"]}`, seed {record["seed"]}, {config["warmup_steps"]} +
  {config["steps"]} steps, {record["minutes"]:.1f} minutes; code `{record["git_revision"]}`.
- **Reached** on {tiles} SWIR2 tiles of test scenes, after rounding to float16:
  PSNR {means["psnr"]:.2f} dB, SSIM {means["ssim"]:.3f}, SAM {means["sam_deg"]:.2f} degrees.
- **Limits**: one seed; simulated scenes, one blur, one sensor. It shows what the chapters say and
  is not meant for images of another sensor.
"""
