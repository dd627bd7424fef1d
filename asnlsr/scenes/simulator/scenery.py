"""The simulated scenes: a city park, and buildings, seen from the ground."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.special import expit

from asnlsr.scenes.simulator.painting import (
    CODE,
    GLINT,
    SHADE,
    Box,
    Canvas,
    Float,
    foliage,
    fractal,
    limb,
    panel,
    splat,
    tree,
)

GROUND, WALL = 0.66, 0.60  # cosine of the sun's incidence on level ground, on a facade
FOCAL = 2.8  # focal length in picture heights: a field of view of 20 degrees, as the instrument


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
    tone = np.exp(0.12 * broad + 0.1 * texture(500) / away)
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
        look[1:] *= rng.uniform(0.88, 1.14, len(place))
        splat(canvas, place, size, tilt + rng.normal(0, 0.35, len(place)), material, look)


def window(canvas: Canvas, box: Box) -> None:
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
            upper, lower = top + max(y0 * high, 0.6 * deep) + bar, top + y1 * high - bar
            near, far = left + max(x0 * wide, 0.4 * deep) + bar, left + x1 * wide - bar
            sun = mirror * rng.uniform(0.8, 1.25) - SHADE
            panel(canvas, (upper, lower, near, far), "white", 0, sun, 0.3)
            if rng.random() < 0.3:  # a curtain behind the pane
                edge = near + rng.uniform(0.2, 1) * (far - near)
                panel(canvas, (upper, lower, near, edge), "plaster", 0.2, 0.16, 0.1)
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
    lamp = post - [wide, 0.35 * rows, 0], post - [-wide, 0.36 * rows, 0]
    limb(canvas, *lamp, (3 * wide, 2 * wide), "metal", 0.5)
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
        chimney = (ridge - 0.03 * rows, eaves, x, x + 0.05 * rows)
        panel(canvas, chimney, "brick", 0.3, WALL, 0.5, brick)
    panel(canvas, (ridge, eaves, 0, cols), "roof", 0.5, 0.85, 0.7, (2 * brick[0], brick[1]))
    wall = rng.choice(["brick", "plaster"])
    course = brick if wall == "brick" else (0, 0)
    panel(canvas, (eaves, street, 0, cols), wall, 0.55, WALL, 0.5, course)
    floors, wide = int(rng.integers(4, 6)), rng.uniform(0.13, 0.18) * rows
    story = (street - eaves) / floors
    for floor in range(floors):
        line = eaves + floor * story
        if floor == floors - 1:
            block = 4 * brick[0], 4 * brick[1]
            panel(canvas, (line, street, 0, cols), "stone", 0.3, WALL, 0.5, block)
            panel(canvas, (line, line + 8 * unit, 0, cols), "stone", 0.6, 0.8, 0.6)
            panel(canvas, (line + 8 * unit, line + 14 * unit, 0, cols), "stone", 0.3, 0.05, 0.4)
        for x in np.arange(0.3 * wide, cols, wide):
            window(canvas, (line + 0.3 * story, line + 0.85 * story, x, x + 0.5 * wide))
    panel(canvas, (eaves, eaves + 22 * unit, 0, cols), "stone", 0.5, 0.03, 0.4)
    panel(canvas, (eaves - 10 * unit, eaves + 8 * unit, 0, cols), "paint", 0.5, 0.7, 0.7)
    pipe = np.array([rng.uniform(0.1, 0.9) * cols, street, 0.0])
    limb(canvas, pipe, np.array([pipe[0], eaves, 0.0]), (3 * unit, 3 * unit), "metal", 0.7)
    crowns = []
    for k in range(-1, 1 + 2 * cols // rows):
        x, y, height = (k + rng.uniform(0, 0.8)) / 2, rng.uniform(0.9, 0.96), rng.uniform(0.4, 0.7)
        crowns.append((x * rows, y * rows, height * rows))
    ground(canvas, int(street), "stone", crowns)
    before = canvas.look.copy()
    hedge(canvas, street + 0.03 * rows, 0.07 * rows, "needle")
    for x, y, height in crowns:
        tree(canvas, (x, y), height, "leaf")
    canvas.cast(before, int(street), int(90 * unit), int(100 * unit))
    return canvas
