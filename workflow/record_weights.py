"""Write the trained systems of the table.

`python -m workflow.record_weights PRESET DATASET MODEL...`
"""

import shutil
import sys
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from asnlsr.files import replacing, sha256
from asnlsr.models.registry import spec
from asnlsr.notebook.workspace import Workspace
from asnlsr.results.evaluate import evaluate
from asnlsr.tiles.store import TileSet
from asnlsr.training.folder import read_run
from workflow.plan import trained_to_the_end

WEIGHTS = Path("data/weights")


def export(run: Path, tiles: TileSet, out: Path) -> None:
    """Write a finished run, networks in float16, and a card that says what it is.

    Parameters
    ----------
    run : Path
        Folder of the run; `load_run` reads `out` like it.
    tiles : TileSet
        What it is measured on for the card, after the rounding.
    out : Path
        Folder to write.
    """
    record = read_run(run)
    out.mkdir(parents=True, exist_ok=True)
    weights = load_file(run / "weights.safetensors")
    if spec(str(record["model"])).takes_steps:
        for name, value in weights.items():
            weights[name] = value.half() if value.dtype == torch.float32 else value
    with replacing(out / "weights.safetensors") as part:
        save_file(weights, part)
    for name in ("history.csv", "run.json"):
        with replacing(out / name) as part:
            shutil.copy(run / name, part)
    metrics = evaluate([out], tiles, progress=False)
    with replacing(out / "README.md") as part:
        part.write_text(_card(record, metrics, len(tiles.roles["test"])))


def _card(record: dict[str, object], metrics: pd.DataFrame, tiles: int) -> str:
    means = metrics[metrics["domain"] == "swir2"].groupby("metric")["value"].mean()
    config = record["config"]
    assert isinstance(config, dict)
    one = spec(str(record["model"]))
    precision = "float16" if one.takes_steps else "float32"
    steps = f"{config['warmup_steps']} + {config['steps']} steps, {record['minutes']:.1f} minutes"
    training = (
        steps if one.takes_steps else "no steps; what it fits or chooses is from source tiles"
    )
    return f"""# {one.label}, weights for trying out

- **Model**: `{record["model"]}`, {record["parameters"]} parameters, {record["bands"]} bands,
  enlargement by {record["scale"]}; {precision}, loaded by `asnlsr.training.folder.load_run`.
- **Data**: the simulated scenes of preset `{record["preset"]}` (hash of the pixels
  `{str(record["pixels_sha256"])[:12]}`), protocol `{record["protocol"]}`: trained on source scenes
  that are in no other role. Input and output are normalised log radiance.
- **Training**: recipe `{record["recipe"]}`, seed {record["seed"]}, {training};
  code `{record["git_revision"]}`.
- **Reached** on {tiles} SWIR2 tiles of test scenes, after any rounding:
  PSNR {means["psnr"]:.2f} dB, SSIM {means["ssim"]:.3f}, SAM {means["sam_deg"]:.2f} degrees.
- **Limits**: one seed; simulated scenes, one blur, one sensor. It shows what the chapters say and
  is not meant for images of another sensor.
"""


def main(preset: str, dataset: str, models: list[str]) -> None:
    """Export seed 0 of every system whose training is finished, and say how much it takes."""
    space = Workspace(preset, dataset, base=Path("data"))
    for model in models:
        run = space.root / "runs" / trained_to_the_end(model, preset).name
        if (run / "run.json").exists():
            export(run, space.tile_set(), WEIGHTS / model)
        else:
            print(f"{run}: not finished")
    files = sorted(WEIGHTS.glob("*/weights.safetensors"))
    sums = "".join(f"{sha256(path)}  {path.relative_to(WEIGHTS)}\n" for path in files)
    (WEIGHTS / "SHA256SUMS").write_text(sums)  # `asnlsr doctor` compares
    size = sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file())
    print(f"{WEIGHTS}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
