"""Scenes in ENVI files: read by blocks of rows, written atomically."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from asnlsr.files import fault, naming, replacing
from asnlsr.scenes.header import INTERLEAVES, RADIANCE, Header

# What a file of pixels may be called after the name of its header.
_OTHERS = (".img", ".dat", ".raw", ".bin", ".hyspex", ".rad", ".rdn", ".rfl", ".cube")
_SUFFIXES = ("", *_OTHERS, *(f".{name}" for name in INTERLEAVES))

# Axes of (row, column, channel) in the order in which a file runs through them.
_ORDER = {"bil": (0, 2, 1), "bip": (0, 1, 2), "bsq": (2, 0, 1)}
# The name of a field, and the brace or the words with which its value begins.
_FIELD = re.compile(r"^[ \t]*([^;={}\s][^={}\n]*?)[ \t]*=(?:\s*(\{)|([^\n]*))", re.MULTILINE)


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
            Radiance or reflectance, NaN where there is no data; of BIL and BSQ files a
            transposed view.
        """
        order = _ORDER[self.interleave]
        shape = [(r1 - r0, self.cols, self.channels)[axis] for axis in order]
        stored = np.empty(shape, self.dtype)
        # A BSQ file holds a picture of each channel, another one of all channels.
        pictures = stored if self.interleave == "bsq" else stored[None]
        line = self.cols * self.channels // len(pictures)
        with self.img.open("rb") as file:
            for n, picture in enumerate(pictures):
                file.seek(self.start + (n * self.rows + r0) * line * self.dtype.itemsize)
                file.readinto(picture.data)
        stored = stored.transpose(np.argsort(order))
        radiance = stored.astype(np.float32, copy=False)
        if not math.isnan(self.ignored):
            exact = self.dtype.type(self.ignored) if self.dtype.kind == "f" else self.ignored
            radiance = np.where(stored == exact, np.float32(np.nan), radiance)
        if (self.gain != 1).any():
            radiance = radiance * self.gain.astype(np.float32)
        return radiance + self.offset.astype(np.float32) if self.offset.any() else radiance

    def thinned(self, most: int) -> NDArray[np.float32]:
        """Read every n-th pixel of every n-th row, at most so many a side, as `read_rows` does."""
        step = -(-max(self.rows, self.cols) // most)
        lines = [self.read_rows(row, row + 1)[0, ::step] for row in range(0, self.rows, step)]
        return np.stack(lines)


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
    try:
        header = _read_fields(hdr)
        img = _pixels_of(hdr, str(header.get("interleave", "")).lower())
        scene = Scene.model_validate(header | {"hdr": hdr, "img": img, "header": header})
    except ValidationError as error:
        raise ValueError(f"{hdr}: {fault(error)}; mend the header") from None
    count = scene.rows * scene.cols * scene.channels
    expected = scene.start + count * scene.dtype.itemsize
    if (size := img.stat().st_size) != expected:
        said = f"{hdr.name} describes {expected}; copy it again or mend the header"
        raise ValueError(f"{img}: {size} bytes, but {said}")
    return scene


def _read_fields(hdr: Path) -> dict[str, Any]:
    """Return all fields of an ENVI header as text, those in braces as lists of it."""
    if not hdr.is_file():
        raise FileNotFoundError(f"{hdr}: no such header file; give the path of the .hdr")
    with hdr.open("rb") as file:
        head = file.read(4096)
        if not _decoded(head).lstrip().upper().startswith("ENVI"):
            raise ValueError(f"{hdr}: not an ENVI header; give the .hdr of the scene")
        text = _decoded(head + file.read())
    header: dict[str, Any] = {}
    place = 0
    while match := _FIELD.search(text, place):
        key, place = " ".join(match[1].lower().split()), match.end()
        value: str | list[str] = (match[3] or "").partition(";")[0].strip(" \t,")
        if match[2]:
            place = _closing(text, place, f"{hdr}: {key}")
            value = text[match.end() : place].strip()
            if key != "description":
                items = re.sub(r";[^\n]*", "", value).rstrip(", \t\n").split(",")
                value = [item.strip() for item in items]
        if header.setdefault(key, value) != value:
            raise ValueError(f"{hdr}: {key} stands there twice; remove the wrong one")
    return header


def _decoded(raw: bytes) -> str:
    """Return the text of a header: UTF-16 if it says so, UTF-8 if it can be, else Latin-1."""
    try:
        utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _closing(text: str, start: int, field: str) -> int:
    """Return where the brace is that closes the one before `start`."""
    depth = 1
    for brace in re.compile("[{}]").finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return brace.start()
    raise ValueError(f"{field}: its brace is not closed; is the header cut off?")


def _candidates(hdr: Path) -> list[Path]:
    """List the files that a header may describe, in any case, without those of other headers."""
    names = {(hdr.stem + suffix).casefold() for suffix in _SUFFIXES}
    beside = [path for path in hdr.parent.iterdir() if path != hdr and path.is_file()]
    others = {path.name.casefold() for path in beside}
    found = [
        path
        for path in beside
        if (name := path.name.casefold()) in names
        and (name == hdr.stem.casefold() or name + ".hdr" not in others)
    ]
    same_case = [path for path in found if path.name.startswith(hdr.stem)]
    return sorted(same_case or found)


def _pixels_of(hdr: Path, interleave: str) -> Path:
    """Find the file of pixels: X of X.hdr, X.bsq for interleave bsq, or the one of another name."""
    suffixes = {path: path.name[len(hdr.stem) + 1 :].lower() for path in _candidates(hdr)}
    rest = set(suffixes.values()) - {"", *INTERLEAVES}
    for wanted in ({""}, {interleave}, rest):
        found = [path for path, suffix in suffixes.items() if suffix in wanted]
        if len(found) > 1:
            names = " or ".join(path.name for path in found)
            raise ValueError(f"{hdr}: does it describe {names}? Rename it to that and .hdr")
        if found:
            return found[0]
    others = "".join(f"; {path.name} is not {interleave}" for path in suffixes)
    raise FileNotFoundError(f"{hdr.with_suffix('.img')}: no pixel file of this {hdr.name}{others}")


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
    img = hdr.with_suffix(".img")
    with replacing(img) as new_img, replacing(hdr) as new_hdr:
        with naming(img), new_img.open("wb") as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block, dtype="<f4").data)
            written = file.tell()
        if written != 4 * math.prod(shape):
            raise ValueError(f"{hdr}: blocks hold {written // 4} values, {shape} asked for")
        write_header(new_hdr, shape, wavelength_nm, **fields)
        img.unlink(missing_ok=True)  # never beside a header that is not theirs


