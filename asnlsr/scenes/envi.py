"""Radiance scenes in ENVI files: read by blocks of rows, written atomically."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator
from spectral.io import envi

from asnlsr.files import replacing

_NM_PER_UNIT = {"nm": 1.0, "nanometers": 1.0, "um": 1e3, "micrometers": 1e3, "microns": 1e3}
_DTYPE_CODES = {"1": "u1", "2": "i2", "3": "i4", "4": "f4", "5": "f8"} | {
    "12": "u2", "13": "u4", "14": "i8", "15": "u8"
}  # fmt: skip
_BODY_SUFFIXES = (".img", "", ".dat", ".raw", ".bil", ".bip", ".bsq", ".hyspex")

# Order of (row, column, channel) axes in the file, and back.
_AXES = {"bil": (0, 2, 1), "bip": (0, 1, 2), "bsq": (1, 2, 0)}


def _one_of(meanings: Mapping[str, object]) -> BeforeValidator:
    """Replace a word of a header by what it means."""

    def look_up(word: object) -> object:
        if (key := str(word).strip().lower()) not in meanings:
            raise ValueError(f"must be one of {', '.join(meanings)}")
        return meanings[key]

    return BeforeValidator(look_up)


def _array(dtype: DTypeLike) -> BeforeValidator:
    """Turn a list of a header into finite numbers of a type."""

    def convert(values: ArrayLike) -> NDArray[Any]:
        numbers = np.array(values, dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError("must be finite numbers")
        return numbers.astype(dtype)

    return BeforeValidator(convert)


_Numbers = Annotated[NDArray[np.float64], _array("f8")]
_Singles = Annotated[NDArray[np.float32], _array("f4")]
_Flags = Annotated[NDArray[np.bool_], _array("?")]


class Header(BaseModel, arbitrary_types_allowed=True):
    """What an ENVI header says about pixels; an alias is the name of the field in the file."""

    rows: int = Field(alias="lines", gt=0)
    cols: int = Field(alias="samples", gt=0)
    channels: int = Field(alias="bands", gt=0)
    start: int = Field(0, alias="header offset", ge=0)  # byte of the first pixel
    interleave: Annotated[str, _one_of({name: name for name in _AXES})]
    code: Annotated[str, _one_of(_DTYPE_CODES)] = Field(alias="data type")
    order: Annotated[str, _one_of({"0": "<", "1": ">"})] = Field("<", alias="byte order")
    ignored: float = Field(math.nan, alias="data ignore value")  # as stored; means no data
    unit_nm: Annotated[float, _one_of(_NM_PER_UNIT)] = Field(alias="wavelength units")
    # Of every channel; radiance = stored * gain + offset.
    wavelength_nm: _Numbers = Field(alias="wavelength")
    fwhm_nm: _Numbers | None = Field(None, alias="fwhm")
    usable: _Flags = Field(default_factory=lambda d: np.full(d["channels"], True), alias="bbl")
    gain: _Singles = Field(np.ones(1, np.float32), alias="data gain values")
    offset: _Singles = Field(np.zeros(1, np.float32), alias="data offset values")

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        """One number per channel; wavelengths of an optical sensor that increase."""
        for name in self.model_fields_set & {
            "wavelength_nm",
            "fwhm_nm",
            "usable",
            "gain",
            "offset",
        }:
            if getattr(self, name).shape != (self.channels,):
                field = type(self).model_fields[name].alias
                raise ValueError(f"{field} must hold {self.channels} numbers, one per channel")
        if self.fwhm_nm is not None:
            self.fwhm_nm = self.unit_nm * self.fwhm_nm
        self.wavelength_nm = nm = self.unit_nm * self.wavelength_nm
        if (np.diff(nm) <= 0).any():
            raise ValueError("wavelengths do not increase; sort the channels")
        if nm[0] < 100 or nm[-1] > 1e5:
            seen = f"wavelengths of {nm[0]:g} to {nm[-1]:g} nm are none of an optical sensor"
            raise ValueError(f"{seen}; look at wavelength units")
        return self

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers."""
        return np.dtype(self.order + self.code)


class Scene(Header):
    """An ENVI scene whose pixels stay on the disk until :meth:`read_rows`."""

    hdr: Path
    img: Path
    header: dict[str, Any]  # all fields, as they stand in the file

    @property
    def name(self) -> str:
        """Stem of the header; the scene part of tile names."""
        return self.hdr.stem

    def read_rows(self, r0: int, r1: int) -> NDArray[np.float32]:
        """Read rows ``r0`` to ``r1 - 1``.

        A plain read and no memory map: mapped pages would count as resident memory.

        Returns
        -------
        ndarray of float32, shape (r1 - r0, cols, channels)
            Radiance, NaN where there is no data; for BIL and BSQ files a transposed view.
        """
        rows, cols, channels = r1 - r0, self.cols, self.channels
        with self.img.open("rb") as file:
            if self.interleave == "bsq":
                stored = np.empty((channels, rows, cols), self.dtype)
                for channel in range(channels):
                    skip = (channel * self.rows + r0) * cols
                    file.seek(self.start + skip * self.dtype.itemsize)
                    file.readinto(stored[channel].data)
            else:
                shape = (
                    (rows, channels, cols) if self.interleave == "bil" else (rows, cols, channels)
                )
                stored = np.empty(shape, self.dtype)
                file.seek(self.start + r0 * cols * channels * self.dtype.itemsize)
                file.readinto(stored.data)
        stored = stored.transpose(_AXES[self.interleave])
        radiance = stored.astype(np.float32, copy=False)
        if not math.isnan(self.ignored):
            exact = self.dtype.type(self.ignored) if self.dtype.kind == "f" else self.ignored
            radiance = np.where(stored == exact, np.float32(np.nan), radiance)
        if (self.gain != 1).any():
            radiance = radiance * self.gain
        if self.offset.any():
            radiance = radiance + self.offset
        return radiance


