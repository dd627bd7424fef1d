"""What `gpu.py` does in processes of their own: each yields rows for the results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

MODELS = ("asnlsr", "snlsr-unmix", "bandwise")
# What is asked of a step: how it is started, and how it multiplies.
MODES = {
    "eager": {"graphs": "off", "precision": "32-true"},
    "graphs": {"graphs": "plain", "precision": "32-true"},
    "fused": {"graphs": "fused", "precision": "32-true"},
    "fused tf32": {"graphs": "fused", "precision": "tf32"},
}
PAIR = ("asnlsr", "snlsr-unmix")


def measure(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Short trainings of every network in one mode."""
    from asnlsr.training.module import SuperResolutionTraining

    seconds: list[float] = []
    close = SuperResolutionTraining.on_train_epoch_end

    def timed(module: SuperResolutionTraining) -> None:
        close(module)
        seconds.append(module.seconds)

    SuperResolutionTraining.on_train_epoch_end = timed  # type: ignore[method-assign]
    every = 1 if job["dry"] else 30
    for crop in (64,) if job["dry"] else (128, 64):
        for model in MODELS[: 1 if job["dry"] else None]:
            seconds.clear()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            sizes = {"crop": crop, "steps": 3 * every, "log_every": every}
            warm = {"warmup_steps": every // 2} if model in PAIR else {}
            last, _ = _train(job, model, "demo", sizes | warm | job["settings"])
            rows = [b - a for a, b in pairwise(seconds)]
            ms = 1e3 * min(rows[:2]) / every
            yield {
                "mode": job["mode"], "model": model, "crop": crop, "ms": ms,
                "steps_per_second": 1e3 / ms, "val_psnr": last["val_psnr"],
                "first_seconds": seconds[0], "peak_gb": _peak_gb(),
            }  # fmt: skip


def long_run(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One whole training, tested on target tiles."""
    from asnlsr.metrics import tile_metrics
    from asnlsr.models.registry import build
    from asnlsr.results.evaluate import predict
    from asnlsr.training.folder import load_run

    start = time.perf_counter()
    settings = job["settings"]
    last, folder = _train(job, job["model"], job["preset"], settings, job["seed"])
    wall = time.perf_counter() - start
    pairs = _tiles(job).pairs("test", "swir2")
    some = slice(2 if job["dry"] else None)
    network, record = load_run(folder, "auto")
    tested = {}
    for name, tested_network in (("bicubic", build("bicubic")), ("network", network)):
        sr = predict(tested_network, pairs.lr[some], "auto")
        rows = [
            tile_metrics(*(z[n : n + 1].to(_device()) for z in (sr, pairs.hr)), pairs.peak)
            for n in range(len(sr))
        ]
        tested[name] = {key: sum(float(row[key]) for row in rows) / len(rows) for key in rows[0]}
        tested[name]["psnr_of_tiles"] = [round(float(row["psnr"]), 3) for row in rows]
    yield {
        "run": record["name"], "preset": job["preset"], "wall_seconds": wall,
        "steps_seconds": 60 * record["minutes"], "peak_gb": _peak_gb(), "last": last,
        "target_test": tested, "folder": str(folder), "config": record["config"],
        "history": (folder / "history.csv").read_text(),
    }  # fmt: skip


def compare(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Compare CPU and GPU: outputs of the shipped networks, and short trainings."""
    from asnlsr.results.evaluate import predict
    from asnlsr.training.folder import load_run

    torch.set_num_threads(job["threads"])
    lr = _tiles(job).pairs("test", "swir2").lr[:: 4 if job["dry"] else 8]
    for folder in sorted(Path("data/weights").iterdir()):
        there, here = (predict(load_run(folder, d)[0], lr, d) for d in ("auto", "cpu"))
        yield {"network": folder.name, "apart": float((there - here).abs().max())}
    steps = 3 if job["dry"] else 100
    sizes = {"crop": 64, "steps": steps, "warmup_steps": steps // 3, "log_every": steps // 3}
    for model in PAIR[: 1 if job["dry"] else None]:
        psnr = {"cpu": _train(job | {"device": "cpu"}, model, "demo", sizes)[0]["val_psnr"]}
        for mode in ("eager", job["mode"]):
            last, _ = _train(job, model, "demo", sizes | MODES[mode])
            psnr[mode] = last["val_psnr"]
        yield {"training": model, "steps": steps, "val_psnr": psnr}


JOBS = {"measure": measure, "long_run": long_run, "compare": compare}


def _train(
    job: dict[str, Any], model: str, preset: str, settings: dict[str, Any], seed: int = 0
) -> tuple[dict[str, float], Path]:
    import pandas as pd

    from asnlsr.config import Experiment
    from asnlsr.training.run import train

    experiment = Experiment(model, preset, seed=seed, settings=settings)
    device = job.get("device", "auto")
    out = Path(job["work"]) / f"{device}-{experiment.preset}-{experiment.name}"
    train(experiment, _tiles(job), out, progress=False, device=device)
    return pd.read_csv(out / "history.csv").iloc[-1].to_dict(), out


def _tiles(job: dict[str, Any]) -> Any:
    from benchmarks.gpu_tiles import MemoryTiles

    if "loaded" not in job:
        job["loaded"] = MemoryTiles(Path(job["tiles"]))
    return job["loaded"]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _peak_gb() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
