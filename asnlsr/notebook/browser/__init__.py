"""The band browser: a hyperspectral cube to touch, in JupyterLab and in a static page.

JavaScript does the work: `cube.js` the numbers, `drawing.js` the pictures, `browser.js` the panel,
on `page.js`, which the explorable figures share; joined to one module. In JupyterLab anywidget
connects it to the kernel; for a page without a kernel the same module and its content are written
out as HTML.
"""

from __future__ import annotations

import base64
import json
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
import xarray as xr
from anywidget.widget import AnyWidget
from numpy.typing import ArrayLike, NDArray
from traitlets import Dict, Int, List, Unicode

from asnlsr.scenes.bands import DOMAINS, FALSE_COLOUR_NM, BinnedScene
from asnlsr.scenes.envi import Scene, open_scene
from asnlsr.scenes.header import nanometres

Cube: TypeAlias = NDArray[np.floating] | xr.DataArray | Path | str
Cubes: TypeAlias = Cube | Mapping[str, Cube]
Read: TypeAlias = tuple[NDArray[Any], Any, dict[str, Any]]  # values, band centres (nm), units
HERE = Path(__file__).parent
LARGEST = 256  # pixels along the longer side of a scene that is given by its path
MAPS = ("cividis", "viridis", "gray", "RdBu_r")  # readable for colour-blind readers
NO_DATA, FILL = -9999, 9e36  # no data by custom; what netCDF fills with is above the second
PRESETS_NM = {DOMAINS[name].title: nm for name, nm in FALSE_COLOUR_NM.items()}
PRESETS_NM["both domains"] = (2200.0, 1650.0, 1050.0)  # the last one is shown first
TWIN = """<style>{css}</style>
<div id="{name}"></div>
<script type="module">{js}
render({{ model: standIn({state}), el: document.getElementById("{name}") }});</script>"""


def encode(cubes: list[NDArray[np.floating]]) -> dict[str, Any]:
    """Store values in 8 bits: finely near the median of a band, coarsely far above it.

    A value becomes the code q whose knee sinh(low + q step) is nearest in asinh, with the median
    of |values| of the band as knee: linear around zero, logarithmic for glints of the sun. What
    is NaN has the code 255, and the other values share the codes below.

    Parameters
    ----------
    cubes : list of ndarray, shape (bands, any, any)

    Returns
    -------
    dict
        `codes`: (bands, pixels of all cubes), each band less the one before, deflated;
        `knee`, `low`, `step`: one float per band; `masked`: whether the code 255 is NaN.
    """
    values = np.concatenate([cube.reshape(len(cube), -1) for cube in cubes], axis=1, dtype=float)
    tiny = np.finfo(np.float32).tiny
    masked = np.ma.masked_invalid(values)
    middle = np.ma.median(abs(masked), axis=1, keepdims=True)  # type: ignore[no-untyped-call]
    knee = np.maximum(np.ma.filled(middle, 0), tiny)
    warped = np.arcsinh(masked / knee)
    low = warped.min(axis=1, keepdims=True).filled(0)
    last = 254 if masked.count() < masked.size else 255
    step = np.maximum((warped.max(axis=1, keepdims=True).filled(0) - low) / last, tiny)
    codes = np.rint((warped - low) / step).filled(255).astype(np.uint8)
    # A band is much like the one before: the differences pack to about half. They wrap at 256.
    packed = zlib.compress(np.diff(codes, axis=0, prepend=np.zeros_like(codes[:1])).tobytes(), 9)
    numbers = {"knee": knee, "low": low, "step": step}
    found = {name: n.ravel().tolist() for name, n in numbers.items()}
    return {"codes": packed, "masked": last == 254} | found