def open_scene(hdr: Path) -> Scene:
    """Open an ENVI scene without reading its pixels.

    Parameters
    ----------
    hdr : Path
        Header file; the pixel file has the same stem and lies beside it.

    Raises
    ------
    FileNotFoundError
        If the header or the pixel file is missing.
    ValueError
        If the header cannot be used or does not fit the size of the pixel file.
    """
    hdr = Path(hdr)
    header = _read_header(hdr)
    img = next(filter(Path.is_file, map(hdr.with_suffix, _BODY_SUFFIXES)), None)
    if img is None:
        raise FileNotFoundError(f"{hdr.with_suffix('.img')}: no pixel file beside {hdr.name}")
    try:
        scene = Scene.model_validate(header | {"hdr": hdr, "img": img, "header": header})
    except ValidationError as error:
        raise ValueError(f"{hdr}: {_in_words(error)}; mend the header") from None
    shape = scene.rows, scene.cols, scene.channels
    expected = scene.start + math.prod(shape) * scene.dtype.itemsize
    if (size := img.stat().st_size) != expected:
        raise ValueError(
            f"{img}: {size} bytes, but {hdr.name} describes {shape[0]} x {shape[1]} x {shape[2]} "
            f"{scene.dtype.name} = {expected} bytes; copy the file again or mend the header"
        )
    return scene


def _read_header(hdr: Path) -> dict[str, Any]:
    """Return all fields of an ENVI header as text."""
    if not hdr.is_file():
        raise FileNotFoundError(f"{hdr}: no such header file; give the path of the .hdr")
    try:
        header: dict[str, Any] = envi.read_envi_header(str(hdr))
    except (envi.EnviException, ValueError, IndexError) as error:
        with hdr.open("rb") as file:
            begins = b"ENVI" in file.read(7)  # after the mark with which some UTF-8 begins
        reason = "damaged ENVI header, or not plain UTF-8: save it as UTF-8 without BOM"
        reason = reason if begins else "not an ENVI header; give the .hdr of the scene"
        raise ValueError(f"{hdr}: {reason}") from error
    return header


def _in_words(error: ValidationError) -> str:
    """Say what is wrong first: field, value, reason."""
    first = error.errors()[0]
    reason = str(first.get("ctx", {}).get("error", first["msg"]))
    if first["type"] == "missing":
        return f"no {first['loc'][0]} field"
    value = f" = {first['input']}" if isinstance(first["input"], str) else ""
    return f"{first['loc'][0]}{value}: {reason}" if first["loc"] else reason


def write_scene(
    hdr: Path,
    blocks: Iterable[NDArray[np.float32]],
    shape: tuple[int, int, int],
    wavelength_nm: ArrayLike,
    **fields: object,
) -> None:
    """Write a float32 ENVI scene (BIP), ``.hdr`` and ``.img``, block by block.

    Parameters
    ----------
    hdr : Path
    blocks : iterable of ndarray of float32, shape (any, cols, channels)
        Radiance from the top row on.
    shape : tuple of int
        (rows, cols, channels) of the whole scene.
    wavelength_nm : array_like of float, shape (channels,)
    **fields
        Further header fields, ``_`` for a blank in their names.

    Raises
    ------
    ValueError
        If the blocks do not add up to ``shape``.
    """
    hdr = Path(hdr)
    # The header comes last: without it the pixels are not a scene.
    with replacing(hdr) as new_hdr, replacing(hdr.with_suffix(".img")) as new_img:
        with new_img.open("wb") as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block, dtype="<f4").data)
            written = file.tell()
        if written != 4 * math.prod(shape):
            raise ValueError(f"{hdr}: blocks hold {written // 4} values, {shape} asked for")
        write_header(new_hdr, shape, wavelength_nm, **fields)


def write_header(
    path: Path, shape: tuple[int, int, int], wavelength_nm: ArrayLike, **fields: object
) -> None:
    """Write the header that goes with float32 pixels in BIP order; see :func:`write_scene`."""
    rows, cols, channels = shape
    header = {
        "description": "radiance, W m-2 sr-1 nm-1",
        "samples": cols, "lines": rows, "bands": channels, "header offset": 0,
        "file type": "ENVI Standard", "data type": 4, "interleave": "bip", "byte order": 0,
        "wavelength units": "Nanometers",
        "wavelength": [f"{value:.10g}" for value in np.asarray(wavelength_nm, dtype=np.float64)],
    } | {key.replace("_", " "): value for key, value in fields.items()}  # fmt: skip
    envi.write_envi_header(str(path), header)


def check_output(scene: Scene, out: Path) -> None:
    """Refuse a name that is no header's, or under which the scene itself or another lies."""
    if out.suffix != ".hdr":
        raise ValueError(f"{out}: the name of the output must end in .hdr")
    inputs = {scene.hdr.resolve(), scene.img.resolve()}
    if inputs & {out.resolve(), out.with_suffix(".img").resolve()}:
        raise ValueError(f"{out}: would overwrite its own input; choose another --out")
    if (other := out.with_suffix(".img.hdr")).exists():
        raise ValueError(f"{out}: would overwrite the pixels of {other}; choose another --out")
