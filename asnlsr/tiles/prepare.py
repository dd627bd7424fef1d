"""Scenes to tiles: HR/LR pairs and their provenance, one zarr per domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import torch
import xarray as xr
import zarr
from numpy.typing import NDArray
from tqdm import tqdm

from asnlsr.files import keep, remove, scratch, sha256
from asnlsr.physics import SIZE, degrade, gaussian_psf, halo
from asnlsr.scenes.bands import BANDS, DOMAINS, BinnedScene
from asnlsr.scenes.envi import open_scene
from asnlsr.scenes.simulator.simulate import open_layers
from asnlsr.tiles.store import DIMS, LAYERS

LEAST = 16  # pixels of a tile: the window of SSIM is 11 wide
_REACH = SIZE // 2  # the kernel reaches no further out of a tile, whatever the scale
Border = Literal["scene", "zero"]


class _Recipe(NamedTuple):
    tile: int
    scale: int
    border: Border


class _TiledScene(BinnedScene):
    """A scene and where its tiles stand."""

    def __init__(self, hdr: Path, tile: int) -> None:
        super().__init__(open_scene(hdr))
        self.row0 = tile_origins(self.scene.rows, tile)
        self.col0 = tile_origins(self.scene.cols, tile)
        self.layers = open_layers(self.scene)

    def provenance(self) -> dict[str, Any]:
        scene = self.scene
        told = {"name": scene.name, "rows": scene.rows, "cols": scene.cols}
        hashes = {"img": sha256(scene.img), "hdr": sha256(scene.hdr)}
        return told | {"negative_clipped": self.clipped, "sha256": hashes}


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
    border: Border = "scene",
    progress: bool = True,
    force: bool = False,
) -> None:
    """Cut scenes into tiles of both domains: ``out/swir1.zarr`` and ``out/swir2.zarr``.

    Streams the scenes by blocks of rows. Negative radiance is clipped to 0; its count goes to
    the log and into the attributes. Where all scenes have the layers of the simulator, the tiles
    get them too: ``clean``, and ``fractions`` averaged by the point spread function, as the
    low-resolution pixels see them.

    Parameters
    ----------
    scenes : sequence of Path
        ENVI headers.
    out : Path
        Folder of the stores.
    tile : int
        Rows and columns of a tile (pixels), even and a multiple of ``scale``.
    scale : int
        Decimation r of ``lr``; that of ``lr_x2`` is always 2.
    border : {"scene", "zero"}
        Blur the scene, reflected at its edge, then cut; or blur each tile alone, zeros around.
    progress : bool
        Show a progress bar on stderr.
    force : bool
        Replace tiles that are in ``out``, when all is done.

    Raises
    ------
    FileNotFoundError, ValueError
        If a scene or an argument cannot be used; the message names it.
    FileExistsError
        If ``out`` holds tiles and `force` is off.
    """
    if not 2 <= scale <= SIZE or tile < LEAST or tile % scale or tile % 2:
        needed = f"scale must be 2 to {SIZE}, tile even, a multiple of it and at least {LEAST}"
        raise ValueError(f"tile {tile} with scale {scale}: {needed}")
    recipe = _Recipe(tile, scale, border)
    sources = [_TiledScene(Path(hdr), tile) for hdr in scenes]
    _check_scenes(sources, tile)
    layers = [source.layers for source in sources if source.layers]
    materials = layers[0][1].materials if len(layers) == len(sources) else []
    places = [(s.scene.name, row, col) for s in sources for row in s.row0 for col in s.col0]
    with new_tiles(Path(out), force=force) as stage:
        stores = []
        for n, domain in enumerate(DOMAINS):
            nm = sources[0].centres_nm[n * BANDS : (n + 1) * BANDS]
            attrs = recipe._asdict() | {"domain": domain, "psf": gaussian_psf().tolist()}
            stores.append(create_store(stage / f"{domain}.zarr", places, nm, attrs, materials))
        strips = sum(len(source.row0) for source in sources)
        with tqdm(total=strips, unit="strip", desc="prepare", disable=not progress) as bar:
            first = 0
            for source in sources:
                first = _cut(source, recipe, stores, first, bar, bool(materials))
        for store in stores:
            store.attrs["scenes"] = [source.provenance() for source in sources]
    for source in sources:
        source.tell_clipped()


def _check_scenes(sources: Sequence[_TiledScene], tile: int) -> None:
    """Refuse scenes too small, of one name, of other quantities or with bands elsewhere."""
    names, centres_nm = set(), sources[0].centres_nm
    for source in sources:
        scene = source.scene
        if not source.row0 or not source.col0:
            size = f"{scene.rows} x {scene.cols} pixels"
            raise ValueError(f"{scene.hdr}: {size}; choose a --tile smaller than {tile}")
        if scene.name in names:
            raise ValueError(f"{scene.hdr}: two scenes of this name; rename one of them")
        names.add(scene.name)
        other = scene.quantity if scene.quantity != (first := sources[0].scene).quantity else ""
        shift = np.abs(source.centres_nm - centres_nm).max()
        if shift > np.diff(centres_nm).min() / 2:
            other = f"bands {shift:.1f} nm off"
        if other:
            raise ValueError(f"{scene.hdr}: {other}, unlike {first.hdr}; prepare the two apart")


@contextmanager
def new_tiles(out: Path, *others: str, force: bool = False) -> Iterator[Path]:
    """Yield a folder; the stores and other files made in it come to ``out`` at the end, or none."""
    names = [*(f"{domain}.zarr" for domain in DOMAINS), *others]
    stores = [out / name for name in names]
    keep(beside=stores, force=force)
    with scratch(out / "tiles") as stage:
        yield stage
        # The old ones all go before a new one comes: never one old beside one new.
        for store in stores:
            remove(store)
        for store in stores:
            (stage / store.name).replace(store)


def create_store(
    path: Path,
    places: Sequence[tuple[str, int, int]],
    wavelength_nm: NDArray[np.float64],
    attrs: dict[str, Any],
    materials: Sequence[str] = (),
) -> zarr.Group:
    """Create the zarr of a domain: coordinates and attributes filled in, arrays still empty.

    With the layers of a simulated scene if there are `materials`.
    """
    names = ("scene", "row0", "col0")
    columns = map(np.array, zip(*places, strict=True))
    coords = {name: ("tile", column) for name, column in zip(names, columns, strict=True)}
    coords["wavelength_nm"] = ("band", wavelength_nm)
    if materials:
        coords["material"] = ("material", np.array(materials))
    xr.Dataset(coords=coords, attrs=attrs).to_zarr(path, zarr_format=2, consolidated=False)
    store = zarr.open_group(path, mode="r+", zarr_format=2)
    lengths = {"band": BANDS, "y": attrs["tile"], "y_lr": attrs["tile"] // attrs["scale"]}
    lengths |= {"y_x2": attrs["tile"] // 2, "material": len(materials)}
    arrays = {name: ("band", *dims) for name, dims in DIMS.items()}
    for name, dims in (arrays | (LAYERS if materials else {})).items():
        shape = lengths[dims[0]], lengths[dims[1]], lengths[dims[1]]
        store.create_array(
            name,
            shape=(len(places), *shape),
            chunks=(1, *shape),
            dtype="float16" if name == "clean" else "float32",  # half: 1e-4 of the radiance
            fill_value=None,  # xarray would read a fill value of 0 as missing
            compressors=None,  # sensor noise does not compress
            attributes={"_ARRAY_DIMENSIONS": ["tile", *dims]},
        )
    return store


def _cut(
    source: _TiledScene,
    recipe: _Recipe,
    stores: Sequence[zarr.Group],
    first: int,
    bar: tqdm[NoReturn],
    with_layers: bool,
) -> int:
    """Write the tiles of a scene, numbered from ``first`` on; return the number after the last."""
    bands = [source, *((source.layers or ()) if with_layers else ())]
    around, wide = (recipe.tile, _REACH, _REACH), recipe.tile + 2 * _REACH
    scales = {"hr": 1, "lr": recipe.scale, "lr_x2": 2}
    for strips in zip(*(each.strips(source.row0, *around) for each in bands), strict=True):
        windows = [
            torch.from_numpy(np.stack([strip[..., col : col + wide] for col in source.col0]))
            for strip in strips
        ]
        cuts = {name: _tiles(windows[0], scale, recipe.border) for name, scale in scales.items()}
        if with_layers:
            cuts["clean"] = _tiles(windows[1], 1)
        halves = {name: np.split(cut, 2, axis=1) for name, cut in cuts.items()}
        if with_layers:  # reflected at the border: zeros around would take from the sum
            halves["fractions"] = [_tiles(windows[2], recipe.scale)] * 2
        for name, half in halves.items():
            for store, cut in zip(stores, half, strict=True):
                store[name][first : first + len(cut)] = cut  # type: ignore[index]
        first += len(source.col0)
        bar.update()
    return first


def _tiles(windows: torch.Tensor, scale: int, border: Border = "scene") -> NDArray[np.float32]:
    """Take off what is around tiles, degrading them unless ``scale`` is 1: (tiles, bands, ...)."""
    inside = windows[..., _REACH:-_REACH, _REACH:-_REACH]
    if scale == 1:
        return inside.numpy()
    if border == "zero":
        return degrade(inside, scale, "zero").numpy()
    before, after = halo(scale)
    inner = slice(_REACH - before, after - _REACH)
    return degrade(windows[..., inner, inner], scale, "open").numpy()
