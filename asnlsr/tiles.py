"""Scenes to tiles: both domains, HR/LR pairs and their provenance, one zarr per domain."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr
from numpy.typing import NDArray
from tqdm import tqdm

from asnlsr import __version__
from asnlsr.binning import BinnedScene
from asnlsr.degrade import SIZE, blur_decimate, degrade, gaussian_psf, halo
from asnlsr.domains import BANDS, DOMAINS
from asnlsr.files import remove, scratch
from asnlsr.scenes import Scene, open_scene

logger = logging.getLogger(__name__)

_REACH = SIZE // 2  # no kernel reaches further out of a tile, whatever the scale
_DIMS = {"hr": ("y", "x"), "lr": ("y_lr", "x_lr"), "lr_x2": ("y_x2", "x_x2")}


@dataclass(frozen=True)
class _Recipe:
    tile: int
    scale: int
    border: str

    def __post_init__(self) -> None:
        if self.border not in ("scene", "zero"):
            raise ValueError(f"border {self.border!r} is neither 'scene' nor 'zero'")
        if not 2 <= self.scale <= SIZE or self.tile < 1 or self.tile % self.scale or self.tile % 2:
            raise ValueError(
                f"tile {self.tile} and scale {self.scale} do not fit: "
                f"scale must be 2 to {SIZE}, tile a multiple of it and even"
            )


@dataclass(frozen=True)
class _Source:
    """A scene and where its tiles stand."""

    binned: BinnedScene
    row0: list[int]
    col0: list[int]

    @property
    def scene(self) -> Scene:
        return self.binned.scene

    @property
    def tiles(self) -> int:
        return len(self.row0) * len(self.col0)


def tile_origins(length: int, tile: int) -> list[int]:
    """First rows (or columns) of the tiles along a side of ``length`` pixels.

    Side by side from the start; a last tile is moved back inside, unless it would overlap its
    neighbour by half or more.
    """
    origins = list(range(0, length - tile + 1, tile))
    rest = length - len(origins) * tile
    return [*origins, length - tile] if origins and 2 * rest > tile else origins


def prepare(
    scenes: Sequence[Path],
    out: Path,
    tile: int = 128,
    scale: int = 4,
    border: str = "scene",
    progress: bool = True,
) -> None:
    """Cut scenes into tiles of both domains: ``out/swir1.zarr`` and ``out/swir2.zarr``.

    Streams every scene by blocks of rows. Negative radiance is clipped to 0, counted, logged
    and recorded in the attributes.

    Parameters
    ----------
    scenes : sequence of Path
        ENVI headers.
    out : Path
        Folder of the tile store; earlier stores in it are replaced when all is done.
    tile : int
        Rows and columns of a tile (pixels), a multiple of ``scale`` and even.
    scale : int
        Decimation r of ``lr``; that of ``lr_x2`` is always 2.
    border : {"scene", "zero"}
        Blur the scene, reflected at its edge, then cut; or blur each tile alone, zeros around.
    progress : bool
        Show a progress bar on stderr.

    Raises
    ------
    FileNotFoundError, ValueError
        If a scene or an argument cannot be used; the message names it.
    """
    recipe = _Recipe(tile, scale, border)
    sources = [_open_source(open_scene(Path(hdr)), tile) for hdr in scenes]
    centres_nm = _common_centres(sources)
    out = Path(out)
    with scratch(out / "tiles") as stage:
        stores = [
            _create_store(stage / f"{name}.zarr", name, band_nm, sources, recipe)
            for name, band_nm in zip(DOMAINS, np.split(centres_nm, 2), strict=True)
        ]
        rows = sum(source.scene.rows for source in sources)
        provenance: list[dict[str, Any]] = []
        first = 0
        with tqdm(total=rows, unit="row", desc="prepare", disable=not progress) as bar:
            for source in sources:
                provenance.append(_cut_scene(source, recipe, stores, first, bar))
                first += source.tiles
        for store in stores:
            store.attrs["scenes"] = provenance
        # Both old stores go before a new one comes: never one old beside one new.
        for name in DOMAINS:
            remove(out / f"{name}.zarr")
        for name in DOMAINS:
            (stage / f"{name}.zarr").replace(out / f"{name}.zarr")


def _open_source(scene: Scene, tile: int) -> _Source:
    row0, col0 = tile_origins(scene.rows, tile), tile_origins(scene.cols, tile)
    if not row0 or not col0:
        raise ValueError(
            f"{scene.hdr}: {scene.rows} x {scene.cols} pixels, smaller than a tile of {tile}; "
            "choose a smaller --tile"
        )
    return _Source(BinnedScene(scene), row0, col0)


def _common_centres(sources: Sequence[_Source]) -> NDArray[np.float64]:
    """Return the band centres; refuse scenes that cannot share a store."""
    if not sources:
        raise ValueError("no scene given; name at least one ENVI header")
    centres_nm = sources[0].binned.centres_nm
    seen: dict[str, Path] = {}
    for source in sources:
        name, hdr = source.scene.name, source.scene.hdr
        if name in seen:
            raise ValueError(f"{hdr}: same scene name as {seen[name]}; rename one of them")
        seen[name] = hdr
        shift = np.abs(source.binned.centres_nm - centres_nm).max()
        if shift > 0.5 * np.diff(centres_nm).min():
            raise ValueError(
                f"{hdr}: bands are up to {shift:.1f} nm away from those of "
                f"{sources[0].scene.hdr.name}; prepare the two apart"
            )
    return centres_nm


def _create_store(
    path: Path,
    domain: str,
    band_nm: NDArray[np.float64],
    sources: Sequence[_Source],
    recipe: _Recipe,
) -> zarr.Group:
    """Create the zarr of one domain: coordinates and recipe filled in, arrays still empty."""
    places = [(s.scene.name, row, col) for s in sources for row in s.row0 for col in s.col0]
    names, row0, col0 = zip(*places, strict=True)
    xr.Dataset(
        coords={
            "scene": ("tile", np.array(names)),
            "row0": ("tile", np.array(row0)),
            "col0": ("tile", np.array(col0)),
            "wavelength_nm": ("band", band_nm),
        },
        attrs={
            "domain": domain,
            "units": "as the scenes: radiance, W m-2 sr-1 nm-1",
            "tile": recipe.tile,
            "scale": recipe.scale,
            "border": recipe.border,
            "psf": gaussian_psf().tolist(),
            "asnlsr_version": __version__,
        },
    ).to_zarr(path, mode="w", zarr_format=2, consolidated=False)
    store = zarr.open_group(path, mode="r+", zarr_format=2)
    for array, dims in _DIMS.items():
        side = recipe.tile // {"hr": 1, "lr": recipe.scale, "lr_x2": 2}[array]
        store.create_array(
            array,
            shape=(len(places), BANDS, side, side),
            chunks=(1, BANDS, side, side),
            dtype="float32",
            fill_value=None,  # xarray would read a fill value of 0 as missing
            compressors=None,  # sensor noise does not compress
            attributes={"_ARRAY_DIMENSIONS": ["tile", "band", *dims]},
        )
    return store


def _cut_scene(
    source: _Source, recipe: _Recipe, stores: Sequence[zarr.Group], first: int, bar: Any
) -> dict[str, Any]:
    """Write the tiles of a scene, numbered from ``first`` on, and tell where they came from."""
    scene = source.scene
    with ThreadPoolExecutor(1) as pool:  # hashing leaves the interpreter to the other thread
        digest = pool.submit(_sha256, scene.img)
        for strip in _strips(source, recipe.tile, bar):
            arrays = _degraded_tiles(strip, source.col0, recipe)
            last = first + len(source.col0)
            for name, cut in arrays.items():
                for store, bands in zip(stores, np.split(cut, 2, axis=1), strict=True):
                    store[name][first:last] = bands
            first = last
        if source.binned.clipped:
            logger.warning("%s: %d negative values clipped to 0", scene.img, source.binned.clipped)
        return {
            "name": scene.name,
            "rows": scene.rows,
            "cols": scene.cols,
            "negative_clipped": source.binned.clipped,
            "band_nm": source.binned.centres_nm.tolist(),
            "sha256": digest.result(),
            "hdr_sha256": _sha256(scene.hdr),
        }


def _strips(source: _Source, tile: int, bar: Any) -> Iterator[NDArray[np.float32]]:
    """Yield each row of tiles, bands first, with ``_REACH`` pixels around it.

    Shape (2 * BANDS, tile + 2 * _REACH, cols + 2 * _REACH); outside the scene is its reflection.
    Every row of the scene is read once.
    """
    scene = source.scene
    row_at = np.pad(np.arange(scene.rows), _REACH, mode="reflect")
    sides = ((0, 0), (0, 0), (_REACH, _REACH))
    kept = source.binned.read_rows(0, 0)
    low = 0
    for row0 in source.row0:
        rows = row_at[row0 : row0 + tile + 2 * _REACH]
        kept = kept[rows.min() - low :]
        low = int(rows.min())
        done = low + len(kept)
        high = int(rows.max()) + 1
        kept = np.concatenate([kept, source.binned.read_rows(done, high)])
        bar.update(high - done)
        yield np.pad(kept[rows - low].transpose(1, 0, 2), sides, mode="reflect")
    bar.update(scene.rows - high)


def _degraded_tiles(
    strip: NDArray[np.float32], col0: Sequence[int], recipe: _Recipe
) -> dict[str, NDArray[np.float32]]:
    """Cut a strip into tiles with their degraded twins, each (tiles, 2 * BANDS, side, side)."""
    wide = recipe.tile + 2 * _REACH
    windows = torch.from_numpy(np.stack([strip[..., col : col + wide] for col in col0]))
    hr = windows[..., _REACH:-_REACH, _REACH:-_REACH]

    def low(scale: int) -> NDArray[np.float32]:
        if recipe.border == "zero":
            return degrade(hr, scale, "zero").numpy()
        before, after = halo(scale)
        inner = slice(_REACH - before, _REACH + recipe.tile + after)
        return blur_decimate(windows[..., inner, inner], scale).numpy()

    return {"hr": hr.numpy(), "lr": low(recipe.scale), "lr_x2": low(2)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_tiles(tiles: Path, domain: str) -> xr.Dataset:
    """Open the tiles of one domain; values are read when they are used.

    Parameters
    ----------
    tiles : Path
        Folder written by :func:`prepare`.
    domain : {"swir1", "swir2"}

    Returns
    -------
    Dataset
        ``hr`` (tile, band, y, x), ``lr`` (tile, band, y_lr, x_lr) and ``lr_x2``
        (tile, band, y_x2, x_x2), float32 radiance; coordinates ``scene``, ``row0``, ``col0``
        (tile) and ``wavelength_nm`` (band); the recipe as attributes.

    Raises
    ------
    ValueError
        If the domain is unknown or the store damaged.
    FileNotFoundError
        If the folder holds no tile store.
    """
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; known: {', '.join(DOMAINS)}")
    path = Path(tiles) / f"{domain}.zarr"
    if not path.is_dir():
        raise FileNotFoundError(f"{tiles}: no {path.name} in it; make it with asnlsr prepare")
    try:
        store = xr.open_zarr(path, chunks=None, consolidated=False, zarr_format=2)
        missing = {*_DIMS, "scene", "row0", "col0", "wavelength_nm"} - set(store.variables)
    except (OSError, ValueError, KeyError, TypeError):
        missing = {".zgroup"}
    if missing:
        raise ValueError(
            f"{path}: not a tile store ({', '.join(sorted(missing))} missing); "
            "make it with asnlsr prepare"
        )
    return store


def tile_ids(store: xr.Dataset) -> list[str]:
    """Identifier "scene/row0/col0" of every tile, in the order of the store."""
    columns = (store[name].values.tolist() for name in ("scene", "row0", "col0"))
    return [f"{scene}/{row0}/{col0}" for scene, row0, col0 in zip(*columns, strict=True)]
