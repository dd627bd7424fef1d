"""Figures in one style: a colour per meaning, axes with units, images stretched alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from asnlsr.scenes.bands import DOMAINS
from asnlsr.scenes.bands import false_colour as false_colour  # for chapters

STYLE = mpl.rc_params_from_file(Path(__file__).with_name("book.mplstyle"), False)
WIDTH = STYLE["figure.figsize"][0]  # inches
BLUE, RED, TEAL, ORANGE, MAGENTA, CYAN, GREY = (c["color"] for c in STYLE["axes.prop_cycle"])
DOMAIN_COLOUR = {"swir1": BLUE, "swir2": RED}
RADIANCE_LABEL = "radiance (W m$^{-2}$ sr$^{-1}$ nm$^{-1}$)"


def use_style() -> None:
    """Set fonts, sizes and the colour cycle for all figures that follow."""
    plt.rcParams.update(STYLE)


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
        ax.axvspan(*domain.cut_nm, facecolor="none", edgecolor=GREY, hatch="///", lw=0, alpha=0.4)
        beside = (domain.cut_nm[1] + domain.high_nm) / 2  # where neither hatch nor much light is
        ax.annotate(
            domain.title, (beside, 0.97), xycoords=ax.get_xaxis_transform(),
            color=colour, ha="center", va="top",
        )  # fmt: skip
    ax.set(xlabel="wavelength (nm)", xlim=(1000, 2500))


def domain_contours(ax: Axes, source: NDArray[np.floating], target: NDArray[np.floating]) -> None:
    """Draw points of both domains, (n, 2) and (m, 2), with filled contours of their density.

    Outside of the contours lie 10, 30, 50, 70 and 90 % of the points.
    """
    from scipy.stats import gaussian_kde  # slow

    for (name, domain), points in zip(DOMAINS.items(), (source, target), strict=True):
        colour = DOMAIN_COLOUR[name]
        density = gaussian_kde(points.T)
        around = 0.2 * np.ptp(points, axis=0)
        edges = np.linspace(points.min(0) - around, points.max(0) + around, 150)
        x, y = np.meshgrid(*edges.T)
        height = density([x.ravel(), y.ravel()]).reshape(x.shape)
        levels = np.quantile(density(points.T), [0.1, 0.3, 0.5, 0.7, 0.9])
        shades = LinearSegmentedColormap.from_list(name, ["white", colour])
        ax.contourf(x, y, height, levels, cmap=shades, alpha=0.4, extend="max")
        ax.scatter(points[:, 0], points[:, 1], s=3, color=colour, lw=0, label=domain.title)
    ax.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])


def gain_strips(ax: Axes, gains: Mapping[str, pd.DataFrame]) -> None:
    """Draw the gain of every tile over bicubic as a dot, and the mean of a domain as a bar.

    Parameters
    ----------
    ax : Axes
    gains : mapping of str to DataFrame
        What stands below a pair of strips, and the gains (dB): a row per tile, a column per domain.
    """
    for place, each in enumerate(gains.values()):
        for side, (name, colour) in zip((-0.15, 0.15), DOMAIN_COLOUR.items(), strict=True):
            middle, mean = place + side, each[name].mean()
            across = middle + np.linspace(-0.05, 0.05, len(each))
            ax.plot(across, each[name], "o", ms=3, color=colour, alpha=0.4, mew=0)
            label = "" if place else DOMAINS[name].title
            ax.hlines(mean, middle - 0.12, middle + 0.12, color=colour, lw=3, label=label)
    ax.axhline(0, color="black", lw=0.5)
    ax.set_xticks(range(len(gains)), list(gains))
    ax.set_ylabel("gain over bicubic (dB)")
    ax.legend()