def _values(cube: Cube, wavelength_nm: ArrayLike | None) -> Read:
    """Return the values (bands, rows, cols) of a cube, its band centres (nm), and its units."""
    said: dict[str, Any] = {}
    if isinstance(cube, str | Path):
        cube = _thinned(open_scene(Path(cube)))
    if isinstance(cube, xr.DataArray):
        cube, found_nm, said = _labelled(cube)
        wavelength_nm = found_nm if wavelength_nm is None else wavelength_nm
    if np.iscomplexobj(cube):
        raise ValueError("complex values have no order to be shown in; pass their absolute values")
    masked: Any = np.ma.asarray(cube, dtype=float)
    values: NDArray[Any] = np.ma.filled(masked, np.nan)
    centres_nm = np.asarray([] if wavelength_nm is None else wavelength_nm, dtype=float)
    if values.ndim != 3 or centres_nm.shape != values.shape[:1]:
        needed = "the browser needs (bands, rows, columns) and one wavelength_nm per band"
        raise ValueError(f"shape {values.shape} with {centres_nm.size} wavelengths: {needed}")
    if not (np.diff(centres_nm, prepend=0) >= 0).all():  # two domains may share their border
        raise ValueError("wavelengths decrease or are no numbers; sort the bands")
    if marked := np.count_nonzero(values == NO_DATA):
        warnings.warn(f"{marked} values are {NO_DATA} and shown as masked", stacklevel=4)
    values = np.where((np.abs(values) < FILL) & (values != NO_DATA), values, np.nan)
    if np.isnan(values).all():
        raise ValueError(f"shape {values.shape} without a finite value; there is nothing to show")
    return values, centres_nm, said


def _thinned(scene: Scene) -> xr.DataArray:
    """Read a scene in the bands of both domains; a pixel without data is NaN."""
    binned = BinnedScene(scene)
    cube = scene.thinned(LARGEST)[..., scene.usable] @ binned.weights.T[scene.usable]
    units = {"units": scene.header["wavelength units"]}
    along = ("band", binned.centres_nm / scene.unit_nm, units)
    attrs = {"units": scene.quantity}
    return xr.DataArray(cube, {"wavelength": along}, ("row", "column", "band"), attrs=attrs)


# How the dimensions of a DataArray may be called, by the letters with which their names begin.
_NAMES = (
    ("band", "wave", "chan", "spec", "lambda"),
    ("y", "row", "line", "lat", "north"),
    ("x", "col", "sample", "lon", "east"),
)


def _labelled(cube: xr.DataArray) -> Read:
    """Read a DataArray by the names of its dimensions, its wavelengths and its attributes."""
    begin = {dim: str(dim).lower() for dim in cube.dims}
    axis = {d: k for d in begin for k, names in enumerate(_NAMES) if begin[d].startswith(names)}
    said, centres_nm = {"unit": cube.attrs.get("units")}, None
    for name, coordinate in cube.coords.items():
        if coordinate.ndim == 1 and str(name).lower().startswith(("wave", "lambda")):
            axis[coordinate.dims[0]] = 0
            said["unit_nm"] = nanometres(coordinate.attrs.get("units", "nm"))
            centres_nm = said["unit_nm"] * coordinate.values
    unnamed = 1.5 if 0 in axis.values() else 0  # rows or columns, or else the bands
    cube = cube.transpose(*sorted(cube.dims, key=lambda dim: axis.get(dim, unnamed)))
    return cube.where(cube != cube.attrs.get("_FillValue", np.nan)).values, centres_nm, said


def script(*names: str, folder: Path = HERE) -> str:
    """Join files of this folder, or of another, to one JavaScript module."""
    return "".join((folder / f"{name}.js").read_text("utf-8") for name in names)


