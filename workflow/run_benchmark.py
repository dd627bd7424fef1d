"""Measure methods for 36 sensors: `run_benchmark.py PRESET DATASET MODEL...`.

Six point spread functions, three levels of noise, and a PSF that the methods take to be another.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor
from tqdm import tqdm

from asnlsr.files import replacing
from asnlsr.metrics import psnr
from asnlsr.models.registry import build
from asnlsr.notebook.workspace import Workspace
from asnlsr.physics import SIZE, degrade, gaussian_psf, log_scale, unscale
from asnlsr.results.evaluate import predict
from asnlsr.tiles.store import TileSet
from asnlsr.training.folder import load_run

NOISES = {"none": 0.0, "sensor": 0.002, "1 %": 0.01}  # of the mean radiance of a band
WRONG = 1.2  # factor on the width of the PSF that a method assumes
KEYS = ["psf", "noise", "assumed", "model"]


def psfs() -> dict[str, NDArray[np.float64]]:
    """Return six point spread functions, (32, 32) each, centred on index (16, 16)."""
    row, col = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    radius = np.hypot(row, col)
    line = (np.abs(row - col) <= 0.5) & (radius <= 5)  # a diagonal of 8 pixels or so
    kernels = {
        "published": gaussian_psf(),
        "round": np.exp(-0.5 * radius**2 / math.sqrt(6.306 * 3.340)),
        "narrow": gaussian_psf(0.7),
        "wide": gaussian_psf(1.4),
        "motion": gaussian_filter(line.astype(float), 1.0),
        "defocus": np.clip(4.5 - radius, 0, 1),  # a disk with a soft rim
    }
    return {name: kernel / kernel.sum() for name, kernel in kernels.items()}


def benchmark(
    runs: Sequence[Path], tiles: TileSet, out: Path, per_scene: int = 2, progress: bool = True
) -> pd.DataFrame:
    """Gain over bicubic interpolation of runs for 36 sensors, on target test tiles.

    Six PSFs, three levels of noise, and the PSF known or taken to be 20 % wider than it is.
    A method that takes a PSF (`take_psf`) is told it; the others have learned the published one.

    Parameters
    ----------
    runs : sequence of Path
        Finished runs.
    tiles : TileSet
        Its high-resolution test tiles of SWIR2 are degraded anew.
    out : Path
        CSV file; rows that it holds are not computed again.
    per_scene : int
        Tiles of every test scene.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    DataFrame
        Columns of `KEYS`, `psnr` and `gain` (dB, means over tiles).
    """
    networks: dict[str, Any] = {record["model"]: network for network, record in map(load_run, runs)}
    pairs = tiles.pairs("test", "swir2")
    some = pd.Series(range(len(pairs.hr))).groupby(pairs.scenes).head(per_scene)
    hr = pairs.hr[some.tolist()]
    rows: list[Any] = pd.read_csv(out).to_dict("records") if out.exists() else []
    if rows and not {*KEYS, "gain"} <= rows[0].keys():
        raise ValueError(f"{out}: holds something else than a benchmark; choose another name")
    done = {tuple(row[key] for key in KEYS) for row in rows}
    sensors = list(product(psfs().items(), NOISES.items(), ("known", "20 % wrong")))
    for (psf_name, psf), (noise, level), assumed in tqdm(sensors, disable=not progress):
        keys = {name: (psf_name, noise, assumed, name) for name in networks}
        if done >= set(keys.values()):
            continue
        lr = _seen(hr, psf, level)
        base = float(psnr(predict(build("bicubic"), lr), hr, pairs.peak).mean())
        believed = psf if assumed == "known" else _wider(psf)
        for name, key in keys.items():
            if key in done:
                continue
            if hasattr(networks[name], "take_psf"):
                networks[name].take_psf(believed)
            quality = float(psnr(predict(networks[name], lr), hr, pairs.peak).mean())
            rows.append(
                dict(zip(KEYS, key, strict=True)) | {"psnr": quality, "gain": quality - base}
            )
        with replacing(out) as part:
            pd.DataFrame(rows).to_csv(part, index=False, float_format="%.4f")
    return pd.DataFrame(rows)


def _seen(hr: Tensor, psf: NDArray[np.float64], level: float) -> Tensor:
    """Return what a sensor with this PSF and this noise sees of z (n, C, H, W)."""
    light = degrade(unscale(hr), psf=psf)
    grain = torch.randn(light.shape, generator=torch.Generator().manual_seed(0))
    return log_scale(light + level * light.mean((2, 3), keepdim=True) * grain)


def _wider(psf: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stretch a PSF by `WRONG` about its centre."""
    grid = (np.mgrid[:SIZE, :SIZE] - SIZE // 2) / WRONG + SIZE // 2
    stretched = map_coordinates(psf, grid, order=1)
    return np.asarray(stretched / stretched.sum())


def main(preset: str, dataset: str, *models: str) -> None:
    """Write data/results/benchmark/DATASET-PRESET.csv, or what is missing of it."""
    space = Workspace(preset, dataset, base=Path("data"))
    runs = [space.run(model) for model in models]
    out = Path(f"data/results/benchmark/{space.root.name}.csv")
    table = benchmark(runs, space.tile_set(), out)
    print(table.pivot_table("gain", ["assumed", "noise", "psf"], "model").round(2).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
