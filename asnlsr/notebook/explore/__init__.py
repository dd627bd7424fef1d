"""Explorable figures: they compute in the page what their chapters explain.

As with the band browser, one JavaScript module (`explore.js`) does the work, connected to the
kernel by anywidget or written out as HTML for a page without one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from traitlets import Float, Int, List, Unicode

from asnlsr.notebook.browser import Page, script
from asnlsr.physics import FLOOR, SIZE, TOP, gaussian_psf, halo

Array: TypeAlias = NDArray[Any]
Clouds: TypeAlias = tuple[tuple[Array, Array], tuple[Array, Array]]  # to train on, to test on


def pack(array: Array) -> dict[str, Any]:
    """Store an array as 16-bit codes, low + code * step, in base64."""
    low, step = float(array.min()), float(np.ptp(array.astype(float))) / 65535 or 1.0
    codes = np.rint((array - low) / step).astype("<u2").tobytes()
    text = base64.b64encode(codes).decode()
    return {"shape": array.shape, "low": low, "step": step, "codes": text}


class Explorable(Page):
    """A figure whose settings the reader turns, and the kernel can `observe` or set."""

    _esm = script("page") + script("explore", folder=Path(__file__).parent)
    _css = Path(__file__).with_name("explore.css")

    def __init__(self, **data: Any) -> None:  # noqa: ANN401
        limits = {k: [t.min, t.max] for k, t in self.traits().items() if isinstance(t, Float | Int)}
        figure = {"figure": type(self).__name__, "limits": limits}
        super().__init__(content=figure | json.loads(json.dumps(data, default=pack)))


class FiveFaces(Explorable):
    """Five errors of one size, and what the metrics say of them.

    Parameters
    ----------
    truth, blurred : ndarray, shape (bands, H, W)
        z of a crop, and an interpolated estimate of it.
    rgb : sequence of int
        Bands shown as red, green and blue.
    peak : float
        Of PSNR and SSIM.
    size : float
        RMSE (z) of every error at strength 1.
    """

    error = Unicode("blurred").tag(sync=True)
    strength = Float(1.0, min=0.1, max=2.0).tag(sync=True)

    def __init__(
        self, truth: Array, blurred: Array, rgb: list[int], peak: float, size: float
    ) -> None:
        z = {"truth": truth, "blurred": blurred}
        super().__init__(**z, rgb=rgb, peak=peak, size=size, floor=FLOOR, top=TOP)


class Deblurring(Explorable):
    """Richardson-Lucy on one band, and its PSNR after every iteration.

    `width` and `assumed` are factors on the widths of the PSF, `noise` is in per cent of the mean.

    Parameters
    ----------
    radiance : ndarray, shape (H, W)
        True radiance; a border as wide as the :func:`asnlsr.physics.halo` is not shown.
    peak : float
        Of the PSNR, which is that of z.
    scale : int
        r: every r-th pixel of the blurred image is kept.
    """

    width = Float(1.0, min=0.4, max=1.6).tag(sync=True)
    assumed = Float(1.0, min=0.4, max=1.6).tag(sync=True)
    noise = Float(3.0, min=0.0, max=10.0).tag(sync=True)
    iterations = Int(100, min=0, max=200).tag(sync=True)

    def __init__(self, radiance: Array, peak: float, scale: int = 4) -> None:
        psf, place = gaussian_psf(), np.arange(SIZE) - SIZE // 2
        camera = {
            "sigmas": [float(np.sqrt(psf.sum(axis) @ place**2)) for axis in (1, 0)],
            "halo": halo(scale), "taps": SIZE, "scale": scale, "floor": FLOOR, "top": TOP,
        }  # fmt: skip
        super().__init__(radiance=radiance, peak=peak, **camera)


class Triangle(Explorable):
    """Three endmembers to drag in a plane, the abundances of its points and the residual.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        Mixtures, in the plane of the true endmembers.
    shares : ndarray, shape (n, 3)
        Their true abundances.
    true : ndarray, shape (3, 2)
        The true endmembers, where those of the reader (`corners`) start.
    names : list of str
    """

    corners = List(List(Float())).tag(sync=True)

    def __init__(self, points: Array, shares: Array, true: Array, names: list[str]) -> None:
        self.corners = true.tolist()
        super().__init__(points=points, shares=shares, true=self.corners, names=names)


class Adaptation(Explorable):
    """A classifier and a discriminator on one feature of the plane, trained at any gamma.

    Parameters
    ----------
    source : pair of clouds, points (n, 2) and their labels (n,)
        One to train on and one to test on.
    targets : mapping of str to pair of clouds
        By their names; their labels serve the test alone.
    """

    target = Unicode("moved").tag(sync=True)
    gamma = Float(0.0, min=0.0, max=1.0).tag(sync=True)

    def __init__(self, source: Clouds, targets: Mapping[str, Clouds]) -> None:
        super().__init__(source=source, targets=targets)


class Embeddings(Explorable):
    """The same pixels as t-SNE places them with other perplexities, starts and features.

    Parameters
    ----------
    placed : mapping of (features, perplexity, start) to pair of ndarray, (n, 2)
        The points of both domains.
    distances : mapping of str to mapping of str to float
        Of each of the features: its A-distance and the like.
    """

    features = Unicode().tag(sync=True)
    perplexity = Int().tag(sync=True)
    start = Unicode().tag(sync=True)

    def __init__(
        self,
        placed: Mapping[tuple[str, int, str], tuple[Array, Array]],
        distances: Mapping[str, Mapping[str, float]],
    ) -> None:
        self.features, self.perplexity, self.start = next(iter(placed))
        super().__init__(placed=[[*k, *pair] for k, pair in placed.items()], distances=distances)
