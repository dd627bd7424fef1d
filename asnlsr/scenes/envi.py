"""Radiance scenes in ENVI files: read by blocks of rows, written atomically."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from spectral.io import envi

from asnlsr.files import replacing
from asnlsr.physics import grid_offset

_NM_PER_UNIT = {"nm": 1.0, "nanometers": 1.0, "um": 1e3, "micrometers": 1e3, "microns": 1e3}
_DTYPE_CODES = {"1": "u1", "2": "i2", "3": "i4", "4": "f4", "5": "f8"} | {
    "12": "u2", "13": "u4", "14": "i8", "15": "u8"
}  # fmt: skip
_BODY_SUFFIXES = (".img", "", ".dat", ".raw", ".bil", ".bip", ".bsq", ".hyspex")

# Order of (row, column, channel) axes in the file, and back.
_AXES = {"bil": (0, 2, 1), "bip": (0, 1, 2), "bsq": (1, 2, 0)}


@dataclass(frozen=True)
class Scene:
    """An ENVI scene whose pixels stay on the disk until :meth:`read_rows`."""

    name: str  # stem of the header; the scene part of tile names
    hdr: Path
    img: Path
    rows: int
    cols: int
    wavelength_nm: NDArray[np.float64]  # (channels,), strictly increasing
    usable: NDArray[np.bool_]  # (channels,), False where the bad-band list bbl holds 0
    gain: NDArray[np.float32]  # (channels,); radiance = stored * gain + offset
    offset: NDArray[np.float32]
    ignored: float | None  # stored value that means no data
    interleave: str
    dtype: np.dtype[Any]
    start: int  # byte of the first pixel
    header: dict[str, Any]  # all fields, as they stand in the file

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.wavelength_nm)

    @property
    def fwhm_nm(self) -> NDArray[np.float64] | None:
        """Full width at half maximum of each channel (channels,), where the header tells it."""
        if "fwhm" not in self.header:
            return None
        unit = _NM_PER_UNIT[str(self.header["wavelength units"]).strip().lower()]
        return unit * _numbers(self.hdr, self.header, "fwhm", self.channels)

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
        if self.ignored is not None:
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
    rows, cols, channels, start = (
        _integer(hdr, header, key) for key in ("lines", "samples", "bands", "header offset")
    )
    interleave = str(header.get("interleave", "")).lower()
    if interleave not in _AXES:
        raise ValueError(f"{hdr}: interleave {interleave!r} is not one of bil, bip, bsq")
    code = str(header.get("data type", ""))
    if code not in _DTYPE_CODES:
        raise ValueError(f"{hdr}: data type {code!r} is not a real number type of ENVI")
    order = {"0": "<", "1": ">"}.get(named := str(header.get("byte order", "0")))
    if order is None:
        raise ValueError(f"{hdr}: byte order {named!r} is neither 0 (little) nor 1 (big endian)")
    img = _find_pixels(hdr)
    dtype = np.dtype(order + _DTYPE_CODES[code])
    expected = start + rows * cols * channels * dtype.itemsize
    if (size := img.stat().st_size) != expected:
        raise ValueError(
            f"{img}: {size} bytes, but {hdr.name} describes {rows} x {cols} x {channels} "
            f"{dtype.name} = {expected} bytes; copy the file again or mend the header"
        )
    return Scene(
        name=hdr.stem,
        hdr=hdr,
        img=img,
        rows=rows,
        cols=cols,
        wavelength_nm=_wavelengths(hdr, header, channels),
        usable=_numbers(hdr, header, "bbl", channels, default=1) != 0,
        gain=_numbers(hdr, header, "data gain values", channels, default=1).astype(np.float32),
        offset=_numbers(hdr, header, "data offset values", channels, default=0).astype(np.float32),
        ignored=_ignored(hdr, header),
        interleave=interleave,
        dtype=dtype,
        start=start,
        header=header,
    )


def _read_header(hdr: Path) -> dict[str, Any]:
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


def _find_pixels(hdr: Path) -> Path:
    for suffix in _BODY_SUFFIXES:
        if (img := hdr.with_suffix(suffix)).is_file():
            return img
    raise FileNotFoundError(f"{hdr.with_suffix('.img')}: no pixel file beside {hdr.name}")


def _integer(hdr: Path, header: dict[str, Any], key: str) -> int:
    text = str(header.get(key, "0" if key == "header offset" else "none"))
    with suppress(ValueError):
        if (value := int(text)) >= (key != "header offset"):
            return value
    raise ValueError(f"{hdr}: {key} = {text} is not a usable number; mend the header")


def _ignored(hdr: Path, header: dict[str, Any]) -> float | None:
    text = str(header.get("data ignore value", "nan"))
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{hdr}: data ignore value {text!r} is not a number") from None
    return None if np.isnan(value) else value


def _numbers(
    hdr: Path, header: dict[str, Any], key: str, channels: int, default: float | None = None
) -> NDArray[np.float64]:
    """Read one number per channel."""
    if key not in header:
        if default is None:
            raise ValueError(f"{hdr}: no {key} field; add one number per channel to the header")
        return np.full(channels, default)
    try:
        values = np.array(header[key], dtype=np.float64)
    except ValueError:
        raise ValueError(f"{hdr}: {key} holds something that is not a number") from None
    if values.shape != (channels,) or not np.isfinite(values).all():
        raise ValueError(f"{hdr}: {key} must hold {channels} finite numbers, one per channel")
    return values


def _wavelengths(hdr: Path, header: dict[str, Any], channels: int) -> NDArray[np.float64]:
    values = _numbers(hdr, header, "wavelength", channels)
    unit = str(header.get("wavelength units", "")).strip().lower()
    if unit not in _NM_PER_UNIT:
        raise ValueError(
            f"{hdr}: wavelength units {unit or 'missing'!r}; must be Nanometers or Micrometers"
        )
    if (np.diff(values) <= 0).any():
        raise ValueError(f"{hdr}: wavelengths do not increase; sort the channels")
    values = values * _NM_PER_UNIT[unit]
    if values[0] < 100 or values[-1] > 1e5:
        raise ValueError(
            f"{hdr}: wavelengths of {values[0]:g} to {values[-1]:g} nm are none of an optical "
            f"sensor; mend wavelength units ({unit})"
        )
    return values


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
    rows, cols, channels = shape
    # The header comes last: without it the pixels are not a scene.
    with replacing(hdr) as new_hdr, replacing(hdr.with_suffix(".img")) as new_img:
        written = 0
        with new_img.open("wb") as file:
            for block in blocks:
                if block.shape[1:] != (cols, channels):
                    raise ValueError(
                        f"{hdr}: block of shape {block.shape}, want (any, {cols}, {channels})"
                    )
                file.write(np.ascontiguousarray(block, dtype="<f4").data)
                written += len(block)
        if written != rows:
            raise ValueError(f"{hdr}: blocks hold {written} rows, the shape says {rows}")
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


_CARRIED = (
    "acquisition time", "coordinate system string", "sensor type", "sun azimuth", "sun elevation"
)  # fmt: skip


def resampled_fields(scene: Scene, scale: int, finer: bool) -> dict[str, object]:
    """Header fields of a scene that was enlarged or degraded by ``scale``.

    The point spread function is centred beside the pixels that it replaces, so the coarse grid
    lies :func:`asnlsr.physics.grid_offset` fine pixels off the fine one. ``map info`` says so.

    Raises
    ------
    ValueError
        If the scene has a ``map info`` that cannot be used.
    """
    fields = {key: scene.header[key] for key in _CARRIED if key in scene.header}
    if "map info" in scene.header:
        fields["map info"] = _map_info(scene, scale, finer)
    return fields


def _map_info(scene: Scene, scale: int, finer: bool) -> list[str]:
    """Move the reference point (column, row; 1 is the outer edge) and change the pixel size."""
    info = list(scene.header["map info"])
    offset = grid_offset(scale)
    try:
        for n in (1, 2):
            edge = float(info[n]) - 1
            edge = edge * scale + offset if finer else (edge - offset) / scale
            info[n] = f"{edge + 1:.10g}"
        for n in (5, 6):
            info[n] = f"{float(info[n]) * (1 / scale if finer else scale):.10g}"
    except (ValueError, IndexError):
        raise ValueError(f"{scene.hdr}: map info is damaged; mend or remove the field") from None
    return info


def check_output(scene: Scene, out: Path) -> None:
    """Refuse a name that is no header's, or under which the scene itself or another lies."""
    if out.suffix != ".hdr":
        raise ValueError(f"{out}: the name of the output must end in .hdr")
    inputs = {scene.hdr.resolve(), scene.img.resolve()}
    if inputs & {out.resolve(), out.with_suffix(".img").resolve()}:
        raise ValueError(f"{out}: would overwrite its own input; choose another --out")
    if (other := out.with_suffix(".img.hdr")).exists():
        raise ValueError(f"{out}: would overwrite the pixels of {other}; choose another --out")
