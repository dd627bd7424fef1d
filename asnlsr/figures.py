"""Figures in one style: a colour per meaning, axes with units, images stretched alike."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.rcsetup import cycler
from numpy.typing import NDArray

from asnlsr.domains import DOMAINS

# "Vibrant" scheme of Paul Tol (SRON technical note 09-002): distinct for colour-blind readers.
BLUE, RED, ORANGE, TEAL, CYAN, MAGENTA, GREY = (
    "#0077BB", "#CC3311", "#EE7733", "#009988", "#33BBEE", "#EE3377", "#888888"
)  # fmt: skip
DOMAIN_COLOUR = {"swir1": BLUE, "swir2": RED}
WIDTH = 5.8  # inches: letters stay readable when a phone shows the figure at half its size
RADIANCE_LABEL = "radiance (W m$^{-2}$ sr$^{-1}$ nm$^{-1}$)"

# Faces of the boxes of `diagram`; `sum` is drawn as a circle, `note` as bare text.
BOX_COLOUR = {
    "cube": "white",
    "convolution": "#CCEEFF",
    "attention": "#FFDDBB",
    "enlargement": "#BBE5DF",
    "fixed": "#E6E6E6",
    "loss": "#FFCCCC",
    "sum": "white",
    "note": "none",
}
ARROW = {"arrowstyle": "-|>", "mutation_scale": 7, "lw": 0.8, "shrinkA": 0, "shrinkB": 0, "fc": "k"}
Box = tuple[float, float, str, str]  # x and y of the centre (inches, y downwards), kind, text

# Wavelengths (nm) shown as red, green and blue. The eye sees none of them: a stand-in for RGB.
FALSE_COLOUR_NM = {"swir1": (1650.0, 1250.0, 1050.0), "swir2": (2300.0, 2100.0, 1750.0)}


def use_style() -> None:
    """Set fonts, sizes and the colour cycle for all figures that follow."""
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.2),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=[BLUE, RED, TEAL, ORANGE, MAGENTA, CYAN, GREY]),
            "image.interpolation": "nearest",
            "legend.frameon": False,
            "legend.fontsize": 9,
            "lines.linewidth": 1.4,
        }
    )


def false_colour(
    cube: NDArray[np.floating],
    wavelength_nm: NDArray[np.floating],
    domain: str,
    like: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Three bands of a domain as a picture.

    Parameters
    ----------
    cube : ndarray, shape (bands, H, W)
    wavelength_nm : ndarray, shape (bands,)
        Band centres; the ones nearest to `FALSE_COLOUR_NM` are shown.
    domain : {"swir1", "swir2"}
    like : ndarray, shape (bands, any, any), optional
        Cube whose 1st and 99th percentiles become black and white, so that several pictures
        compare; by default `cube` itself.

    Returns
    -------
    ndarray, shape (H, W, 3)
        In 0..1.
    """
    bands = [np.abs(wavelength_nm - nm).argmin() for nm in FALSE_COLOUR_NM[domain]]
    reference = cube if like is None else like
    low, high = np.percentile(reference[bands], (1, 99), axis=(1, 2))
    span = np.maximum(high - low, np.finfo(float).tiny)  # a constant band is shown black
    stretched = (np.moveaxis(cube[bands], 0, -1) - low) / span
    return np.asarray(stretched.clip(0, 1), dtype=np.float64)


def panel(
    images: Sequence[NDArray[np.floating]],
    titles: Sequence[str],
    columns: int | None = None,
    label: str | None = None,
) -> Figure:
    """Images side by side, without axes.

    Parameters
    ----------
    images : sequence of ndarray, shape (H, W, 3) or (H, W)
        Pictures, or maps of a quantity.
    titles : sequence of str
    columns : int, optional
        Images in a row; by default all.
    label : str, optional
        Quantity and unit of the maps: gives them one scale, from 0, and a colour bar.
    """
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    height = WIDTH / columns * images[0].shape[0] / images[0].shape[1] + 0.3
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * height), squeeze=False)
    maps = [image for image in images if image.ndim == 2]
    top = max((float(image.max()) for image in maps), default=1.0)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        shown = ax.imshow(image, cmap="viridis", vmin=0, vmax=top)
        ax.set_title(title)
    if label is not None:
        figure.colorbar(shown, ax=axes, label=label, shrink=0.8)
    return figure


