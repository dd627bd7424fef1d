"""Tiles as the networks see them: scaled radiance, by domain and role."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from asnlsr.tiles import open_tiles, tile_ids

FLOOR, TOP = 1e-4, 2.0  # radiance, W m-2 sr-1 nm-1, that becomes z = 0 and z = 1
_SPAN = float(np.log(TOP) - np.log(FLOOR))

Array = TypeVar("Array", Tensor, NDArray[np.float32])


def log_scale(radiance: Array) -> Array:
    """Return z = (ln max(x, 1e-4) - ln 1e-4) / (ln 2 - ln 1e-4) of radiance of any shape."""
    if isinstance(radiance, Tensor):
        return (radiance.clamp(min=FLOOR).log() - float(np.log(FLOOR))) / _SPAN
    z: Array = ((np.log(np.maximum(radiance, FLOOR)) - np.log(FLOOR)) / _SPAN).astype(np.float32)
    return z


def unscale(z: Array) -> Array:
    """Return the radiance of z, the inverse of `log_scale` above its floor."""
    if isinstance(z, Tensor):
        return (z * _SPAN + float(np.log(FLOOR))).exp()
    radiance: Array = np.exp(z * _SPAN + np.log(FLOOR)).astype(np.float32)
    return radiance


def select(tiles: Path, domain: str, ids: list[str]) -> xr.Dataset:
    """Open the tiles `ids` of a domain, lazily and in this order."""
    store = open_tiles(tiles, domain)
    position = {name: n for n, name in enumerate(tile_ids(store))}
    return store.isel(tile=[position[name] for name in ids])


def load_z(store: xr.Dataset, field: str) -> Tensor:
    """Read `hr`, `lr` or `lr_x2` of all tiles as normalised log radiance (n, C, h, w)."""
    return torch.from_numpy(log_scale(store[field].to_numpy()))
