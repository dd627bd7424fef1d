"""Test metrics of finished runs as one long table."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from asnlsr.metrics import tile_metrics
from asnlsr.models.registry import spec
from asnlsr.models.snlsr import encode
from asnlsr.results.alignment import domain_distances
from asnlsr.scenes.bands import DOMAINS
from asnlsr.tiles.store import load_z, read_split, select
from asnlsr.training.folder import Run, load_run, tiles_hash

KEYS = ["model", "seed", "preset", "protocol", "recipe", "domain", "scene", "tile"]


@torch.no_grad()
def predict(network: nn.Module, lr: Tensor) -> Tensor:
    """Super-resolve tiles one by one: (n, C, h, w) to (n, C, r h, r w), normalised log radiance."""
    return torch.cat([network(tile[None]).sr for tile in lr])


def evaluate(
    runs: Sequence[Path], tiles: Path, split: Path, role: str = "test", progress: bool = True
) -> pd.DataFrame:
    """Measure finished runs on the tiles of a role, in both domains.

    Parameters
    ----------
    runs : sequence of Path
        Run folders, `bicubic` included.
    tiles, split : Path
        The tile stores and roles that the runs were trained with.
    role : str
        `test`, or `val` while still choosing.

    Returns
    -------
    DataFrame
        Columns `KEYS`, `metric`, `value`; a row per run, domain, tile and metric. The rows of
        `ms_per_tile` and `train_minutes` have an empty scene and tile, those of
        `alignment.domain_distances` also the domain "both".

    Raises
    ------
    FileNotFoundError, ValueError
        If a folder holds no finished run, the split names absent tiles, or two runs have the same
        `KEYS`: in a table they would be taken for tiles of one.

    Warns
    -----
    UserWarning
        If a run was trained with another split or on other tiles, and so may know those tested;
        if the split itself gives them to the training too.
    """
    roles = read_split(split, tiles)
    if role not in roles:
        raise ValueError(f"{split}: no role {role!r}; it has {', '.join(roles)}")
    if not roles[role]:
        raise ValueError(f"{split}: no tile has the role {role}")
    if known := set(roles[role]) & {*roles["source_train"], *roles["target_train"]}:
        warnings.warn(f"{split}: {len(known)} tiles of {role} are for training too", stacklevel=2)
    here = {  # what the run was trained with: key, and what to call it
        "split_sha256": (
            hashlib.sha256(Path(split).read_bytes()).hexdigest(),
            f"split than {split}",
        ),
        "tiles_sha256": (tiles_hash(tiles), f"set of tiles than {tiles}"),
    }
    truth = {}
    for domain in DOMAINS:
        store = select(tiles, domain, roles[role])
        truth[domain] = (load_z(store, "lr"), load_z(store, "hr"))
    rows: list[dict[str, Any]] = []
    for run, keys in tqdm(_distinct(runs), unit="run", desc="evaluate", disable=not progress):
        network, record = load_run(run)
        run_keys = dict(zip(KEYS, keys, strict=False))
        lr, hr = truth["swir1"]
        if record["scale"] * lr.shape[-1] != hr.shape[-1]:
            raise ValueError(
                f"{run}: enlarges by {record['scale']}, the tiles of {tiles} "
                f"are for {hr.shape[-1] // lr.shape[-1]}"
            )
        if other := [name for key, (made, name) in here.items() if record.get(key, made) != made]:
            warnings.warn(
                f"{run}: trained with another {other[0]}, may know the tiles tested", stacklevel=2
            )
        for domain, (lr, hr) in truth.items():
            start = time.perf_counter()
            sr = predict(network, lr)
            ms = 1000 * (time.perf_counter() - start) / len(lr)
            whole = run_keys | {"domain": domain, "scene": "", "tile": ""}
            rows.append(whole | {"metric": "ms_per_tile", "value": ms})
            rows.append(whole | {"metric": "train_minutes", "value": record["minutes"]})
            rows += _tile_rows(sr, hr, roles[role], run_keys | {"domain": domain}, record["scale"])
        if spec(record["model"]).unmixes and len(roles[role]) > 1:
            source, target = (encode(network, lr) for lr, _ in truth.values())
            both = run_keys | {"domain": "both", "scene": "", "tile": ""}
            rows += [
                both | {"metric": m, "value": value}
                for m, value in domain_distances(source, target).items()
            ]
    return pd.DataFrame(rows, columns=[*KEYS, "metric", "value"])


def _distinct(runs: Sequence[Path]) -> list[tuple[Path, tuple[Any, ...]]]:
    """Return the folders of runs with what identifies them in a table, each once."""
    seen: dict[tuple[Any, ...], Path] = {}
    for run in map(Path, runs):
        record = Run.read(run)
        keys = tuple(record[key] for key in KEYS[:5])
        if keys in seen:
            raise ValueError(
                f"{run}: the same model, seed, preset, protocol and recipe as {seen[keys]}; "
                "evaluate runs that differ in a setting one by one, each into a file of its own"
            )
        seen[keys] = run
    return [(run, keys) for keys, run in seen.items()]


def _tile_rows(
    sr: Tensor, hr: Tensor, ids: list[str], keys: dict[str, Any], scale: int
) -> list[dict[str, Any]]:
    peak = float(hr.max() - hr.min())
    rows = []
    for n, name in enumerate(ids):
        values = tile_metrics(sr[n : n + 1], hr[n : n + 1], peak, scale)
        place = keys | {"scene": name.rsplit("/", 2)[0], "tile": name}
        rows += [place | {"metric": m, "value": float(v)} for m, v in values.items()]
    return rows