def write_header(
    path: Path, shape: tuple[int, int, int], wavelength_nm: ArrayLike, **fields: object
) -> None:
    """Write the header that goes with float32 pixels in BIP order; see :func:`write_scene`."""
    rows, cols, channels = shape
    header = {
        "description": RADIANCE,
        "samples": cols, "lines": rows, "bands": channels, "header offset": 0,
        "file type": "ENVI Standard", "data type": 4, "interleave": "bip", "byte order": 0,
        "asnlsr bytes": 4 * math.prod(shape),  # see `asnlsr.files.ours`
        "wavelength units": "Nanometers",
        "wavelength": [f"{value:.10g}" for value in np.asarray(wavelength_nm, dtype=np.float64)],
    } | {key.replace("_", " "): value for key, value in fields.items()}  # fmt: skip
    lines = [f"{key} = {_written(key, value)}\n" for key, value in header.items()]
    path.write_text("".join(["ENVI\n", *lines]), encoding="utf-8", errors="replace")


def _written(key: str, value: object) -> str:
    """Write the value of a field so that it is read back as it is."""
    if isinstance(value, str):
        text = " ".join(value.split())
        if key == "description":
            text = "{" + text.replace("{", "(").replace("}", ")") + "}"
        return text
    return "{ " + " , ".join(map(str, value)) + " }" if isinstance(value, Iterable) else str(value)


def check_output(scene: Scene, out: Path) -> None:
    """Refuse a name that is no header's, or under which the scene itself or another lies."""
    if out.suffix != ".hdr":
        raise ValueError(f"{out}: the name of the output must end in .hdr")
    img = out.with_suffix(".img")
    if {scene.hdr.resolve(), scene.img.resolve()} & {out.resolve(), img.resolve()}:
        raise ValueError(f"{out}: would overwrite its own input; choose another --out")
    if (other := out.with_suffix(".img.hdr")).exists():
        raise ValueError(f"{out}: would overwrite the pixels of {other}; choose another --out")
    taken = [path for path in _candidates(out) if path != img] if out.parent.is_dir() else []
    if taken:
        raise ValueError(f"{out}: would describe {taken[0]} too; choose another --out")
