"""What an ENVI header says: text to checked fields, and fields to text."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from pydantic import BaseModel, BeforeValidator, Field, model_validator

RADIANCE, REFLECTANCE = "radiance, W m-2 sr-1 nm-1", "reflectance"
INTERLEAVES = ("bil", "bip", "bsq")
_DTYPE_CODES = {"1": "u1", "2": "i2", "3": "i4", "4": "f4", "5": "f8"} | {
    "12": "u2", "13": "u4", "14": "i8", "15": "u8"
}  # fmt: skip
_FILE_TYPES = dict.fromkeys(("envi standard", "envi", ""), "ENVI")

# Units by what they begin with; of a micrometre too: u, µ and what other encodings make of it.
_PREFIX = {"": 1.0, "c": 1e-2, "m": 1e-3, "u": 1e-6, "n": 1e-9} | {
    "centi": 1e-2, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9
}  # fmt: skip
_METRES = r"m(?:et(?:er|re)s?)?"
_WAVELENGTH = re.compile(rf"(n|u|m|c|nano|micro|milli|centi)?{_METRES}|(micro)ns?")
# The parts of a unit of spectral radiance, and their exponents.
_RADIANCE_PARTS = (
    (re.compile(r"^[\s({\[]*(m|u|n|milli|micro|nano)?\s?w(?:atts?)?"), 1),
    (re.compile(rf"(?<![a-z])(c|centi)?{_METRES}(?:\^|\*\*)?[({{]?-?2[)}}]?"), -2),
    (re.compile(r"(?<![a-z])()(?:sr|str|steradians?)(?![a-z])"), 0),
    (re.compile(rf"(?<![a-z])(?:(n|u|nano|micro){_METRES}|(micro)ns?)(?![a-z\d])"), -1),
)
_SEPARATORS = re.compile(r"-?1|per|[\s/()*.,·^{}\[\]]")
# Fields that change what the stored numbers mean or where they stand, however they are called.
_QUANTITY = re.compile(
    r"(?:major|minor) frame offsets?|file compression|"
    r"(?:.*\b(?:data|dn|digital|radiance|reflectance|radiometric|calibration)\b.*)?"
    r"\b(?:gain|offset|bias|unit|factor|multiplier|divisor|quantification|scal(?:e|ing))s?"
    r"(?: factors?| values?)?"
)
_KNOWN = {"data units", "data gain values", "data offset values", "reflectance scale factor"}


def _checked(meaning: Callable[[str], object], allowed: str) -> BeforeValidator:
    """Replace a word of a header by what it means."""

    def look_up(word: object) -> object:
        try:
            return meaning(str(word).strip().lower())
        except (KeyError, ValueError):
            raise ValueError(f"must be {allowed}") from None

    return BeforeValidator(look_up)


def _one_of(meanings: Mapping[str, object]) -> BeforeValidator:
    return _checked(meanings.__getitem__, f"one of {', '.join(meanings)}")


def _array(dtype: DTypeLike) -> BeforeValidator:
    """Turn a list of a header into finite numbers of a type."""

    def convert(values: ArrayLike) -> NDArray[Any]:
        numbers = np.array(values, dtype=np.float64, ndmin=1)
        if not np.isfinite(numbers).all():
            raise ValueError("must be finite numbers")
        return numbers.astype(dtype)

    return BeforeValidator(convert)


def _plain(text: str) -> str:
    """Write units in ASCII where that is possible."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return text.replace("âμ", "u").replace("μ", "u").replace("−", "-")


def nanometres(unit: str) -> float:
    """Return how many nanometres a unit of wavelength is, as headers and files write it."""
    letters = "".join(filter(str.isalpha, _plain(unit)))
    if letters in {"a", "å", "angstrom", "angstroms"}:
        return 0.1
    if (found := _WAVELENGTH.fullmatch(letters)) is None:
        raise ValueError(f"{unit} is no unit of wavelength; use nm or um")
    return _PREFIX[found[1] or found[2] or ""] / 1e-9


