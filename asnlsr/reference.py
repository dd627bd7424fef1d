"""Reference weights: one trained network per system, small enough to come with the book."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from asnlsr.config import Workspace
from asnlsr.evaluate import evaluate
from asnlsr.files import replacing
from asnlsr.models import spec
from asnlsr.runs import Run
from asnlsr.workflow import ROOT

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
  enlargement by {record["scale"]}; float16, loaded by `asnlsr.runs.load_run`.
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
