"""Test metrics of finished runs as one long table."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from asnlsr.device import Device, device_of, float32_products
from asnlsr.metrics import domain_distances, psnr, tile_metrics
from asnlsr.models.registry import spec
from asnlsr.models.snlsr import encode
from asnlsr.scenes.bands import DOMAINS
from asnlsr.tiles.store import Pairs, TileSet, scene_of
from asnlsr.training.folder import load_run

# What identifies a run, and what a row is about.
RUN_KEYS = ["run", "model", "setting", "seed", "preset", "protocol", "recipe"]
KEYS = [*RUN_KEYS, "domain", "scene", "tile"]
CEILING = "noise-free scene"  # in place of a model: more than its PSNR cannot be expected


@torch.no_grad()
def predict(network: nn.Module, lr: Tensor, device: Device = "cpu") -> Tensor:
    """Super-resolve tiles one by one: (n, C, h, w) to (n, C, r h, r w), normalised log radiance.

    On the device of the network; what comes back is on the CPU, like `lr`.
    """
    here = device_of(device)
    with float32_products(tf32=False):
        return torch.cat([network(tile[None].to(here)).sr.cpu() for tile in lr])


def evaluate(
    runs: Sequence[Path],
    tiles: TileSet,
    role: str = "test",
    progress: bool = True,
    device: Device = "auto",
    ceiling: bool = True,
) -> pd.DataFrame:
    """Measure finished runs on the tiles of a role, in both domains.

    Parameters
    ----------
    runs : sequence of Path
        Run folders, `bicubic` included.
    tiles : TileSet
        The tiles and roles that the runs were trained with.
    role : str
        `test`, or `val` while still choosing.
    device : {"auto", "cpu", "cuda"}
        Of networks and metrics, in full single precision; `auto`: a GPU where there is one.
    ceiling : bool
        Measure the truth without noise too, where the tiles know it.

    Returns
    -------
    DataFrame
        Columns `KEYS`, `metric`, `value`; a row per run, domain, tile and metric, `psnr_clean`
        where the tiles know their truth without noise; that truth, measured like an estimate,
        is the model `CEILING`. The rows of `metrics.domain_distances` have the domain "both" and
        an empty scene and tile.

    Raises
    ------
    FileNotFoundError, ValueError
        If a folder holds no finished run, the split names absent tiles, or a metric is NaN.

    Warns
    -----
    UserWarning
        If a run was trained with another split or on other tiles, and so may know those tested;
        if the split itself gives them to the training too.
    """
    truth = {domain: tiles.pairs(role, domain) for domain in DOMAINS}
    ids, roles = truth["swir1"].ids, tiles.roles
    if known := set(ids) & {*roles["source_train"], *roles["target_train"]}:
        warnings.warn(
            f"{tiles.split}: {len(known)} tiles of {role} are for training too", stacklevel=2
        )
    rows: list[dict[str, Any]] = []
    for run in tqdm(list(map(Path, runs)), unit="run", desc="evaluate", disable=not progress):
        network, record = load_run(run, device)
        _check(run, record, tiles, truth["swir1"].scale)
        keys = {key: record["name" if key == "run" else key] for key in RUN_KEYS}
        for domain, pairs in truth.items():
            sr = predict(network, pairs.lr, device)
            for row in _tile_rows(sr, pairs, device_of(device)):
                if math.isnan(row["value"]):
                    fault = f"{row['metric']} of {domain} tile {row['tile']} is NaN"
                    raise ValueError(f"{run}: {fault}; look at the tile, or train the run again")
                rows.append(keys | {"domain": domain} | row)
        if spec(record["model"]).unmixes and len(ids) > 1:
            source, target = (encode(network, pairs.lr) for pairs in truth.values())
            both = keys | {"domain": "both", "scene": "", "tile": ""}
            distances = domain_distances(source, target)
            rows += [both | {"metric": m, "value": value} for m, value in distances.items()]
    for domain, pairs in truth.items():
        if ceiling and pairs.clean is not None:
            noiseless = keys | {"run": CEILING, "model": CEILING, "setting": "", "seed": 0}
            measured = _tile_rows(pairs.clean, pairs, device_of(device))
            # It is no distance from itself.
            noisy = (row for row in measured if row["metric"] != "psnr_clean")
            rows += [noiseless | {"domain": domain} | row for row in noisy]
    return pd.DataFrame(rows, columns=[*KEYS, "metric", "value"])


def _check(run: Path, record: dict[str, Any], tiles: TileSet, scale: int) -> None:
    """Refuse tiles of another scale; warn of those that the run may know."""
    if record["scale"] != scale:
        raise ValueError(
            f"{run}: enlarges by {record['scale']}, the tiles of {tiles.folder} are for {scale}"
        )
    here = {
        "split_sha256": (tiles.split_sha256, f"split than {tiles.split}"),
        "pixels_sha256": (tiles.pixels_sha256, f"set of tiles than {tiles.folder}"),
    }
    if other := [told for key, (found, told) in here.items() if record.get(key, found) != found]:
        warnings.warn(
            f"{run}: trained with another {other[0]}, may know the tiles tested", stacklevel=3
        )


def _tile_rows(sr: Tensor, pairs: Pairs, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield every metric of every tile."""
    peak, clean = pairs.peak, pairs.clean
    for n, name in enumerate(pairs.ids):
        estimate, truth = (z[n : n + 1].to(device) for z in (sr, pairs.hr))
        values = tile_metrics(estimate, truth, peak, pairs.scale)
        if clean is not None:
            noise_free = clean[n : n + 1].to(device)
            values["psnr_clean"] = psnr(estimate, noise_free, peak)
        for metric, value in values.items():
            place = {"scene": scene_of(name), "tile": name}
            yield place | {"metric": metric, "value": float(value)}
