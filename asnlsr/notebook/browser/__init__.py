"""The band browser: a hyperspectral cube to touch, in JupyterLab and in a static page.

One JavaScript module (`browser.js`) does the work. In JupyterLab anywidget connects it to the
kernel; for a page without a kernel the same module and its content are written out as HTML.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
import xarray as xr
from anywidget.widget import AnyWidget
from numpy.typing import ArrayLike, NDArray
from traitlets import Dict, Int, List

from asnlsr.scenes.bands import DOMAINS, FALSE_COLOUR_NM, BinnedScene
from asnlsr.scenes.envi import open_scene

Cube: TypeAlias = NDArray[np.floating] | xr.DataArray | Path | str
Cubes: TypeAlias = Cube | Mapping[str, Cube]
LARGEST = 256  # pixels along the longer side of a scene that is given by its path
MAPS = ("cividis", "viridis", "gray")  # readable for colour-blind readers
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


def _values(cube: Cube, wavelength_nm: ArrayLike | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the values (bands, rows, cols) of a cube and its band centres (nm)."""
    if isinstance(cube, str | Path):
        reader = BinnedScene(scene := open_scene(Path(cube)))
        thin = -(-max(scene.rows, scene.cols) // LARGEST)
        lines = [reader.read_rows(r, r + 1)[..., ::thin] for r in range(0, scene.rows, thin)]
        return np.concatenate(lines, axis=1), reader.centres_nm
    if isinstance(cube, xr.DataArray):
        if wavelength_nm is None:
            wavelength_nm = cube.coords.get("wavelength_nm")
        cube = _in_order(cube)
    masked: Any = np.ma.asarray(cube, dtype=float)
    values: NDArray[Any] = np.ma.filled(masked, np.nan)
    centres_nm = np.asarray([] if wavelength_nm is None else wavelength_nm, dtype=float)
    if values.ndim != 3 or centres_nm.shape != values.shape[:1]:
        raise ValueError(
            f"a cube of shape {values.shape} with {centres_nm.size} wavelengths: the browser "
            "needs (bands, rows, columns) and one wavelength_nm per band"
        )
    return np.where(np.isfinite(values), values, np.nan), centres_nm


# How the dimensions of a DataArray may be called, by the letters with which their names begin.
_NAMES = (
    ("band", "wave", "chan", "spec", "lambda"),
    ("y", "row", "line", "lat", "north"),
    ("x", "col", "sample", "lon", "east"),
)


def _in_order(cube: xr.DataArray) -> xr.DataArray:
    """Bring dimensions that say what they are into the order bands, rows, columns."""
    found = [
        next((d for d in cube.dims if str(d).lower().startswith(names)), None) for names in _NAMES
    ]
    if "wavelength_nm" in cube.coords and cube.coords["wavelength_nm"].ndim == 1:
        found[0] = cube.coords["wavelength_nm"].dims[0]
    rest = iter([dim for dim in cube.dims if dim not in found])
    order = [next(rest, None) if dim is None else dim for dim in found]
    return cube.transpose(*order) if set(order) == set(cube.dims) else cube


def _presets(centres_nm: NDArray[Any]) -> list[dict[str, Any]]:
    """Name the false colours that the bands can show, and the bands nearest to them."""
    triples = {DOMAINS[name].title: nm for name, nm in FALSE_COLOUR_NM.items()}
    triples["both domains"] = (2200.0, 1650.0, 1050.0)
    away = {n: np.abs(np.subtract.outer(nm, centres_nm)) for n, nm in triples.items()}
    covered = {name: d.argmin(1).tolist() for name, d in away.items() if d.min(1).max() < 60}
    last = len(centres_nm) - 1
    covered = covered or {"first, middle, last": [last, last // 2, 0]}
    return [{"name": name, "bands": bands} for name, bands in covered.items()]


class BandBrowser(AnyWidget):
    """Pictures of one cube, or of several of the same place, and spectra of their pixels.

    The kernel can `observe` or set what the reader has chosen: `band`, `rgb` (three bands),
    `pixel` ([row, col] of the last click), `pins` (all pinned pixels) and `region` (what is
    shown: [row, col, row, col]). Pixels count on the largest of the cubes.
    """

    _esm = Path(__file__).with_name("browser.js")
    _css = Path(__file__).with_name("browser.css")
    content = Dict().tag(sync=True)
    band = Int(0).tag(sync=True)
    rgb = List(Int()).tag(sync=True)
    pixel = List(Int()).tag(sync=True)
    pins = List(List(Int())).tag(sync=True)
    region = List(Int()).tag(sync=True)

    def __init__(
        self, cubes: Cubes, wavelength_nm: ArrayLike | None = None, unit: str = "value"
    ) -> None:
        super().__init__()
        self.show(cubes, wavelength_nm, unit)

    def show(
        self, cubes: Cubes, wavelength_nm: ArrayLike | None = None, unit: str = "value"
    ) -> None:
        """Show other cubes in the same place of the page.

        Parameters
        ----------
        cubes : ndarray (bands, rows, cols), DataArray, path of an ENVI header, or mapping of names
            Several cubes have the same bands; the last one is the reference of the angle map.
            Masked, NaN and infinite values stay transparent and count for no scale.
            They may differ in size, as low and high resolution do. A scene given by its path is
            shown in the 30 + 30 bands of the domains, thinned to `LARGEST` pixels a side.
        wavelength_nm : array_like, shape (bands,), optional
            Band centres, increasing; a DataArray may bring them as a coordinate of that name.
        unit : str
            Quantity and unit of the values.

        Raises
        ------
        ValueError
            If a cube has not three dimensions, no wavelengths, or other bands than the rest.
        """
        named = cubes if isinstance(cubes, Mapping) else {"": cubes}
        read = [_values(cube, wavelength_nm) for cube in named.values()]
        centres_nm = read[0][1]
        if any(not np.array_equal(other, centres_nm) for _, other in read):
            raise ValueError(f"the cubes {', '.join(named)} have different bands")
        shapes = [cube.shape[1:] for cube, _ in read]
        rows, cols = max(shapes)
        presets = _presets(centres_nm)
        maps = {name: mpl.colormaps[name](range(256))[:, :3] * 255 for name in MAPS}
        content = {
            "wavelength_nm": centres_nm.tolist(),
            "unit": unit,
            "cubes": [
                {"name": name, "rows": r, "cols": c}
                for name, (r, c) in zip(named, shapes, strict=True)
            ],
            "cuts": [domain.cut_nm for domain in DOMAINS.values()],
            "presets": presets,
            "maps": {name: stops.round().tolist() for name, stops in maps.items()},
        }
        with self.hold_sync():
            self.band, self.rgb = presets[0]["bands"][0], presets[0]["bands"]
            self.pins = [[rows // 2, cols // 2]]
            self.region = [0, 0, rows, cols]
            self.content = content | encode([cube for cube, _ in read])

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # noqa: ANN401
        """Add the HTML twin to what ipywidgets says about the widget."""
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return data | {"text/html": self.html()}, metadata

    def html(self) -> str:
        """Return the browser as HTML that needs neither a kernel nor a network."""
        codes = base64.b64encode(self.content["codes"]).decode()
        chosen = {name: getattr(self, name) for name in ("band", "rgb", "pixel", "pins", "region")}
        state = json.dumps(chosen | {"content": self.content | {"codes": codes}})
        # No text from a header can end the script: its brackets are written as escapes.
        state = state.replace("<", "\\u003c")
        js = str(self._esm).replace("export default { render };", "")
        return TWIN.format(css=self._css, name=f"browser-{self.model_id}", js=js, state=state)