def mark_domains(ax: Axes) -> None:
    """Shade both domains along a wavelength axis (nm), and hatch what is cut out of them."""
    for domain in DOMAINS.values():
        colour = DOMAIN_COLOUR[domain.name]
        ax.axvspan(domain.low_nm, domain.high_nm, color=colour, alpha=0.08, lw=0)
        ax.axvspan(*domain.cut_nm, facecolor="none", edgecolor=GREY, hatch="///", lw=0, alpha=0.6)
        beside = (domain.cut_nm[1] + domain.high_nm) / 2  # where neither hatch nor much light is
        ax.annotate(
            domain.title, (beside, 0.97), xycoords=ax.get_xaxis_transform(),
            color=colour, ha="center", va="top",
        )  # fmt: skip
    ax.set(xlabel="wavelength (nm)", xlim=(1000, 2500))


def domain_contours(ax: Axes, source: NDArray[np.floating], target: NDArray[np.floating]) -> None:
    """Draw points of both domains, (n, 2) and (m, 2), with filled contours of their density."""
    for (name, domain), points in zip(DOMAINS.items(), (source, target), strict=True):
        colour = DOMAIN_COLOUR[name]
        x, y = points.T
        seaborn.kdeplot(x=x, y=y, ax=ax, color=colour, fill=True, levels=6, thresh=0.1, alpha=0.4)
        ax.scatter(x, y, s=3, color=colour, lw=0, label=domain.title)
    ax.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])


def _half_size(box: Box) -> tuple[float, float]:
    """Half the width and half the height (inches) that the text of a box asks for."""
    if box[2] == "sum":
        return 0.09, 0.09
    lines = box[3].split("\n")
    return 0.035 * max(map(len, lines)) + 0.06, 0.07 * len(lines) + 0.04


def _edge(box: Box, toward: Sequence[float]) -> tuple[float, float]:
    """Return where the line from the centre of a box to a point leaves the box."""
    x, y = box[:2]
    dx, dy = toward[0] - x, toward[1] - y
    reach = min(half / abs(d) for half, d in zip(_half_size(box), (dx, dy), strict=True) if d)
    return x + reach * dx, y + reach * dy


def diagram(
    boxes: Mapping[str, Box],
    chains: Sequence[str],
    detours: Sequence[tuple[str, str, float]] = (),
) -> Figure:
    """Draw how data flow through a network.

    Parameters
    ----------
    boxes : mapping
        Name to (x, y, kind, text): the centre in inches, x in 0..`WIDTH` and y downwards from 0;
        a kind of `BOX_COLOUR`. The text of a `note` begins at x.
    chains : sequence of str
        Names joined by blanks: an arrow from each to the next.
    detours : sequence of (str, str, float)
        Two names, and the y of the line on which an arrow goes around what lies between them.
    """
    bottoms = [box[1] + _half_size(box)[1] for box in boxes.values()]
    height = max(bottoms + [level for *_, level in detours]) + 0.06
    figure = plt.figure(figsize=(WIDTH, height), layout="none")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    ax.set_axis_off()
    for x, y, kind, text in boxes.values():
        half_x, half_y = _half_size((x, y, kind, text))
        corner = half_x if kind == "sum" else 0.04
        style = f"round,pad=0,rounding_size={corner}"
        frame = FancyBboxPatch((x - half_x, y - half_y), 2 * half_x, 2 * half_y, boxstyle=style)
        frame.set(facecolor=BOX_COLOUR[kind], edgecolor="black", lw=0.8, visible=kind != "note")
        ax.add_patch(frame)
        side = "left" if kind == "note" else "center"
        ax.text(x, y, text, ha=side, va="center", fontsize=8, linespacing=1.05)
    lines = [(a, b, None) for chain in chains for a, b in pairwise(chain.split())]
    for start, end, level in (*lines, *detours):
        ends = [boxes[name][:2] for name in (start, end)]
        around = [] if level is None else [(x, level) for x, _ in ends]
        inner = [point for point in around if point not in ends]
        first = _edge(boxes[start], (*inner, ends[1])[0])
        last = _edge(boxes[end], (ends[0], *inner)[-1])
        ax.plot(*zip(first, *inner, strict=True), color="black", lw=0.8)
        ax.annotate("", last, (first, *inner)[-1], arrowprops=ARROW)
    return figure
