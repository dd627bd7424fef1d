"""Tiles and their roles: `TileSet` gives the pairs that training, evaluation and chapters read."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from asnlsr.files import fault, replacing, sha256
from asnlsr.physics import SIZE, log_scale
from asnlsr.scenes.bands import DOMAINS

DIMS = {"hr": ("y", "x"), "lr": ("y_lr", "x_lr"), "lr_x2": ("y_x2", "x_x2")}
# Of simulated scenes only, and never for training.
LAYERS = {"clean": ("band", "y", "x"), "fractions": ("material", "y_lr", "x_lr")}
ROLES = ("source_train", "target_train", "val", "test")
WITHOUT = "without-"  # a split that leaves out one scene
_DEALS = 100
Split = dict[str, list[str]]


def open_tiles(tiles: Path, domain: str) -> xr.Dataset:
    """Open the tiles of a domain; values are read when they are used.

    Parameters
    ----------
    tiles : Path
        Folder written by `asnlsr.tiles.prepare` or `asnlsr.tiles.official`.
    domain : {"swir1", "swir2"}

    Returns
    -------
    Dataset
        ``hr`` (tile, band, y, x), ``lr`` (tile, band, y_lr, x_lr) and ``lr_x2``
        (tile, band, y_x2, x_x2), float32 radiance; of simulated scenes also ``clean``, ``hr``
        without noise, and ``fractions`` (tile, material, y_lr, x_lr), areas; coordinates
        ``scene``, ``row0``, ``col0`` (tile), ``wavelength_nm`` (band) and ``material``; the recipe
        and the scenes as attributes.

    Raises
    ------
    FileNotFoundError
        If the folder holds no tiles, or damaged ones.
    """
    path = Path(tiles) / f"{domain}.zarr"
    try:
        store: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False, zarr_format=2)
        fits = all(store[name].dims == ("tile", "band", *dims) for name, dims in DIMS.items())
        fits &= np.asarray(store.attrs["psf"], float).shape == (SIZE, SIZE)
        scale, rest = divmod(store.sizes["y"], store.sizes["y_lr"])
        fits &= not rest and store.sizes["x"] == scale * store.sizes["x_lr"]
        fits &= store.attrs["border"] in ("scene", "zero") and len(tile_ids(store)) > 0
        fits &= bool(np.isfinite(store["lr"][0, 0].to_numpy()).all())  # truth stays unread
        if not fits:
            raise ValueError("not as prepare writes it")
    except Exception as error:  # zarr raises a dozen kinds for damaged files
        mend = "no tiles, or damaged ones; make them with asnlsr prepare"
        raise FileNotFoundError(f"{path}: {mend}") from error
    return store


def tile_ids(store: xr.Dataset) -> list[str]:
    """Name every tile "scene/row0/col0", in the order of the store."""
    columns = [store[name].values.tolist() for name in ("scene", "row0", "col0")]
    return ["/".join(map(str, place)) for place in zip(*columns, strict=True)]


class Pairs:
    """Tiles of one role in one domain; each field is read from the disk when it is first used.

    Attributes
    ----------
    lr, hr, lr_x2 : Tensor, (n, C, h, w), (n, C, r h, r w) and (n, C, r h / 2, r w / 2)
        Low resolution, truth, and truth degraded by 2: normalised log radiance.
    psf : ndarray, (32, 32)
        Blur between `hr` and `lr`.
    border : str
        "scene" or "zero": what lay around a tile when it was blurred.
    wavelength_nm : ndarray, (C,)
    ids : list of str
        Names "scene/row0/col0", in the order of the tiles.
    """

    def __init__(self, store: xr.Dataset) -> None:
        self._store = store
        self.psf: NDArray[np.float64] = np.asarray(store.attrs["psf"], dtype=np.float64)
        self.border = str(store.attrs["border"])
        self.wavelength_nm: NDArray[np.float64] = store["wavelength_nm"].to_numpy()
        self.ids = tile_ids(store)
        self.scale = store.sizes["y"] // store.sizes["y_lr"]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lr(self) -> Tensor:
        """Low resolution: z (n, C, h, w)."""
        return self._z("lr")

    @cached_property
    def hr(self) -> Tensor:
        """Truth: z (n, C, r h, r w)."""
        return self._z("hr")

    @cached_property
    def lr_x2(self) -> Tensor:
        """Truth degraded by 2: z (n, C, r h / 2, r w / 2)."""
        return self._z("lr_x2")

    @property
    def clean(self) -> Tensor | None:
        """Truth without the noise of the sensor, of simulated scenes: z (n, C, r h, r w)."""
        return self._z("clean") if "clean" in self._store else None

    @property
    def peak(self) -> float:
        """Largest less smallest true z, against which PSNR is measured."""
        return float(self.hr.max() - self.hr.min())

    @property
    def scenes(self) -> list[str]:
        """Scene of every tile."""
        return [scene_of(name) for name in self.ids]

    def _z(self, name: str) -> Tensor:
        return torch.from_numpy(log_scale(self._store[name].to_numpy().astype(np.float32)))


@dataclass(frozen=True)
class TileSet:
    """The tiles of both domains with a role for each.

    Parameters
    ----------
    folder : Path
        Folder of the two tile stores.
    split : Path
        JSON file of `write_split`.

    Raises
    ------
    FileNotFoundError, ValueError
        When used, if a store or the split is missing or damaged, or they do not fit.

    Examples
    --------
    >>> TileSet(space.tiles(), space.split()).pairs("test", "swir2").hr.shape  # doctest: +SKIP
    torch.Size([24, 30, 128, 128])
    """

    folder: Path
    split: Path

    @cached_property
    def roles(self) -> Split:
        """Role to names of tiles."""
        return read_split(self.split, self.folder)

    def pairs(self, role: str, domain: str) -> Pairs:
        """Return the tiles of a role in a domain, in the order of the split."""
        if not (chosen := self.roles.get(role)):
            raise ValueError(f"{self.split}: no tile has the role {role}")
        store = open_tiles(self.folder, domain)
        return Pairs(store.isel(tile=pd.Index(tile_ids(store)).get_indexer(pd.Index(chosen))))

    @cached_property
    def pixels_sha256(self) -> str:
        """Hash of the pixels, names and wavelengths of all tiles of both domains."""
        digest = hashlib.sha256()
        for domain in DOMAINS:
            store = open_tiles(self.folder, domain)
            digest.update("\n".join(tile_ids(store)).encode())
            digest.update(store["wavelength_nm"].to_numpy().tobytes())
            for name in DIMS:
                for tile in store[name]:
                    digest.update(np.ascontiguousarray(tile).data)
        return digest.hexdigest()

    @cached_property
    def split_sha256(self) -> str:
        """Hash of the file of roles."""
        return sha256(Path(self.split))


def make_split(tiles: Path, by: str = "scene", seed: int = 0) -> Split:
    """Give every tile of a store a role.

    Parameters
    ----------
    tiles : Path
    by : {"scene", "tile", "without-SCENE"}
        ``scene``: of n scenes a third is for test, a sixth for validation, half of the rest
        for target training and the others for source training; of many random deals the one
        whose roles have the most equal mean spectra (rerandomisation, Morgan & Rubin 2012),
        for else a role may hold one kind of scene only. ``without-SCENE``: that scene alone is
        for test, and the others are dealt without a look at it. ``tile``: random thirds as
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
        If there are too few scenes or tiles, or no SCENE.
    """
    if not re.fullmatch(f"scene|tile|{WITHOUT}.+", by):
        raise ValueError(f"{by!r}: a split is by scene, tile or {WITHOUT}SCENE")
    ids = tile_ids(open_tiles(tiles, "swir1"))
    random = np.random.default_rng(seed)
    count, least = (len(ids), 3) if by == "tile" else (len(set(map(scene_of, ids))), 4)
    if count < least:
        raise ValueError(f"{tiles}: {count} {by}s, a split by {by} needs at least {least}")
    if by == "tile":
        thirds = random.permutation(np.array(ROLES)[np.arange(count) * 3 // count])
        split = _by_role(dict(zip(ids, thirds, strict=True)))
        return split | {"test": split["val"]}
    spectra = _scene_spectra(Path(tiles))
    test, val = round(count / 3), max(1, count // 6)
    alone = by.removeprefix(WITHOUT)
    if by != "scene":
        if alone not in spectra.index:
            raise ValueError(f"{tiles}: no scene {alone}: {', '.join(spectra.index)}")
        spectra, count, test = spectra.drop(alone), count - 1, 0
    target = max(1, (count - test - val) // 2)
    roles = np.repeat(ROLES, (count - test - val - target, target, val, test))
    role_of = min(
        (dict(zip(spectra.index, random.permutation(roles), strict=True)) for _ in range(_DEALS)),
        key=lambda deal: spectra.groupby(deal).mean().std().sum(),
    )
    return _by_role({tile: role_of.get(scene_of(tile), "test") for tile in ids})


def _by_role(role_of: dict[str, str]) -> Split:
    return {role: [tile for tile, its in role_of.items() if its == role] for role in ROLES}


def scene_of(tile: str) -> str:
    """Return the scene in the name of a tile."""
    return tile.rsplit("/", 2)[0]


def _scene_spectra(tiles: Path) -> pd.DataFrame:
    """Mean logarithm of low-resolution radiance: a row per scene, a column per band."""
    domains = []
    for domain in DOMAINS:
        store = open_tiles(tiles, domain)
        spectra = np.log(np.maximum(store["lr"].to_numpy(), 1e-4)).mean((2, 3))
        domains.append(pd.DataFrame(spectra).groupby(store["scene"].to_numpy()).mean())
    return pd.concat(domains, axis=1)


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")


class _Roles(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    source_train: list[str]
    target_train: list[str]
    val: list[str]
    test: list[str]


def read_split(path: Path, tiles: Path | None = None) -> Split:
    """Read a split and check that it is whole and, given ``tiles``, that the store has its tiles.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If it is not a split, or names tiles that the store does not hold.

    Warns
    -----
    UserWarning
        If it leaves tiles without a role, as after `prepare` with smaller tiles.
    """
    try:
        split: Split = _Roles.model_validate_json(Path(path).read_bytes()).model_dump()
    except ValidationError as error:
        raise ValueError(f"{path}: not a split of asnlsr split: {fault(error)}") from None
    if tiles is None:
        return split
    ids, named = set(tile_ids(open_tiles(tiles, "swir1"))), set(chain(*split.values()))
    if absent := sorted(named - ids):
        lost = f"{len(absent)} of its tiles, such as {absent[0]}, are not in {tiles}"
        raise ValueError(f"{path}: {lost}; make the split again")
    if spare := ids - named:
        told = f"gives no role to {len(spare)} of {len(ids)} tiles in {tiles}; make it again"
        warnings.warn(f"{path}: {told}", stacklevel=2)
    return split