class Page(AnyWidget):
    """A widget whose JavaScript also works in a page without a kernel."""

    content = Dict().tag(sync=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # noqa: ANN401
        """Add the HTML twin to what ipywidgets says about the widget."""
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return data | {"text/html": self.html()}, metadata

    def html(self) -> str:
        """Return the widget as HTML that needs neither a kernel nor a network."""
        own = set(self.trait_names(sync=True)) - set(AnyWidget.class_trait_names())
        state = {name: getattr(self, name) for name in sorted(own) if name[0] != "_"}
        text = json.dumps(state, default=lambda raw: base64.b64encode(raw).decode())
        # No text from a header can end the script: its brackets are written as escapes.
        text = text.replace("<", "\\u003c")
        js = str(self._esm).replace("export default { render };", "")
        return TWIN.format(css=self._css, name=f"page-{self.model_id}", js=js, state=text)


class BandBrowser(Page):
    """Pictures of one cube, or of several of the same place, and spectra of their pixels.

    The kernel can `observe` or set what the reader has chosen: `view` (what the pictures show:
    three, band, ratio, normalised, components or pin, and of several cubes difference, rmse or
    angle), `band`, `rgb` (three bands), `pixel` ([row, col] of the last click), `pins` (all pinned
    pixels), `region` (the rectangle [row, col, row, col] whose mean is drawn, its end excluded),
    `line` (from [row, col to row, col]: the profile) and `extent` (the rectangle that is shown).
    Pixels count on the largest of the cubes. What is empty, and band -1, is left to the page.
    """

    _esm = script("page", "cube", "drawing", "browser")
    _css = HERE / "browser.css"
    view = Unicode("three").tag(sync=True)
    band = Int(-1).tag(sync=True)
    rgb = List(Int()).tag(sync=True)
    pixel = List(Int()).tag(sync=True)
    pins = List(List(Int())).tag(sync=True)
    region = List(Int()).tag(sync=True)
    line = List(Int()).tag(sync=True)
    extent = List(Int()).tag(sync=True)

    def __init__(
        self, cubes: Cubes, wavelength_nm: ArrayLike | None = None, unit: str | None = None
    ) -> None:
        super().__init__()
        self.show(cubes, wavelength_nm, unit)

    def show(
        self, cubes: Cubes, wavelength_nm: ArrayLike | None = None, unit: str | None = None
    ) -> None:
        """Show other cubes in the same place of the page.

        Parameters
        ----------
        cubes : ndarray (bands, rows, cols), DataArray, path of an ENVI header, or mapping of names
            Several cubes have the same bands; the others are compared with the last one.
            Masked, NaN and infinite values, -9999 and the ignore value of a header are hatched
            and count for no scale. The cubes may differ in size, as low and high resolution do.
            A scene given by its path is shown in the 30 + 30 bands of the domains, thinned to
            `LARGEST` pixels a side. A DataArray goes by the names of its dimensions.
        wavelength_nm : array_like, shape (bands,), optional
            Band centres, in rising order; a DataArray may bring them as a coordinate whose name
            begins with "wavelength", in nm unless its attribute `units` says otherwise.
        unit : str, optional
            Quantity and unit of the values, unless a header or an attribute `units` says it.

        Raises
        ------
        ValueError
            If a cube has not three dimensions, no wavelengths, no finite value, complex values, or
            other bands than the rest.
        """
        named = cubes if isinstance(cubes, Mapping) else {"": cubes}
        read = {name: _values(cube, wavelength_nm) for name, cube in named.items()}
        if not read:
            raise ValueError("no cube to show")
        _, centres_nm, said = next(iter(read.values()))
        if any(not np.array_equal(other, centres_nm) for _, other, _ in read.values()):
            raise ValueError(f"the cubes {', '.join(named)} have different bands")
        maps = {name: mpl.colormaps[name](range(256))[:, :3] * 255 for name in MAPS}
        sizes = {name: cube.shape[1:] for name, (cube, _, _) in read.items()}
        content = {
            "wavelength_nm": centres_nm.tolist(),
            "wavelength_unit": "µm" if round(said.get("unit_nm", 1)) == 1000 else "nm",
            "unit": unit or said.get("unit") or "value",
            "cubes": [{"name": name, "rows": r, "cols": c} for name, (r, c) in sizes.items()],
            "cuts": [domain.cut_nm for domain in DOMAINS.values()],
            "presets": PRESETS_NM,
            "maps": {name: stops.round().tolist() for name, stops in maps.items()},
        }
        with self.hold_sync():
            self.view, self.band, self.rgb = "three", -1, []
            self.pins, self.region, self.line, self.extent = [], [], [], []
            self.content = content | encode([cube for cube, _, _ in read.values()])
