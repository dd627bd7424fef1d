"""Tiles and splits of the original release, opened as if `prepare` and `split` had made them."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.io import loadmat
from xarray.backends import BackendArray
from xarray.core import indexing

from asnlsr.scenes.bands import BANDS, DOMAINS, bin_response

_FIELDS = {"hr": "hr_hsi", "lr": "lr_hsi", "lr_x2": "lr_hsi_div2"}
_SENSOR_NM = np.linspace(1000, 2500, 300)  # channels of the published scenes
_CAUSE = "a tile of the original release (.mat with hr_hsi, lr_hsi, lr_hsi_div2 and metadata)"


def mat_files(tiles: Path, domain: str) -> list[Path]:
    """List the tiles of a domain in a folder of the release; empty if it is none.

    The release keeps the domains in sister folders `..._dom1_...` and `..._dom2_...`; `tiles`
    is the folder around them, or one of the two.
    """
    number = list(DOMAINS).index(domain) + 1
    if any(tiles.glob("*.mat")):
        tiles = tiles.with_name(re.sub(r"dom[12](?![0-9])", f"dom{number}", tiles.name))
        return sorted(tiles.glob("*.mat"))
    return sorted(tiles.glob(f"*dom{number}_*/*.mat"))


def _load(file: Path, variable: str) -> Any:  # noqa: ANN401
    """Read one variable of a .mat file."""
    try:
        return loadmat(file, variable_names=[variable], squeeze_me=variable == "metadata")[variable]
    except OSError:
        raise
    except Exception as error:  # scipy raises a dozen kinds for a damaged file
        raise ValueError(f"{file}: not {_CAUSE}: {error!r}") from None


class _MatTiles(BackendArray):
    """One variable of many files as an array (tile, band, y, x), read tile by tile on demand."""

    def __init__(self, files: list[Path], variable: str, side: int) -> None:
        self.files, self.variable, self.side = files, variable, side
        self.shape = (len(files), BANDS, side, side)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:  # noqa: ANN401
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        which = np.arange(len(self.files))[key[0]]
        images = np.stack([self._image(self.files[n]) for n in which.flat])
        for axis in (3, 2, 1):  # from the last, because an integer takes its axis away
            images = images[(slice(None),) * axis + (key[axis],)]
        return images.reshape(*which.shape, *images.shape[1:])

    def _image(self, file: Path) -> NDArray[np.float32]:
        stored = np.asarray(_load(file, self.variable))
        if stored.shape != (self.side, self.side, BANDS) or not np.isfinite(stored).all():
            raise ValueError(
                f"{file}: {self.variable} is {stored.shape}, or not finite; "
                f"must be {(self.side, self.side, BANDS)}"
            )
        return np.moveaxis(stored, -1, 0).astype(np.float32)


def open_mat_tiles(files: list[Path], domain: str) -> xr.Dataset:
    """Open the tiles of a domain as `asnlsr.tiles.store.open_tiles` does those of `prepare`.

    They also have the coordinate ``stem`` (tile), the names that the splits of the release use.
    The release does not store wavelengths: ``wavelength_nm`` is computed from its sensor.

    Raises
    ------
    ValueError
        If a file is no tile of the release or differs from the others in size or scale.
    """
    places, recipes = [], set()
    for file in files:
        metadata = _load(file, "metadata")
        try:
            field = {name: metadata[name].item() for name in metadata.dtype.names}
            # start_x is the first row: the release counts x down
            places.append((str(field["scene"]), int(field["start_x"]), int(field["start_y"])))
            recipes.add((int(field["tile_size"]), int(field["downsampling_factor"])))
            psf = np.asarray(field["psf_kernel"], float).tolist()
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{file}: not {_CAUSE}: {error!r}") from None
        if len(recipes) > 1:
            raise ValueError(f"{file}: tile size or scale differs from {files[0]}")
    tile, scale = recipes.pop()
    sides = {"hr": tile, "lr": tile // scale, "lr_x2": tile // 2}
    axes = {"hr": ("y", "x"), "lr": ("y_lr", "x_lr"), "lr_x2": ("y_x2", "x_x2")}
    columns = dict(zip(("scene", "row0", "col0"), zip(*places, strict=True), strict=True))
    columns["stem"] = tuple(file.stem for file in files)
    lazy = {
        name: indexing.LazilyIndexedArray(_MatTiles(files, variable, sides[name]))
        for name, variable in _FIELDS.items()
    }
    return xr.Dataset(
        {name: xr.Variable(("tile", "band", *axes[name]), array) for name, array in lazy.items()},
        coords={name: ("tile", np.array(values)) for name, values in columns.items()}
        | {"wavelength_nm": ("band", bin_response(DOMAINS[domain], _SENSOR_NM)[1])},
        attrs={
            "tile": tile, "scale": scale, "border": "zero", "domain": domain, "psf": psf,
            "scenes": [{"file": file.name, "bytes": file.stat().st_size} for file in files],
        },
    )  # fmt: skip


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain Python containers; any other class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        home = module.replace("numpy.core.", "numpy._core.")  # its name before numpy 2
        if (home, name) not in {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
        }:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which could run code")
        return super().find_class(home, name)


def read_npz_split(path: Path) -> dict[str, list[str]]:
    """Read a split of the release: role to stems of tiles; `test` repeats `val`, as published.

    Raises
    ------
    ValueError
        If it is no such split, or its pickles hold more than arrays, lists, dicts and strings.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            train, val = (_unpickle(archive.read(f"{part}.npy")) for part in ("train", "val"))
        split = {"source_train": train["SWIR_1"], "target_train": train["SWIR_2"]}
        split |= {"val": val["SWIR_2"], "test": val["SWIR_2"]}
        return {role: [_text(stem) for stem in stems] for role, stems in split.items()}
    except Exception as error:  # pickle raises a dozen kinds for a damaged file
        raise ValueError(
            f"{path}: not a split of the original release that is safe to read: {error}"
        ) from None


def _unpickle(npy: bytes) -> Any:  # noqa: ANN401
    """Return the object that a 0-d object array in .npy format holds."""
    file = io.BytesIO(npy)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"an array {shape} of {dtype} in place of one object")
    return _ArrayUnpickler(file).load().item()


def _text(stem: object) -> str:
    if not isinstance(stem, str):
        raise ValueError(f"{stem!r} is not the name of a tile")
    return str(stem)
