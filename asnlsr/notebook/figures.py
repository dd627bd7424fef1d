"""Figures in one style: a colour per meaning, axes with units, images stretched alike."""

from __future__ import annotations

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

from asnlsr.scenes.bands import DOMAINS

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


def architecture() -> Figure:
    """Draw A-SNLSR: its parts, what they hand on, and the three losses."""
    boxes: dict[str, Box] = {
        "lr": (0.64, 0.9, "cube", "LR cube\nof either domain"),
        "G": (1.78, 0.9, "convolution", "encoder G"),
        "a": (2.75, 0.9, "cube", "abundances\n16 materials"),
        "J": (3.83, 0.9, "attention", "super-\nresolution J"),
        "H": (4.78, 0.9, "convolution", "decoder H"),
        "bicubic": (2.75, 0.3, "fixed", "bicubic × 4"),
        "plus": (5.4, 0.9, "sum", "+"),
        "sr": (5.4, 1.5, "cube", "SR cube"),
        "truth": (4.2, 1.5, "loss", "like the truth?\nsource only"),
        "H2": (3.75, 2.15, "convolution", "decoder H"),
        "input": (5.15, 2.15, "loss", "like the input?\nall tiles"),
        "turn": (2.75, 2.8, "fixed", "gradient\nreversal"),
        "D": (3.85, 2.8, "attention", "discriminator D"),
        "domain": (5.15, 2.8, "loss", "which domain?\nall tiles"),
        "same": (0.05, 1.75, "note", "G, J, H serve both domains;\nH holds the endmembers."),
        "game": (0.05, 2.75, "note", "D learns to tell the domains\napart, G to leave no clue."),
    }  # fmt: skip
    chains = ["lr G a J H plus sr truth", "a turn D domain", "H2 input"]
    detours = [("lr", "bicubic", 0.3), ("bicubic", "plus", 0.3), ("a", "H2", 2.15)]
    return diagram(boxes, chains, detours)


def data_flow() -> Figure:
    """Draw the way from a radiance scene to this book, and the command of every step."""
    boxes: dict[str, Box] = {
        "scene": (0.66, 0.25, "cube", "radiance scene\n300 channels"),
        "bins": (1.98, 0.25, "convolution", "Gaussian bins,\nwindows cut"),
        "bands": (3.38, 0.25, "cube", "SWIR1 | SWIR2\n30 | 30 bands"),
        "blur": (4.92, 0.25, "convolution", "blur, and every\n4th pixel"),
        "pairs": (4.92, 1.0, "cube", "tiles, LR and HR"),
        "split": (3.38, 1.0, "fixed", "roles by scene\nor by tile"),
        "train": (1.98, 1.0, "attention", "training"),
        "run": (0.66, 1.0, "cube", "run: weights\nand record"),
        "test": (0.66, 1.75, "attention", "evaluation"),
        "metrics": (1.98, 1.75, "cube", "metrics"),
        "tables": (3.38, 1.75, "fixed", "tables, figures"),
        "book": (4.92, 1.75, "cube", "chapters, this site"),
    }
    commands = {
        "prepare": (2.68, 0.58), "split": (3.18, 1.27), "train": (1.78, 1.27),
        "evaluate": (0.4, 2.02), "table": (3.18, 2.02),
    }  # fmt: skip
    notes = {f"{name}!": (x, y, "note", f"asnlsr {name}") for name, (x, y) in commands.items()}
    return diagram(
        boxes | notes, ["scene bins bands blur pairs split train run test metrics tables book"]
    )
