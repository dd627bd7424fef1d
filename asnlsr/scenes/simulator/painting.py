"""Painting with materials and light: a canvas, leaves, branches, trees.

A scene is painted from far to near at twice the resolution. Coordinates are canvas pixels, x to
the right, y down, z towards the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

Float = NDArray[np.float64]
Box = tuple[float, float, float, float]  # top, bottom, left, right
SUN = np.array([-0.45, -0.66, 0.60])  # unit vector to the sun: high, left, behind the camera
SHADE = 0.17  # of the direct light: what surroundings in the sun throw into a shadow
GLINT = 100.0  # brightness of a mirror image of the sun, blurred to a pixel, white in the sun = 1

# Material -> spectra of the library (earthlib, names as there). A pixel lies somewhere on the line
# from the first to the last: no two patches of lawn have the same spectrum.
MATERIALS: dict[str, tuple[str, ...]] = {
    "lawn": ("v-LAI-5.0-LMA-0.006", "v-LAI-6.8-LMA-0.013", "Grass_dry.9+.1green"),
    "leaf": ("v-LAI-3.7-LMA-0.005", "v-LAI-3.2-LMA-0.013-CHL-17.2"),
    "needle": ("v-LAI-4.5-LMA-0.010", "v-LAI-3.4-LMA-0.015"),
    "litter": ("deadlodg", "deadfern", "Willow"),
    "bark": ("stmpwood", "ndbnof.004-", "ndbnmm.004-"),
    "soil": ("FS15R_FS4218", "FS21_FS9575"),
    "gravel": ("fggrom.004-", "fggemg.003-", "spcsmg.005-"),
    "road": ("rpaeye.006-", "rpaeom.003-"),
    "stone": ("spcemg.011-", "spceye.002-"),
    "brick": ("fttrmg.007-", "mobrmg.008-", "mobrmg.004-"),
    "plaster": ("pprwmg.003-", "mobrmg.008-"),
    "roof": ("fscnmm.004-", "fscgye.022-", "fttrmg.007-"),
    "paint": ("pprwmg.002-", "trawyg.002-"),
    "metal": ("foznof.001-", "fhzgmg.008-"),
    "glass": ("folwmm.001-", "folwmm.002-"),
    "white": (),  # reflects like the light itself: clear sky, its mirror image, sun glints
}
CODE = {name: code for code, name in enumerate(MATERIALS)}


@dataclass
class Canvas:
    """State of the painting; every field but `rng` is an array (2 rows, 2 cols)."""

    rng: np.random.Generator
    material: NDArray[np.uint8]  # position in `MATERIALS`
    look: Float  # (3, ...): blend 0..1 from the first to the last spectrum of the material;
    # direct light (incidence x visibility x texture); diffuse light (open sky x texture)
    grain: Float  # weathering of surfaces: mean 0, standard deviation 1

    @classmethod
    def blank(cls, rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
        """Return a clear sky, brighter towards the horizon, over size (rows, cols)."""
        rows, cols = 2 * size[0], 2 * size[1]
        look = np.zeros((3, rows, cols))
        look[2] = np.linspace(0.9, 2.0, rows)[:, None]
        sky = np.full((rows, cols), CODE["white"], np.uint8)
        return cls(rng, sky, look, fractal(rng, (rows, cols), 1.1))

    def paint(self, at: tuple[Any, ...], material: str, *look: ArrayLike) -> None:
        """Replace what is seen at the index `at` by a material with blend, sun and sky."""
        self.material[at] = CODE[material]
        for layer, values in zip(self.look, look, strict=True):
            layer[at] = np.maximum(values, 0)

    def under(self, place: Float) -> tuple[NDArray[np.uint8], Float]:
        """Return material (n,) and look (3, n) at the points (n, 2) x, y."""
        rows, cols = self.material.shape
        x, y = np.clip(place.T, 0, [[cols - 1], [rows - 1]]).astype(int)
        return self.material[y, x], self.look[:, y, x]

    def cast(self, before: Float, foot: int, across: int, down: int) -> None:
        """Shade the wall above row `foot` by what was painted since `look` was `before`."""
        new = np.any(self.look != before, axis=0)
        shadow = np.zeros_like(new)
        shadow[down:foot, across:] = new[: foot - down, : new.shape[1] - across]
        self.look[1][shadow & ~new & (self.material != CODE["white"])] *= 1.3 * SHADE


def fractal(rng: np.random.Generator, shape: tuple[int, int], power: float) -> Float:
    """Periodic random field with power spectrum f^-power, mean 0, standard deviation 1."""
    f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    f[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * f ** (-power / 2), shape)
    return np.asarray(field / field.std())


def splat(
    canvas: Canvas, place: Float, size: Float, angle: Float, material: str, look: Float
) -> None:
    """Paint many small ellipses (leaves, blades, stones), the last one on top.

    place (n, 2) is x, y; size (n, 2) the half axes; angle (n,) in radians; look (3, n).
    """
    rows, cols = canvas.material.shape
    for start in range(0, len(place), 20000):
        part = slice(start, start + 20000)
        reach = int(np.ceil(size[part].max()))
        dy, dx = (d.ravel() for d in np.mgrid[-reach : reach + 1, -reach : reach + 1])
        whole = np.floor(place[part]).astype(int)
        away = np.stack([dx, dy], -1) - (place[part] - whole)[:, None]
        turn = np.exp(-1j * angle[part])[:, None] * (away[..., 0] + 1j * away[..., 1])
        x, y = whole[:, :1] + dx, whole[:, 1:] + dy
        hit = (turn.real / size[part, :1]) ** 2 + (turn.imag / size[part, 1:]) ** 2 <= 1
        hit &= (x >= 0) & (x < cols) & (y >= 0) & (y < rows)
        canvas.paint((y[hit], x[hit]), material, *look[:, np.nonzero(hit)[0] + start])


def limb(
    canvas: Canvas,
    start: Float,
    end: Float,
    width: tuple[float, float],
    material: str,
    light: float,
) -> None:
    """Paint a tapering round branch or post from `start` to `end` (x, y, z); metal glints."""
    rows, cols = canvas.material.shape
    low = np.floor(np.minimum(start, end)[:2] - max(width) - 1).astype(int)
    high = np.ceil(np.maximum(start, end)[:2] + max(width) + 2).astype(int)
    (x0, x1), (y0, y1) = np.clip([low[0], high[0]], 0, cols), np.clip([low[1], high[1]], 0, rows)
    y, x = np.mgrid[y0:y1, x0:x1]
    run = (end - start)[:2]
    length = max(float(np.hypot(*run)), 1e-3)
    ux, uy = run / length
    t = np.clip(((x - start[0]) * ux + (y - start[1]) * uy) / length, 0, 1)
    px, py = x - start[0] - t * run[0], y - start[1] - t * run[1]
    radius = np.maximum(width[0] + t * (width[1] - width[0]), 0.5)
    on = np.hypot(px, py) <= radius
    v = ((py * ux - px * uy) / radius)[on]
    front = np.sqrt(np.clip(1 - v**2, 0, 1))
    at = (y[on], x[on])
    relief = np.exp(0.13 * canvas.grain[at[0] // 3, at[1]])
    lit = np.clip(-uy * v * SUN[0] + ux * v * SUN[1] + front * SUN[2], 0, None) * light
    if material == "metal":
        lit += 0.004 * GLINT * np.exp(-(((v + 0.3) * radius[on]) ** 2))
    blend = np.clip(0.5 + 0.3 * canvas.grain[at], 0, 1)
    canvas.paint(at, material, blend, (lit + SHADE) * relief, 0.4 * relief)


def panel(
    canvas: Canvas,
    box: Box,
    material: str,
    blend: float,
    sun: float,
    sky: float,
    course: tuple[int, int] = (0, 0),
) -> None:
    """Paint a weathered rectangle; `course` is the size of its bricks."""
    rows, cols = canvas.material.shape
    top, bottom, left, right = (
        int(np.clip(round(edge), 0, end))
        for edge, end in zip(box, (rows, rows, cols, cols), strict=True)
    )
    at = (slice(top, bottom), slice(left, right))
    tone = 0.12 * canvas.grain[at]
    if course[0]:
        y, x = np.mgrid[at]
        row = y // course[0]
        column = (x + row % 2 * (course[1] // 2)) // course[1]
        shade = canvas.rng.normal(0, 0.08, tone.shape)
        tone = tone + shade[row % len(tone), column % tone.shape[1]]
        joint = (y % course[0] == 0) | ((x + row % 2 * (course[1] // 2)) % course[1] == 0)
        tone = np.where(joint, tone - 0.13, tone)
    light = np.exp(tone)
    canvas.paint(at, material, np.clip(blend + tone, 0, 1), (sun + SHADE) * light, sky * light)


def grow(
    rng: np.random.Generator, here: Float, heading: Float, length: float, width: float, level: int
) -> tuple[list[tuple[Float, Float, tuple[float, float]]], list[Float]]:
    """Grow a branch and all that it carries: pieces (start, end, widths), and tips for leaves."""
    pieces, tips = [], []
    for k in range(3):  # a branch bends a little on its way
        heading = heading + rng.normal(0, 0.12, 3) + [0, -0.06, 0]
        heading /= np.linalg.norm(heading)
        there = here + heading * length / 3
        pieces.append((here, there, (width * (1 - 0.1 * k), width * (0.9 - 0.1 * k))))
        here = there
        if level < 3:
            tips.append(here + rng.normal(0, 0.2, 3) * length)
    for _ in range(rng.integers(2, 4) if level else 0):
        side = heading + rng.normal(0, 0.5, 3)
        side /= np.linalg.norm(side)
        part = grow(rng, here, side, length * rng.uniform(0.62, 0.88), width * 0.62, level - 1)
        pieces, tips = pieces + part[0], tips + part[1]
    return pieces, tips


def foliage(
    canvas: Canvas, centres: Float, radius: Float, leaf: float, material: str, light: float
) -> None:
    """Paint a crown or hedge: clusters of leaves around `centres` (n, 3), far ones first."""
    rng = canvas.rng
    count = np.maximum(4, 1.5 * (radius / leaf) ** 2).astype(int)
    one = np.repeat(np.arange(len(centres)), count)
    out = rng.normal(0, 0.5, (one.size, 3)) * [1.15, 0.8, 1.0]
    place = centres[one] + out * radius[one, None]
    depth = (place - centres.mean(axis=0)) / (np.abs(centres - centres.mean(axis=0)).max() + 1)
    normal = 1.2 * out + depth + rng.normal(0, 0.6, out.shape)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    # a leaf is shaded by its own cluster and by the crown between it and the sun
    seen = 0.6 + 0.4 * expit(4 * (out @ SUN) + 1.2) * expit(4 * (depth @ SUN) + 1.2)
    sun = light * np.clip(normal @ SUN, 0.4, 1) * seen * rng.uniform(0.9, 1.1, one.size) + SHADE
    blend = 0.5 + 0.1 * rng.standard_normal(len(centres))[one] + rng.normal(0, 0.06, one.size)
    look = np.stack([np.clip(blend, 0, 1), sun, 0.25 + 0.3 * expit(-3 * out[:, 1])])
    size = leaf * rng.uniform(0.7, 1.3, (one.size, 2)) * [1.0, 0.6]
    order = np.argsort(place[:, 2], kind="stable")
    angle = rng.uniform(0, np.pi, one.size)
    splat(canvas, place[order, :2], size[order], angle, material, look[:, order])


def tree(canvas: Canvas, foot: tuple[float, float], height: float, material: str) -> None:
    """Paint a tree that stands at `foot` (x, y): limbs, with leaves behind and before them."""
    rng = canvas.rng
    base = np.array([*foot, 0.0])
    pieces, ends = grow(rng, base, np.array([0.0, -1.0, 0.0]), 0.27 * height, 0.022 * height, 5)
    tips = np.array(ends)
    leaf, radius = max(0.9, height / 350), rng.uniform(0.015, 0.045, len(tips)) * height
    back = tips[:, 2] < np.median(tips[:, 2])
    foliage(canvas, tips[back], radius[back], leaf, material, 0.5)
    limb(canvas, base, base - [0, 0.1 * height, 0], (0.031 * height, 0.022 * height), "bark", 0.4)
    for start, end, width in pieces:
        limb(canvas, start, end, width, "bark", 0.4)
    foliage(canvas, tips[~back], radius[~back], leaf, material, 1.0)
