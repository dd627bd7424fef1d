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

Array = NDArray[np.float32]
Rng = np.random.Generator
SUN = np.array([-0.45, -0.66, 0.60])  # unit vector to the sun: high, left, behind the camera
GROUND, WALL = 0.66, 0.60  # cosine of the sun's incidence on a horizontal plane, on a facade
SHADE = 0.05  # of the direct light: what surroundings in the sun throw into a shadow
CODE = {name: code for code, name in enumerate(MATERIALS)}


@dataclass
class Canvas:
    """State of the painting; every field is an array (2 rows, 2 cols)."""

    material: NDArray[np.uint8]  # position in `MATERIALS`
    blend: Array  # 0..1, between the first and the last spectrum of the material
    sun: Array  # direct light, as a factor of the beam: incidence x visibility x texture
    sky: Array  # diffuse light, as a factor: part of the sky that is seen x texture

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the canvas."""
        return self.sun.shape[0], self.sun.shape[1]

    def paint(
        self, at: tuple[object, ...], material: str, blend: ArrayLike, sun: ArrayLike, sky: ArrayLike
    ) -> None:
        """Replace what is seen at the index `at`."""
        self.material[at] = CODE[material]
        self.blend[at] = np.clip(blend, 0, 1)
        self.sun[at] = np.maximum(sun, 0)
        self.sky[at] = np.maximum(sky, 0)


def fractal(rng: Rng, shape: tuple[int, int], power: float = 2.0, stretch: float = 1.0) -> Array:
    """Random field with power spectrum f^-power, mean 0, standard deviation 1, periodic.

    `stretch` > 1 draws it out along the columns (lawn seen at a low angle), < 1 along the rows.
    """
    fy = np.fft.fftfreq(shape[0])[:, None] * np.sqrt(1 / stretch)
    fx = np.fft.rfftfreq(shape[1]) * np.sqrt(stretch)
    amplitude = np.maximum(np.hypot(fy, fx), 1 / max(shape)) ** (-power / 2)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * amplitude, shape)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def splat(
    canvas: Canvas,
    centre: NDArray[np.float64],
    size: NDArray[np.float64],
    angle: NDArray[np.float64],
    material: str,
    blend: NDArray[np.float64] | None,
    sun: NDArray[np.float64],
    sky: NDArray[np.float64],
) -> None:
    """Paint many small ellipses (leaves, blades, stones), the last one on top.

    centre (n, 2) is x, y; size (n, 2) the half axes; without `blend`, `sun` and `sky` multiply
    what was painted before under the centre, so that blades of grass keep the shadow they are in.
    """
    rows, cols = canvas.shape
    for start in range(0, len(centre), 20000):
        part = slice(start, start + 20000)
        reach = int(np.ceil(size[part].max()))
        dy, dx = (d.ravel() for d in np.mgrid[-reach : reach + 1, -reach : reach + 1])
        whole = np.floor(centre[part]).astype(int)
        away = np.stack([dx, dy], -1) - (centre[part] - whole)[:, None]
        cos, sin = np.cos(angle[part])[:, None], np.sin(angle[part])[:, None]
        along = (away[..., 0] * cos + away[..., 1] * sin) / size[part, :1]
        across = (away[..., 1] * cos - away[..., 0] * sin) / size[part, 1:]
        x, y = whole[:, :1] + dx, whole[:, 1:] + dy
        hit = (along**2 + across**2 <= 1) & (x >= 0) & (x < cols) & (y >= 0) & (y < rows)
        one = np.nonzero(hit)[0] + start
        at = (y[hit], x[hit])
        if blend is None:
            root = (np.clip(centre[:, 1], 0, rows - 1).astype(int),
                    np.clip(centre[:, 0], 0, cols - 1).astype(int))
            under = canvas.blend[root], canvas.sun[root], canvas.sky[root]
            canvas.paint(at, material, under[0][one], (under[1] * sun)[one], (under[2] * sky)[one])
        else:
            canvas.paint(at, material, blend[one], sun[one], sky[one])


def limb(
    canvas: Canvas, rng: Rng, start: NDArray[np.float64], end: NDArray[np.float64],
    width: tuple[float, float], bark: Array, light: float,
) -> None:
    """Paint a tapering round branch from `start` to `end` (x, y, z), lit from the sun's side."""
    rows, cols = canvas.shape
    low = np.floor(np.minimum(start, end) - max(width)).astype(int)
    high = np.ceil(np.maximum(start, end) + max(width)).astype(int) + 1
    x0, x1 = np.clip([low[0], high[0]], 0, cols)
    y0, y1 = np.clip([low[1], high[1]], 0, rows)
    if x0 >= x1 or y0 >= y1:
        return
    y, x = np.mgrid[y0:y1, x0:x1]
    run = (end - start)[:2]
    length = max(float(np.hypot(*run)), 1e-3)
    ux, uy = run / length
    t = np.clip(((x - start[0]) * ux + (y - start[1]) * uy) / length, 0, 1)
    px, py = x - start[0] - t * run[0], y - start[1] - t * run[1]
    radius = np.maximum(width[0] + t * (width[1] - width[0]), 0.35)
    v = (px * -uy + py * ux) / radius
    inside = np.hypot(px, py) <= radius
    towards = np.sqrt(np.clip(1 - v**2, 0, 1))
    lit = np.clip(-uy * v * SUN[0] + ux * v * SUN[1] + towards * SUN[2], 0, None)
    relief = np.exp(0.35 * bark[y % bark.shape[0], x % bark.shape[1]])
    sun = (lit * light + SHADE) * relief
    at = (y[inside], x[inside])
    canvas.paint(at, "bark", 0.5 + 0.25 * bark[at[0] % bark.shape[0], at[1] % bark.shape[1]],
                 sun[inside], (0.4 * relief)[inside])


