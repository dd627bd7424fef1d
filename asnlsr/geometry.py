"""Drawing of the simulated scenes: which material each point shows, and how the sun reaches it.

A scene is painted from far to near on a canvas of twice the resolution. Coordinates are canvas
pixels, x to the right, y down, z towards the camera.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates
from scipy.special import expit

from asnlsr.materials import MATERIALS

Float = NDArray[np.float64]
SUN = np.array([-0.45, -0.66, 0.60])  # unit vector to the sun: high, left, behind the camera
GROUND, WALL = 0.66, 0.60  # cosine of the sun's incidence on level ground, on a facade
SHADE = 0.14  # of the direct light: what surroundings in the sun throw into a shadow
GLINT = 40.0  # brightness of a mirror image of the sun, blurred to a pixel, white in the sun = 1
FOCAL = 2.8  # focal length in picture heights: a field of view of 20 degrees, as the instrument
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
    def blank(cls, rng: np.random.Generator, size: tuple[int, int]) -> "Canvas":
        """Return a clear sky, brighter towards the horizon, over size (rows, cols)."""
        rows, cols = 2 * size[0], 2 * size[1]
        look = np.zeros((3, rows, cols))
        look[2] = np.linspace(0.9, 2.0, rows)[:, None]
        sky = np.full((rows, cols), CODE["white"], np.uint8)
        return cls(rng, sky, look, fractal(rng, (rows, cols), 1.1))

    def paint(self, at: tuple[object, ...], material: str, *look: ArrayLike) -> None:
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


def splat(canvas: Canvas, place: Float, size: Float, angle: Float, material: str, look: Float) -> None:
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
    canvas: Canvas, start: Float, end: Float, width: tuple[float, float], material: str, light: float
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
    relief = np.exp(0.2 * canvas.grain[at[0] // 3, at[1]])
    lit = np.clip(-uy * v * SUN[0] + ux * v * SUN[1] + front * SUN[2], 0, None) * light
    if material == "metal":
        lit += 0.01 * GLINT * np.exp(-(((v + 0.3) * radius[on]) ** 2))
    blend = np.clip(0.5 + 0.3 * canvas.grain[at], 0, 1)
    canvas.paint(at, material, blend, (lit + SHADE) * relief, 0.4 * relief)


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
    seen = 0.5 + 0.5 * expit(4 * (out @ SUN) + 1.2) * expit(4 * (depth @ SUN) + 1.2)
    sun = light * np.clip(normal @ SUN, 0.3, 1) * seen * rng.uniform(0.85, 1.15, one.size) + SHADE
    blend = 0.5 + 0.15 * rng.standard_normal(len(centres))[one] + rng.normal(0, 0.1, one.size)
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
    flare = (0.031 * height, 0.022 * height)
    limb(canvas, base, base - [0, 0.1 * height, 0], flare, "bark", 0.4)
    for start, end, width in pieces:
        limb(canvas, start, end, width, "bark", 0.4)
    foliage(canvas, tips[~back], radius[~back], leaf, material, 1.0)


def hedge(canvas: Canvas, foot: float, high: float, material: str) -> None:
    """Paint a band of shrubs or far trees with an uneven upper rim; `foot` is its lower edge."""
    rng, cols = canvas.rng, canvas.material.shape[1]
    rim = np.cumsum(rng.normal(0, 1, cols + 1))
    rim = 0.75 + 0.25 * np.sin(rim / 8 + rng.uniform(0, 6))
    n = int(9 * cols / high) + 20
    x = rng.uniform(0, cols, n)
    y = foot - high * rng.random(n) * rim[x.astype(int)]
    centres = np.stack([x, y, y + rng.normal(0, 0.15 * high, n)], -1)
    leaf = max(0.9, canvas.material.shape[0] / 900)
    foliage(canvas, centres, high * rng.uniform(0.08, 0.26, n), leaf, material, 0.9)


def ground(canvas: Canvas, top: int, cover: str, crowns: list[tuple[float, float, float]]) -> None:
    """Paint level ground from row `top` down, in perspective, with the shadows of tree crowns.

    crowns holds x and y of the foot and the height of each tree.
    """
    rows, cols = canvas.material.shape
    rng = canvas.rng
    horizon = top - 0.02 * rows
    y, x = np.mgrid[top:rows, 0:cols]
    away = (rows - horizon) / (y - horizon)  # distance, 1 at the lower edge
    side = (x - cols / 2) / rows * away
    tile = fractal(rng, (512, 512), 2.0)

    def texture(scale: float) -> Float:
        at = np.stack([away * FOCAL / 2, side]) * scale + rng.uniform(0, 512, (2, 1, 1))
        return np.asarray(map_coordinates(tile, at, order=1, mode="grid-wrap"))

    broad = texture(60)
    tone = np.exp(0.15 * broad + 0.15 * texture(500) / away)
    sun = np.full(x.shape, GROUND)
    for foot_x, foot_y, height in crowns:
        far = (rows - horizon) / (foot_y - horizon)
        tall = height / rows * far
        across = (side - (foot_x - cols / 2) / rows * far - 0.45 * tall) / (0.3 * tall)
        along = (away - far - 0.45 * tall / FOCAL) * FOCAL / (0.35 * tall)
        sun *= 1 - 0.87 * expit(5 * (1 - across**2 - along**2 + 0.6 * texture(120)))
        trunk = (side - (foot_x - cols / 2) / rows * far) - 0.75 * (away - far) * FOCAL
        sun[(np.abs(trunk) < 0.02 * tall) & (away > far) & (along < 0)] *= 1.3 * SHADE
    sun += SHADE
    look = np.clip(0.4 + 0.2 * broad, 0, 1), sun * tone, 0.7 * tone
    canvas.paint((slice(top, rows),), cover, *look)
    middle = rng.uniform(-0.2, 0.2) + 0.2 * np.sin(rng.uniform(0, 6) + away * 0.7)
    edge = np.abs(side - middle) - 0.15 + 0.01 * texture(200)
    for material, width in (("soil", 0.03), ("gravel", 0.0)) if cover == "lawn" else ():
        on = edge < width * (1 + 0.8 * texture(150))
        canvas.paint((y[on], x[on]), material, *(layer[on] for layer in look))


def scatter(canvas: Canvas, top: int) -> None:
    """Scatter blades of grass, stones and fallen leaves over the ground, smaller with distance."""
    rows, cols = canvas.material.shape
    rng, deep = canvas.rng, rows - top
    for material, home, share, long, wide, tilt in (
        ("lawn", "lawn", 0.25, 9.0, 1.2, np.pi / 2),
        ("gravel", "gravel", 0.03, 2.6, 1.8, 0.0),
        ("litter", "lawn", 0.004, 4.0, 2.0, 0.0),
    ):
        n = int(share * deep * cols)
        place = np.stack([rng.uniform(0, cols, n), top + deep * np.sort(rng.random(n))], -1)
        below, look = canvas.under(place)
        here = below == CODE[home]
        place, look = place[here], look[:, here]
        near = (place[:, 1:] - top) / deep
        size = np.maximum(near * [long, wide], 0.6) * rng.uniform(0.6, 1.3, (len(place), 1))
        look[1:] *= rng.uniform(0.82, 1.2, len(place))
        splat(canvas, place, size, tilt + rng.normal(0, 0.35, len(place)), material, look)


def panel(
    canvas: Canvas, box: tuple[float, float, float, float], material: str, blend: float, sun: float,
    sky: float, course: tuple[int, int] = (0, 0),
) -> None:
    """Paint a weathered rectangle, box = (top, bottom, left, right); course = size of its bricks."""
    top, bottom, left, right = (max(0, round(edge)) for edge in box)
    at = (slice(top, bottom), slice(left, right))
    tone = 0.18 * canvas.grain[at]
    if course[0]:
        y, x = np.mgrid[at]
        row = y // course[0]
        column = (x + row % 2 * (course[1] // 2)) // course[1]
        tone = tone + canvas.rng.normal(0, 0.12, tone.shape)[row % len(tone), column % tone.shape[1]]
        joint = (y % course[0] == 0) | ((x + row % 2 * (course[1] // 2)) % course[1] == 0)
        tone = np.where(joint, tone - 0.2, tone)
    light = np.exp(tone)
    canvas.paint(at, material, np.clip(blend + tone, 0, 1), (sun + SHADE) * light, sky * light)


def window(canvas: Canvas, box: tuple[float, float, float, float]) -> None:
    """Paint a recessed window: lintel, reveal in shade, frame, panes, sill with its shadow."""
    rng = canvas.rng
    top, bottom, left, right = box
    high, wide = bottom - top, right - left
    deep, bar = 0.1 * wide, 0.027 * wide
    panel(canvas, (top - 0.12 * high, top, left - deep, right + deep), "stone", 0.4, WALL, 0.5)
    panel(canvas, (bottom, bottom + 0.08 * high, left, right + deep), "plaster", 0.3, 0, 0.4)
    panel(canvas, box, "plaster", 0.3, 0.05, 0.25)
    panel(canvas, (top + deep, bottom, left + 0.75 * deep, right), "paint", 0.3, 0.35, 0.4)
    mirror = rng.uniform(0.15, 0.27)
    for y0, y1 in ((0.0, 0.32), (0.32, 1.0)):
        for x0, x1 in ((0.0, 0.5), (0.5, 1.0)):
            pane = (
                top + max(y0 * high, 0.6 * deep) + bar, top + y1 * high - bar,
                left + max(x0 * wide, 0.4 * deep) + bar, left + x1 * wide - bar,
            )
            panel(canvas, pane, "white", 0, mirror * rng.uniform(0.8, 1.25) - SHADE, 0.3)
            if rng.random() < 0.3:  # a curtain behind the pane
                edge = pane[2] + rng.uniform(0.2, 1) * (pane[3] - pane[2])
                panel(canvas, (*pane[:3], edge), "plaster", 0.2, 0.16, 0.1)
    if rng.random() < 0.25:
        spot = np.array([[rng.uniform(left + deep, right), rng.uniform(top + deep, bottom)]])
        size = rng.uniform(0.7, 1.6, (1, 2))
        splat(canvas, spot, size, np.ones(1), "white", np.array([[0], [GLINT], [1.0]]))
    panel(canvas, (bottom, bottom + 0.05 * high, left - deep, right + deep), "stone", 0.6, 0.9, 0.7)


def park(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """Draw a city park: lawn, path, worn soil, hedge, trees with branching limbs, litter."""
    canvas = Canvas.blank(rng, size)
    rows, cols = canvas.material.shape
    top = int(rng.uniform(0.58, 0.68) * rows)
    for high in (0.2, 0.14):
        hedge(canvas, top + 4, high * rows * rng.uniform(0.8, 1.2), "leaf")
    number = max(1, round(1.2 * cols / rows * 2))
    crowns = [
        ((k + rng.uniform(0.2, 0.8)) / n * cols, top + d * (rows - top), h * rows)
        for n, d, h in ((2 * number, 0.04, 0.3), (2 * number, 0.1, 0.4), (number, 0.35, 0.85))
        for k in rng.permutation(n)
    ]
    # trees beside the camera are not seen, their shadows are
    outside = [(rng.uniform(-0.6, 0.4) * cols, 1.15 * rows, 0.9 * rows) for _ in range(2 * number)]
    ground(canvas, top, "lawn", crowns + outside)
    hedge(canvas, top + 8, 0.05 * rows, "needle")
    for x, y, height in crowns:
        tree(canvas, (x, y), height * rng.uniform(0.8, 1.1), rng.choice(["leaf", "leaf", "needle"]))
    post = np.array([rng.uniform(0.1, 0.9) * cols, top + 0.3 * (rows - top), 0.0])
    wide = 0.004 * rows
    limb(canvas, post, post - [0, 0.35 * rows, 0], (wide, 0.7 * wide), "metal", 0.5)
    limb(canvas, post - [wide, 0.35 * rows, 0], post - [-wide, 0.36 * rows, 0], (3 * wide, 2 * wide), "metal", 0.5)
    scatter(canvas, top)
    return canvas


def buildings(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """Draw a facade with windows under a roof, pavement, shrubs and trees in front."""
    canvas = Canvas.blank(rng, size)
    rows, cols = canvas.material.shape
    eaves, street = rng.uniform(0.14, 0.2) * rows, rng.uniform(0.84, 0.88) * rows
    unit = rows / 1024
    brick = (max(2, round(4 * unit)), max(4, round(13 * unit)))
    ridge = eaves - 0.1 * rows
    for x in rng.uniform(0, 1, 2) * cols:
        panel(canvas, (ridge - 0.03 * rows, eaves, x, x + 0.05 * rows), "brick", 0.3, WALL, 0.5, brick)
    panel(canvas, (ridge, eaves, 0, cols), "roof", 0.5, 0.85, 0.7, (2 * brick[0], brick[1]))
    wall = rng.choice(["brick", "plaster"])
    panel(canvas, (eaves, street, 0, cols), wall, 0.55, WALL, 0.5, brick if wall == "brick" else (0, 0))
    floors, wide = int(rng.integers(4, 6)), rng.uniform(0.13, 0.18) * rows
    story = (street - eaves) / floors
    for floor in range(floors):
        line = eaves + floor * story
        if floor == floors - 1:
            panel(canvas, (line, street, 0, cols), "stone", 0.3, WALL, 0.5, (4 * brick[0], 4 * brick[1]))
            panel(canvas, (line, line + 8 * unit, 0, cols), "stone", 0.6, 0.8, 0.6)
            panel(canvas, (line + 8 * unit, line + 14 * unit, 0, cols), "stone", 0.3, 0.05, 0.4)
        for x in np.arange(0.3 * wide, cols, wide):
            window(canvas, (line + 0.3 * story, line + 0.85 * story, x, x + 0.5 * wide))
    panel(canvas, (eaves, eaves + 22 * unit, 0, cols), "stone", 0.5, 0.03, 0.4)
    panel(canvas, (eaves - 10 * unit, eaves + 8 * unit, 0, cols), "paint", 0.5, 0.7, 0.7)
    pipe = np.array([rng.uniform(0.1, 0.9) * cols, street, 0.0])
    limb(canvas, pipe, np.array([pipe[0], eaves, 0.0]), (3 * unit, 3 * unit), "metal", 0.7)
    crowns = [
        ((k + rng.uniform(0, 0.8)) * 0.5 * rows, rng.uniform(0.9, 0.96) * rows, rng.uniform(0.4, 0.7) * rows)
        for k in range(-1, 1 + 2 * cols // rows)
    ]
    ground(canvas, int(street), "stone", crowns)
    before = canvas.look.copy()
    hedge(canvas, street + 0.03 * rows, 0.07 * rows, "needle")
    for x, y, height in crowns:
        tree(canvas, (x, y), height, "leaf")
    canvas.cast(before, int(street), int(90 * unit), int(100 * unit))
    return canvas