def _measured(unit: str) -> tuple[float, str]:
    """Return the factor that brings a quantity to the unit of the second value."""
    rest = _plain(unit)
    if rest in {"radiance", "spectral radiance", "at-sensor radiance"}:
        return 1.0, RADIANCE
    if re.fullmatch(r"(?:[a-z]+[ -])*reflectance", rest):
        return 1.0, REFLECTANCE
    factor = 1e-9  # per metre to per nanometre
    for part, exponent in _RADIANCE_PARTS:
        found = part.search(rest)
        if found is None:
            raise ValueError
        factor *= _PREFIX[next(filter(None, found.groups()), "")] ** exponent
        rest = rest[: found.start()] + rest[found.end() :]
    if _SEPARATORS.sub("", rest):
        raise ValueError
    return float(f"{factor:.12g}"), RADIANCE


def _each(value: float) -> Callable[[dict[str, Any]], NDArray[Any]]:
    """Give every channel a value where the field is absent."""
    return lambda fields: np.full(fields["channels"], value)


_Numbers = Annotated[NDArray[np.float64], _array("f8")]
_Flags = Annotated[NDArray[np.bool_], _array("?")]
_A_RADIANCE = "of radiance, such as W/(m2 sr nm) or uW/(cm2 sr nm), or reflectance"


class Header(BaseModel, arbitrary_types_allowed=True):
    """What an ENVI header says about pixels; an alias is the name of the field in the file."""

    rows: int = Field(alias="lines", gt=0)
    cols: int = Field(alias="samples", gt=0)
    channels: int = Field(alias="bands", gt=0)
    start: int = Field(0, alias="header offset", ge=0)  # byte of the first pixel
    interleave: Annotated[str, _one_of({name: name for name in INTERLEAVES})]
    code: Annotated[str, _one_of(_DTYPE_CODES)] = Field(alias="data type")
    order: Annotated[str, _one_of({"0": "<", "1": ">"})] = Field("<", alias="byte order")
    kind: Annotated[str, _one_of(_FILE_TYPES)] = Field("", alias="file type")
    ignored: float = Field(math.nan, alias="data ignore value")  # as stored; means no data
    unit_nm: Annotated[float, _checked(nanometres, "a length, such as nm or um")] = Field(
        alias="wavelength units"
    )
    # Of every channel; the quantity is (stored * gain + offset), in its unit.
    wavelength_nm: _Numbers = Field(alias="wavelength")
    fwhm_nm: _Numbers | None = Field(None, alias="fwhm")
    usable: _Flags = Field(default_factory=_each(True), alias="bbl")
    gain: _Numbers = Field(default_factory=_each(1.0), alias="data gain values")
    offset: _Numbers = Field(default_factory=_each(0.0), alias="data offset values")
    measured: Annotated[tuple[float, str], _checked(_measured, _A_RADIANCE)] = Field(
        (1.0, RADIANCE), alias="data units"
    )
    divisor: float | None = Field(None, alias="reflectance scale factor", gt=0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _know_all(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Refuse what would change the numbers and is not honoured."""
        for name in filter(_QUANTITY.fullmatch, fields.keys() - _KNOWN):
            neutral = "0" if re.search("offset|bias|compression", name) else "1"
            values = np.atleast_1d(fields[name])
            if not all(re.fullmatch(rf"({neutral}(\.0*)?)?", value) for value in values):
                mend = "changes the stored numbers and is not known here; apply it and remove it"
                raise ValueError(f"{name} = {str(fields[name])[:60]}: {mend}")
        return fields

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        """One number per channel; wavelengths of an optical sensor that increase."""
        for name in ("wavelength_nm", "fwhm_nm", "usable", "gain", "offset"):
            if (found := getattr(self, name)) is not None and found.shape != (self.channels,):
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

    @model_validator(mode="after")
    def _bring_to_unit(self) -> Self:
        """Make gain and offset those of the quantity in its unit."""
        factor, quantity = self.measured
        if self.divisor is not None:
            radiance = "measured" in self.model_fields_set and quantity == RADIANCE
            calibrated = (self.gain != 1).any() or self.offset.any()
            if self.divisor != 1 and (radiance or calibrated):
                other = "data units of radiance" if radiance else "data gain or offset values"
                raise ValueError(f"reflectance scale factor and {other}: remove what is wrong")
            factor, quantity = factor / self.divisor, quantity if radiance else REFLECTANCE
        self.measured = factor, quantity
        self.gain, self.offset = factor * self.gain, factor * self.offset
        return self

    @property
    def quantity(self) -> str:
        """What the values are after gain and offset: `RADIANCE` or `REFLECTANCE`."""
        return self.measured[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers."""
        return np.dtype(self.order + self.code)