def grow(
    rng: Rng, base: NDArray[np.float64], heading: NDArray[np.float64], length: float, width: float,
    level: int,
) -> tuple[list[tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]], list[NDArray[np.float64]]]:
    """Grow a branch and what it carries: its pieces (start, end, widths) and its tips."""
    pieces, here = [], base
    for k in range(3):  # a branch bends a little on its way
        heading = heading + rng.normal(0, 0.12, 3) + np.array([0, -0.05, 0])
        heading /= np.linalg.norm(heading)
        there = here + heading * length / 3
        pieces.append((here, there, (width * (1 - 0.1 * k), width * (0.9 - 0.1 * k))))
        here = there
    if level == 0:
        return pieces, [here]
    tips = [here] if level < 3 else []
    for _ in range(rng.integers(2, 4)):
        side = heading + rng.normal(0, 0.55, 3)
        scale = rng.uniform(0.62, 0.88)
        grown, ends = grow(rng, here, side / np.linalg.norm(side), length * scale, width * 0.62, level - 1)
        pieces += grown
        tips += ends
    return pieces, tips


def foliage(
    canvas: Canvas, rng: Rng, centres: NDArray[np.float64], radius: NDArray[np.float64],
    leaf: float, material: str, light: float, cover: float = 1.0,
) -> None:
    """Paint clusters of leaves around `centres` (n, 3); `cover` is leaf area over cluster area."""
    count = np.maximum(3, cover * radius**2 / (0.5 * leaf**2)).astype(int)
    which = np.repeat(np.arange(len(centres)), count)
    out = rng.standard_normal((which.size, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    out *= rng.random((which.size, 1)) ** 0.4
    place = centres[which] + out * radius[which, None] * [1.0, 0.75, 1.0]
    middle = centres.mean(axis=0)
    extent = np.linalg.norm(centres - middle, axis=1).max() + radius.mean()
    normal = out + 0.5 * (place - middle) / extent + rng.normal(0, 0.5, out.shape)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    # a leaf is shaded by its own cluster and by the crown between it and the sun
    seen = expit(4 * (out @ SUN) + 1) * expit(4 * ((place - middle) @ SUN) / extent + 1.2)
    sun = light * (np.clip(normal @ SUN, 0.08, 1) * seen * rng.uniform(0.6, 1.3, which.size)) + SHADE
    sky = 0.25 + 0.45 * np.clip(0.5 - 0.5 * out[:, 1], 0, 1)
    order = np.argsort(place[:, 2], kind="stable")
    size = leaf * rng.uniform(0.6, 1.3, (which.size, 2)) * [1.0, 0.6]
    blend = np.clip(0.5 + 0.2 * rng.standard_normal(len(centres))[which] + 0.15 * rng.standard_normal(which.size), 0, 1)
    splat(canvas, place[order, :2], size[order], rng.uniform(0, np.pi, which.size)[order], material,
          blend[order], sun[order], sky[order])


def tree(
    canvas: Canvas, rng: Rng, foot: tuple[float, float], height: float, material: str, light: float
) -> None:
    """Paint a tree that stands at `foot` (x, y): limbs, with leaves behind and before them."""
    base = np.array([foot[0], foot[1], 0.0])
    pieces, tips = grow(rng, base, np.array([0.0, -1.0, 0.0]), 0.3 * height, 0.025 * height, 5)
    ends = np.array(tips)
    bark = fractal(rng, (256, 256), 1.2, 0.15)
    leaf, radius = max(0.9, height / 330), rng.uniform(0.03, 0.065, len(ends)) * height
    back = ends[:, 2] < np.median(ends[:, 2])
    foliage(canvas, rng, ends[back], radius[back], leaf, material, 0.5 * light)
    for start, end, width in pieces:
        limb(canvas, rng, start, end, width, bark, 0.7 * light)
    foliage(canvas, rng, ends[~back], radius[~back], leaf, material, light)


def sky(canvas: Canvas, rng: Rng) -> None:
    """Paint a clear sky, brighter towards the horizon."""
    rows, cols = canvas.shape
    glow = 0.6 + 0.5 * np.linspace(0, 1, rows)[:, None] + 0.02 * fractal(rng, (rows, cols), 3)
    canvas.paint((slice(None),), "white", 0, 0 * glow, glow)


def ground(canvas: Canvas, rng: Rng, horizon: int, shadows: list[tuple[float, float]]) -> None:
    """Paint lawn, path, worn soil, litter and cast shadows below `horizon`, in perspective."""
    rows, cols = canvas.shape
    y, x = np.mgrid[horizon:rows, 0:cols].astype(float)
    away = np.minimum((rows - horizon) / (y - horizon + 1), 40)  # distance; 1 at the lower edge
    side = (x - cols / 2) / rows * away
    tile = fractal(rng, (512, 512), 2.2)

    def texture(scale: float) -> Array:
        at = np.stack([away, side]) * scale + rng.uniform(0, 512, (2, 1, 1))
        return np.asarray(map_coordinates(tile, at, order=1, mode="grid-wrap"), np.float32)

    broad, fine = texture(60), texture(400)
    tone = np.exp(0.25 * broad + 0.25 * fine / away)
    sun = np.full(x.shape, GROUND)
    for where, reach in shadows:
        ragged = 0.8 * texture(120) + 0.4 * texture(400)
        inside = ((side - where) / 0.5) ** 2 + ((away - reach) / (0.35 * reach)) ** 2
        sun *= 1 - 0.93 * expit(6 * (1 - inside + 0.5 * ragged))
    here = (slice(horizon, rows),)
    canvas.paint(here, "lawn", 0.35 + 0.2 * broad, (sun + SHADE) * tone * 0.8, 0.7 * tone)
    middle = rng.uniform(-0.2, 0.2) + 0.25 * np.sin(rng.uniform(0, 6) + away * 0.7)
    edge = np.abs(side - middle) - 0.16 + 0.012 * texture(200)
    for material, width in (("soil", 0.05), ("gravel", 0.0)):
        on = edge < width * (1 + 0.8 * texture(150))
        at = (y[on].astype(int), x[on].astype(int))
        canvas.paint(at, material, 0.5 + 0.2 * broad[on], ((sun + SHADE) * tone)[on], 0.8 * tone[on])
    scatter(canvas, rng, horizon)


def scatter(canvas: Canvas, rng: Rng, horizon: int) -> None:
    """Scatter blades of grass, fallen leaves and stones over the ground, smaller with distance."""
    rows, cols = canvas.shape
    deep = rows - horizon
    for material, share, long, wide, tilt in (
        ("lawn", 0.25, 9.0, 1.1, np.pi / 2), ("gravel", 0.02, 2.6, 1.8, 0.0), ("litter", 0.004, 4.0, 2.0, 0.0)
    ):
        n = int(share * deep * cols)
        place = np.stack([rng.uniform(0, cols, n), horizon + deep * rng.random(n)], -1)
        place = place[np.argsort(place[:, 1])]
        under = canvas.material[place[:, 1].astype(int), place[:, 0].astype(int)]
        home = "lawn" if material == "litter" else material
        place = place[under == CODE[home]]
        near = ((place[:, 1] - horizon) / deep)[:, None]
        size = np.maximum(near * [long, wide], 0.5) * rng.uniform(0.6, 1.3, (len(place), 1))
        shine = rng.uniform(0.45, 1.5, len(place))
        splat(canvas, place, size, tilt + rng.normal(0, 0.35, len(place)), material, None, shine, shine)


def new_canvas(size: tuple[int, int]) -> Canvas:
    """Return an empty canvas for a scene of size (rows, cols)."""
    shape = (2 * size[0], 2 * size[1])
    return Canvas(np.zeros(shape, np.uint8), *(np.zeros(shape, np.float32) for _ in range(3)))


def park(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw a city park: lawn, path, worn soil, hedge, trees with branching limbs, litter."""
    canvas = new_canvas(size)
    rows, cols = canvas.shape
    horizon = int(rng.uniform(0.55, 0.66) * rows)
    sky(canvas, rng)
    n = max(6, cols // 24)
    for layer in range(3):  # the far rim of the park
        high = (0.16 - 0.04 * layer) * rows
        x = np.sort(rng.uniform(-0.1, 1.1, n) * cols)
        top = horizon - high * rng.uniform(0.4, 1.0, n)
        balls = np.stack([np.repeat(x, 3), np.concatenate([top + k * high / 3 for k in range(3)]), rng.normal(0, 20, 3 * n)], -1)
        foliage(canvas, rng, balls, np.full(3 * n, 0.4 * high), max(0.9, rows / 900), "leaf", 0.8, 2.0)
    feet = rng.permutation(max(2, round(1.6 * cols / rows * 2)))
    shadows = [(float(rng.uniform(-0.5, 0.5)), float(rng.uniform(1.2, 3))) for _ in feet]
    ground(canvas, rng, horizon, shadows)
    for k, foot in enumerate(feet):
        x = (foot + rng.uniform(0.2, 0.8)) / len(feet) * cols
        y = horizon + (0.03 + 0.25 * k / len(feet)) * (rows - horizon) * 1.2
        tall = rng.uniform(0.75, 0.95) * y
        tree(canvas, rng, (x, y), tall, "leaf" if rng.random() < 0.7 else "needle", 1.0)
    return canvas


def panel(
    canvas: Canvas, grain: Array, box: tuple[float, float, float, float], material: str,
    blend: float, sun: float, sky: float, contrast: float = 0.2,
) -> None:
    """Paint a weathered rectangle, box = (top, bottom, left, right)."""
    top, bottom, left, right = (max(0, round(edge)) for edge in box)
    at = (slice(top, bottom), slice(left, right))
    tone = np.exp(contrast * grain[at])
    canvas.paint(at, material, blend + 0.15 * grain[at], (sun + SHADE) * tone, sky * tone)


def window(canvas: Canvas, rng: Rng, grain: Array, box: tuple[float, float, float, float]) -> None:
    """Paint a recessed window: reveal, frame, panes that mirror the sky, sill and its shadow."""
    top, bottom, left, right = box
    high, wide = bottom - top, right - left
    deep = 0.12 * wide
    panel(canvas, grain, (bottom, bottom + 0.14 * high, left, right + 0.1 * wide), "plaster", 0.3, 0, 0.3)
    panel(canvas, grain, box, "plaster", 0.3, 0.0, 0.25)
    panel(canvas, grain, (top + deep, bottom, left + 0.7 * deep, right), "paint", 0.4, WALL, 0.4)
    for row, (y0, y1) in enumerate(((0.0, 0.3), (0.3, 1.0))):
        for x0, x1 in ((0.0, 0.5), (0.5, 1.0)):
            bar = 0.03 * wide
            pane = (top + y0 * high + 2 * bar, top + y1 * high - bar, left + x0 * wide + bar, left + x1 * wide - bar)
            pane = (max(pane[0], top + 0.5 * deep), pane[1], max(pane[2], left + 0.3 * deep), pane[3])
            mirror = rng.uniform(0.1, 0.6)
            panel(canvas, grain, pane, "white", 0, rng.choice([0, 0, 0, 0.02, 0.1]) - SHADE + 0.004, mirror * 0.5, 0.4)
            if row and rng.random() < 0.5:
                panel(canvas, grain, (pane[0], pane[1], pane[2], (pane[2] + pane[3]) / 2), "plaster", 0.2, 0.05, 0.1, 0.1)
    if rng.random() < 0.25:
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        splat(canvas, np.array([[x, y]]), np.array([[1.5, 4.0]]), np.zeros(1), "white", np.zeros(1), np.array([8.0]), np.array([0.5]))
    panel(canvas, grain, (bottom, bottom + 0.05 * high, left - 0.06 * wide, right + 0.06 * wide), "stone", 0.5, 0.9, 0.7)


def buildings(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw a facade with windows, a roof above, pavement and trees in front."""
    canvas = new_canvas(size)
    rows, cols = canvas.shape
    sky(canvas, rng)
    grain = fractal(rng, (rows, cols), 1.8, 0.6)
    eaves, street = 0.16 * rows, 0.86 * rows
    panel(canvas, grain, (0.05 * rows, eaves, 0, cols), "roof", 0.5, 0.8, 0.7, 0.3)
    y, x = np.mgrid[int(eaves) : int(street), 0:cols]
    course, brick = max(3, rows // 200), max(8, rows // 64)
    line = y // course
    along = x + (line % 2) * (brick // 2)
    tone = rng.normal(0, 0.18, (rows, cols))[line, along // brick % cols] + 0.15 * grain[y, x]
    mortar = (y % course == 0) | (along % brick == 0)
    tone = np.exp(np.where(mortar, -0.25, tone))
    canvas.paint((y, x), "brick", 0.55 + 0.5 * (tone - 1), (WALL + SHADE) * tone, 0.5 * tone)
    floors, bays = 5, max(1, round(3 * cols / rows * 2))
    for floor in range(floors):
        for bay in range(bays):
            y0 = eaves + (floor + 0.25) * (street - eaves) / floors
            x0 = (bay + 0.25) * cols / bays
            window(canvas, rng, grain, (y0, y0 + 0.55 * (street - eaves) / floors, x0, x0 + 0.5 * cols / bays))
    panel(canvas, grain, (eaves, eaves + 0.03 * rows, 0, cols), "stone", 0.5, 0, 0.4)
    panel(canvas, grain, (eaves - 0.01 * rows, eaves + 0.012 * rows, 0, cols), "metal", 0.5, 0.6, 0.7)
    panel(canvas, grain, (street, rows, 0, cols), "stone", 0.5, GROUND, 0.8)
    tree(canvas, rng, (rng.uniform(0.1, 0.9) * cols, 0.9 * rows), 0.55 * rows, "leaf", 1.0)
    return canvas
