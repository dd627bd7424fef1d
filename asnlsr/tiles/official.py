"""Tiles and splits of the original release, converted once to what `prepare` and `split` make."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from tqdm import tqdm

from asnlsr.scenes.bands import DOMAINS, bin_response
from asnlsr.tiles.prepare import create_store, new_tiles
from asnlsr.tiles.store import Split, write_split

_FIELDS = {"hr": "hr_hsi", "lr": "lr_hsi", "lr_x2": "lr_hsi_div2"}
_SENSOR_NM = np.linspace(1000, 2500, 300)  # channels of the published scenes
_Place = tuple[str, int, int]  # scene, row0, col0


def import_tiles(
    folder: Path, out: Path, splits: Sequence[Path] = (), force: bool = False, progress: bool = True
) -> None:
    """Convert tiles of the release: ``out/swir1.zarr``, ``out/swir2.zarr`` and JSON splits.

    The stores are those of :func:`asnlsr.tiles.prepare.prepare` with ``border`` zero; one file is
    in memory at a time. The release does not store wavelengths: ``wavelength_nm`` is computed
    from its sensor.

    Parameters
    ----------
    folder : Path
        The folder around `..._dom1_...` and `..._dom2_...`.
    out : Path
        Folder of the stores.
    splits : sequence of Path
        `.npz` splits of the release; each becomes ``out/<its stem>.json``.
    force : bool
        Replace what is in ``out``, when all is done.
    progress : bool
        Show a progress bar on stderr.

    Raises
    ------
    FileNotFoundError
        If a domain has no tiles.
    ValueError
        If a file is no tile of the release or does not go with the others, or if a split is none
        or names other tiles.
    FileExistsError
        If an output exists and `force` is off.
    """
    files = [sorted(Path(folder).glob(f"*dom{number}_*/*.mat")) for number in (1, 2)]
    if not all(files):
        raise FileNotFoundError(f"{folder}: lacks .mat tiles in *dom1_* or *dom2_*")
    described = [_describe(domain_files) for domain_files in files]
    (places, _), (others, _) = described
    if odd := sorted(set(places.items()) ^ set(others.items())):
        raise ValueError(f"{folder}: {odd[0][0]} is in one domain only, or elsewhere in the other")
    roles = {f"{Path(path).stem}.json": _named(Path(path), places) for path in splits}
    with (
        new_tiles(Path(out), *roles, force=force) as stage,
        tqdm(total=2 * len(places), unit="tile", desc="import", disable=not progress) as bar,
    ):
        for domain, domain_files, (_, recipe) in zip(
            DOMAINS.values(), files, described, strict=True
        ):
            wavelength_nm = bin_response(domain, _SENSOR_NM)[1]
            attrs = recipe | {"border": "zero", "domain": domain.name}
            path = stage / f"{domain.name}.zarr"
            store = create_store(path, list(places.values()), wavelength_nm, attrs)
            for n, file in enumerate(domain_files):
                _copy_images(file, store, n)
                bar.update()
        for name, split in roles.items():
            write_split(split, stage / name)


@contextmanager
def _blaming(file: Path) -> Iterator[None]:
    """Say which file is not what it should be."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # scipy raises a dozen kinds for a damaged file
        raise ValueError(f"{file}: not a tile of the original release: {error!r}") from None


def _describe(files: list[Path]) -> tuple[dict[str, _Place], dict[str, Any]]:
    """Return where every tile of a domain stands, by its stem, and the recipe of all."""
    places: dict[str, _Place] = {}
    for file in files:
        with _blaming(file):
            field = loadmat(file, variable_names=["metadata"], squeeze_me=True)["metadata"][()]
            # start_x is the first row: the release counts x down
            place = str(field["scene"]), int(field["start_x"]), int(field["start_y"])
            recipe = {
                "tile": int(field["tile_size"]),
                "scale": int(field["downsampling_factor"]),
                "psf": np.asarray(field["psf_kernel"], float).tolist(),
            }
        if file.stem in places:
            raise ValueError(f"{file}: a second tile of this name; import the two folders apart")
        places[file.stem] = place
    return places, recipe


def _copy_images(file: Path, store: Any, n: int) -> None:  # noqa: ANN401
    """Write the images of a .mat file as tile ``n`` of a store."""
    with _blaming(file):
        mat = loadmat(file, variable_names=list(_FIELDS.values()))
        for name, variable in _FIELDS.items():
            image, shape = np.moveaxis(mat[variable], -1, 0), store[name].shape[1:]
            if image.shape != shape or not np.isfinite(image).all():
                raise ValueError(f"{variable} is {image.shape} or not finite; must be {shape}")
            store[name][n] = image.astype(np.float32)


def _named(path: Path, places: dict[str, _Place]) -> Split:
    """Read a split of the release with tiles named "scene/row0/col0"."""
    split = read_npz_split(path)
    if absent := set(chain(*split.values())) - set(places):
        raise ValueError(f"{path}: {len(absent)} of its tiles, such as {min(absent)}, are not here")
    id_of = {stem: "/".join(map(str, place)) for stem, place in places.items()}
    return {role: [id_of[stem] for stem in stems] for role, stems in split.items()}


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


def read_npz_split(path: Path) -> Split:
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
        return {role: list(map(str, stems)) for role, stems in split.items()}
    except Exception as error:  # pickle raises a dozen kinds for a damaged file
        raise ValueError(f"{path}: not a split that is safe to read: {error!r}") from None


def _unpickle(npy: bytes) -> Any:  # noqa: ANN401
    """Return the object that a 0-d object array in .npy format holds."""
    file = io.BytesIO(npy)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return _ArrayUnpickler(file).load().item()
