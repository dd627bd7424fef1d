"""The band browser: a hyperspectral cube to touch, in JupyterLab and in a static page.

One JavaScript module (`widgets.js`) does the work. In JupyterLab anywidget connects it to the
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
import traitlets
import xarray as xr
from anywidget.widget import AnyWidget
from numpy.typing import ArrayLike, NDArray

from asnlsr.binning import BinnedScene
from asnlsr.domains import DOMAINS
from asnlsr.figures import FALSE_COLOUR_NM
from asnlsr.scenes import open_scene

Cube: TypeAlias = NDArray[np.floating] | xr.DataArray | Path | str
LARGEST = 256  # pixels along the longer side of a scene that is given by its path
MAPS = ("cividis", "viridis", "gray")  # readable for colour-blind readers
_TWIN = """<style>{css}</style>
<div id="{name}"></div>
<script type="module">{js}
render({{ model: standIn({state}), el: document.getElementById("{name}") }});</script>"""


def encode(cubes: list[NDArray[np.floating]]) -> dict[str, Any]:
    """Store values in 8 bits, finely near the median of a band and coarsely far above it.

    A value v of a band becomes the nearest code q with v = knee sinh(low + q step): linear
    around zero, logarithmic for sun glints. `knee` is the median of |v| over the band. What a
    code stands for is off by at most `step / 2` in the argument of sinh.

    Parameters
    ----------
    cubes : list of ndarray, shape (bands, any, any)

    Returns
    -------
    dict
        `codes`: (bands, pixels of all cubes), each band less the one before, deflated;
        `knee`, `low`, `step`: one float per band.
    """
    values = np.concatenate([cube.reshape(len(cube), -1) for cube in cubes], axis=1, dtype=float)
    tiny = np.finfo(np.float32).tiny
    knee = np.maximum(np.median(np.abs(values), axis=1, keepdims=True), tiny)
    warped = np.arcsinh(values / knee)
    low = warped.min(axis=1, keepdims=True)
    step = np.maximum((warped.max(axis=1, keepdims=True) - low) / 255, tiny)
    codes = np.rint((warped - low) / step).astype(np.uint8)
    # A band is much like the one before: the differences pack to about half. They wrap at 256.
    packed = zlib.compress(np.diff(codes, axis=0, prepend=np.zeros_like(codes[:1])).tobytes())
    numbers = {"knee": knee, "low": low, "step": step}
    return {"codes": packed} | {name: n.ravel().tolist() for name, n in numbers.items()}


def _values(cube: Cube, wavelength_nm: ArrayLike | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the values (bands, rows, cols) of a cube and its band centres (nm)."""
    if isinstance(cube, str | Path):
        reader = BinnedScene(scene := open_scene(Path(cube)))
        thin = -(-max(scene.rows, scene.cols) // LARGEST)
        lines = [reader.read_rows(r, r + 1)[..., ::thin] for r in range(0, scene.rows, thin)]
        return np.concatenate(lines, axis=1), reader.centres_nm
    if wavelength_nm is None and isinstance(cube, xr.DataArray) and "wavelength_nm" in cube.coords:
        wavelength_nm = cube["wavelength_nm"]
    values = np.asarray(cube)
    centres_nm = np.asarray([] if wavelength_nm is None else wavelength_nm, dtype=float)
    if values.ndim != 3 or centres_nm.shape != values.shape[:1]:
        raise ValueError(
            f"a cube of shape {values.shape} with {centres_nm.size} wavelengths: the browser "
            "needs (bands, rows, columns) and one wavelength_nm per band"
        )
    if (bad := values.size - np.count_nonzero(np.isfinite(values))) > 0:
        raise ValueError(f"the cube holds {bad} values that are NaN or infinite: mask them first")
    return values, centres_nm


def _presets(centres_nm: NDArray[Any]) -> list[dict[str, Any]]:
    """Name the false colours that the bands can show, and the bands nearest to them."""
    triples = {DOMAINS[name].title: nm for name, nm in FALSE_COLOUR_NM.items()}
    triples["both domains"] = (2200.0, 1650.0, 1050.0)
    covered = {
        name: nm
        for name, nm in triples.items()
        if centres_nm.min() < min(nm) + 60 and centres_nm.max() > max(nm) - 60
    } or {"first, middle, last": (centres_nm[-1], np.median(centres_nm), centres_nm[0])}
    return [
        {"name": name, "bands": [int(np.abs(centres_nm - each).argmin()) for each in nm]}
        for name, nm in covered.items()
    ]


class BandBrowser(AnyWidget):
    """Pictures of one cube, or of several of the same place, and spectra of their pixels.

    Parameters
    ----------
    cubes : ndarray (bands, rows, cols), DataArray, path of an ENVI header, or mapping of names
        Several cubes share their bands; the last one is the reference of the angle map, and
        they may differ in size, as low and high resolution do. A scene given by its path is
        shown in the 30 + 30 bands of the domains, thinned to `LARGEST` pixels a side.
    wavelength_nm : array_like, shape (bands,), optional
        Band centres, increasing; a DataArray may bring them as a coordinate of that name.
    unit : str
        Quantity and unit of the values.

    Attributes
    ----------
    band, rgb, pixel, pins, region
        What the reader has chosen, for the kernel to `observe` or to set: a band, three bands,
        [row, col] of the last click, all pinned pixels, and the part that is shown,
        [row, col, row, col]. Pixels count on the largest of the cubes.

    Raises
    ------
    ValueError
        If a cube has not three dimensions, no wavelengths, NaN, or other bands than the rest.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")
    content = traitlets.Dict().tag(sync=True)
    band = traitlets.Int(0).tag(sync=True)
    rgb = traitlets.List(traitlets.Int()).tag(sync=True)
    pixel = traitlets.List(traitlets.Int()).tag(sync=True)
    pins = traitlets.List(traitlets.List(traitlets.Int())).tag(sync=True)
    region = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(
        self,
        cubes: Cube | Mapping[str, Cube],
        wavelength_nm: ArrayLike | None = None,
        unit: str = "value",
        **traits: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        self.show(cubes, wavelength_nm, unit)
        for name, value in traits.items():
            self.set_trait(name, value)

    def show(
        self,
        cubes: Cube | Mapping[str, Cube],
        wavelength_nm: ArrayLike | None = None,
        unit: str = "value",
    ) -> None:
        """Show other cubes in the same place; for the parameters see the class."""
        named = cubes if isinstance(cubes, Mapping) else {"": cubes}
        read = {name: _values(cube, wavelength_nm) for name, cube in named.items()}
        centres_nm = [centres for _, centres in read.values()]
        if any(not np.array_equal(other, centres_nm[0]) for other in centres_nm):
            raise ValueError(f"the cubes {', '.join(named)} have different bands")
        shapes = {name: cube.shape[1:] for name, (cube, _) in read.items()}
        rows, cols = max(shapes.values())
        presets = _presets(centres_nm[0])
        maps = {name: mpl.colormaps[name](np.linspace(0, 1, 17)) for name in MAPS}
        content = {
            "wavelength_nm": centres_nm[0].tolist(),
            "unit": unit,
            "cubes": [{"name": n, "rows": r, "cols": c} for n, (r, c) in shapes.items()],
            "cuts": [domain.cut_nm for domain in DOMAINS.values()],
            "presets": presets,
            "maps": {n: (255 * stops[:, :3]).round().tolist() for n, stops in maps.items()},
        } | encode([cube for cube, _ in read.values()])
        with self.hold_sync():
            self.band, self.rgb = presets[0]["bands"][0], presets[0]["bands"]
            self.pixel, self.pins = [], [[rows // 2, cols // 2]]
            self.region = [0, 0, rows, cols]
            self.content = content

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # noqa: ANN401
        """Add the HTML twin to what ipywidgets says about the widget."""
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return data | {"text/html": self.html()}, metadata

    def html(self) -> str:
        """Return the browser as HTML that needs neither a kernel nor a network."""
        names = ("content", "band", "rgb", "pixel", "pins", "region")
        state = {name: getattr(self, name) for name in names}
        codes = base64.b64encode(self.content["codes"]).decode()
        state["content"] = self.content | {"codes": codes}
        # No text from a header can end the script: its brackets are written as escapes.
        text = json.dumps(state).replace("<", "\\u003c")
        js = str(self._esm).replace("export default { render };", "")
        return _TWIN.format(css=self._css, name=f"browser-{self.model_id}", js=js, state=text)
