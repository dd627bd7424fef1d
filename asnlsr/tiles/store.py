"""Which tile plays which role: random thirds, or whole scenes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from asnlsr.files import replacing
from asnlsr.physics import log_scale
from asnlsr.scenes.bands import DOMAINS


def select(tiles: Path, domain: str, ids: list[str]) -> xr.Dataset:
    """Open the tiles `ids` of a domain, lazily and in this order."""
    store = open_tiles(tiles, domain)
    position = {name: n for n, name in enumerate(tile_ids(store))}
    return store.isel(tile=[position[name] for name in ids])


def load_z(store: xr.Dataset, field: str) -> Tensor:
    """Read `hr`, `lr` or `lr_x2` of all tiles as normalised log radiance (n, C, h, w)."""
    return torch.from_numpy(log_scale(store[field].to_numpy()))


_DIMS = {"hr": ("y", "x"), "lr": ("y_lr", "x_lr"), "lr_x2": ("y_x2", "x_x2")}


def open_tiles(tiles: Path, domain: str) -> xr.Dataset:
    """Open the tiles of a domain; values are read when they are used.

    Parameters
    ----------
    tiles : Path
        Folder written by :func:`prepare`, or of `.mat` files of the original release.
    domain : {"swir1", "swir2"}

    Returns
    -------
    Dataset
        ``hr`` (tile, band, y, x), ``lr`` (tile, band, y_lr, x_lr) and ``lr_x2``
        (tile, band, y_x2, x_x2), float32 radiance; coordinates ``scene``, ``row0``, ``col0``
        (tile) and ``wavelength_nm`` (band); the recipe and the scenes as attributes.

    Raises
    ------
    FileNotFoundError
        If the folder holds no tiles.
    ValueError
        If the domain is unknown or the store damaged.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain {domain!r} is none of {', '.join(DOMAINS)}")
    path = Path(tiles) / f"{domain}.zarr"
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such tiles; make them with asnlsr prepare")
    try:
        store: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False, zarr_format=2)
        tile_ids(store), store["wavelength_nm"].values, [store[name].dtype for name in _DIMS]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: damaged tiles; make them again with asnlsr prepare") from None
    return store


def tile_ids(store: xr.Dataset) -> list[str]:
    """Name every tile "scene/row0/col0", in the order of the store."""
    columns = [store[name].values.tolist() for name in ("scene", "row0", "col0")]
    return ["/".join(map(str, place)) for place in zip(*columns, strict=True)]


_DEALS = 100
ROLES = ("source_train", "target_train", "val", "test")
Split = dict[str, list[str]]


def make_split(tiles: Path, by: str = "scene", seed: int = 0) -> Split:
    """Give every tile of a store a role.

    Parameters
    ----------
    tiles : Path
    by : {"scene", "tile"}
        ``scene``: of n scenes a third is for test, a sixth for validation, half of the rest
        for target training and the others for source training; of many random deals the one
        whose roles have the most equal mean spectra (rerandomisation, Morgan & Rubin 2012),
        for else a role may hold one kind of scene only. ``tile``: random thirds as
        published; neighbours land in different roles, and ``test`` repeats ``val``, because
        the release reports its validation tiles.
    seed : int

    Returns
    -------
    dict of str to list of str
        Role to tiles "scene/row0/col0", in the order of the store.

    Raises
    ------
    ValueError
        If ``by`` is unknown or there are too few scenes or tiles.
    """
    ids = tile_ids(open_tiles(tiles, "swir1"))
    random = np.random.default_rng(seed)
    if by == "scene":
        spectra = _scene_spectra(Path(tiles))
        roles = np.array(_scene_roles(Path(tiles), len(spectra)))
        deals = [random.permutation(roles) for _ in range(_DEALS)]
        role_of = min(
            (dict(zip(spectra.index, deal, strict=True)) for deal in deals),
            key=lambda deal: spectra.groupby(deal).mean().std().sum(),
        )
        return {role: [tile for tile in ids if role_of[_scene(tile)] == role] for role in ROLES}
    if by != "tile":
        raise ValueError(f"split by {by!r} is neither 'scene' nor 'tile'")
    if len(ids) < 3:
        raise ValueError(f"{tiles}: {len(ids)} tiles, a split by tile needs at least 3")
    thirds = random.permutation(np.arange(len(ids)) * 3 // len(ids))
    split = {
        role: [tile for tile, third in zip(ids, thirds, strict=True) if third == k]
        for k, role in enumerate(ROLES[:3])
    }
    return split | {"test": split["val"]}


def _scene(tile: str) -> str:
    return tile.rsplit("/", 2)[0]


def _scene_spectra(tiles: Path) -> pd.DataFrame:
    """Mean logarithm of low-resolution radiance: a row per scene, a column per band."""
    domains = []
    for domain in DOMAINS:
        store = open_tiles(tiles, domain)
        spectra = np.log(np.maximum(store["lr"].to_numpy(), 1e-4)).mean((2, 3))
        domains.append(pd.DataFrame(spectra).groupby(store["scene"].to_numpy()).mean())
    return pd.concat(domains, axis=1)


def _scene_roles(tiles: Path, n: int) -> list[str]:
    if n < 4:
        raise ValueError(
            f"{tiles}: {n} scenes, a split by scene needs at least 4; prepare more or use --by tile"
        )
    test, val = max(1, round(n / 3)), max(1, n // 6)
    target = max(1, (n - test - val) // 2)
    counts = (n - test - val - target, target, val, test)
    return [role for role, count in zip(ROLES, counts, strict=True) for _ in range(count)]


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")


def read_split(path: Path, tiles: Path | None = None) -> Split:
    """Read a split and check that it is whole and, given ``tiles``, that the store has its tiles.

    A `.npz` split of the original release names tiles by their files: they become
    "scene/row0/col0" when ``tiles`` is the folder of these files.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If it is not a split, or names tiles that the store does not hold.

    Warns
    -----
    UserWarning
        If a split of ours leaves tiles without a role, as after `prepare` with smaller tiles.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such split; make it with asnlsr split")
    split = _read_json(path)
    if tiles is None:
        return split
    store = open_tiles(tiles, "swir1")
    ids = tile_ids(store)
    if absent := sorted({tile for held in split.values() for tile in held} - set(ids)):
        raise ValueError(
            f"{path}: {len(absent)} of its tiles, such as {absent[0]}, are not in {tiles}; "
            "make the split again for these tiles"
        )
    spare = set(ids).difference(*split.values())
    if spare:
        warnings.warn(
            f"{path}: gives no role to {len(spare)} of {len(ids)} tiles in {tiles}; "
            "if they were prepared anew, make the split again",
            stacklevel=2,
        )
    return split


def _read_json(path: Path) -> Split:
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not a JSON file; make it again with asnlsr split") from None
    if not _is_split(split):
        raise ValueError(f"{path}: must map {', '.join(ROLES)} to lists of scene/row0/col0")
    return dict(split)


def _is_split(split: object) -> bool:
    return (
        isinstance(split, dict)
        and set(split) == set(ROLES)
        and all(isinstance(ids, list) for ids in split.values())
        and all(isinstance(tile, str) for ids in split.values() for tile in ids)
    )
