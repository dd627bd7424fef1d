"""Images of dead leaves: edges and textures of every size, for a network blind to the bands.

Shapes of every size lie one over the other, as things do that hide each other, and from few such
images a network learns what edges are without any scene (Lee, Mumford & Huang 2001; Achddou,
Gousseau & Ladjal 2021).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from asnlsr.physics import SPAN, degrade, log_scale, unscale

BANDS = 5  # of an image
_SHAPES = 700
_MIDDLE = 0.55  # z about which an image lies
Image = NDArray[np.float64]


def dead_leaves(
    rng: np.random.Generator, number: int, side: int, scale: int, psf: NDArray[np.float64]
) -> tuple[Tensor, Tensor]:
    """Paint images, and see them through a blur with noise of up to 1 % of the mean.

    Returns
    -------
    lr : Tensor, (number, BANDS, side / scale, side / scale)
    hr : Tensor, (number, BANDS, side, side)
        Both z. The noise is in `lr` alone.
    """
    hr = torch.from_numpy(np.stack([_painted(rng, side) for _ in range(number)]))
    light = torch.stack([degrade(unscale(z), scale, psf=psf) for z in hr])
    noise = _log_uniform(rng, 1e-4, 1e-2, (number, BANDS, 1, 1)) * rng.standard_normal(light.shape)
    lr = log_scale(light + light.mean((2, 3), keepdim=True) * torch.from_numpy(noise).float())
    return lr, hr


def _painted(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Return an image, z (BANDS, side, side): painted twice as fine, then blurred a little."""
    spread = _log_uniform(rng, 0.08, 0.6)  # of the logarithm of radiance
    place = _leaves(rng, 2 * side)
    across = np.linspace(-1, 1, BANDS)
    spectra = rng.normal(size=(_SHAPES + 1, 2)) @ [across, across**2] * rng.uniform(0, 0.6)
    levels = rng.normal(size=(_SHAPES + 1, 1)) + spectra
    if rng.random() < 0.5:  # of few materials
        levels = levels[rng.integers(0, 12, len(levels))]
    shade = rng.uniform(0, 0.6) * _fractal(rng, 2 * side, 1.6)
    for strongest in (0.5, 0.3):
        amounts = _log_uniform(rng, 0.02, strongest, len(levels))
        shade += amounts[place] * _fractal(rng, 2 * side, rng.uniform(0.3, 1.5))
    light = np.exp(spread * (levels.T[:, place] + shade))
    light = light.reshape(BANDS, side, 2, side, 2).mean((2, 4))
    light = gaussian_filter(light, (0, *[rng.uniform(0.2, 0.8)] * 2))
    return (_MIDDLE + np.log(light) / SPAN).astype(np.float32)


def _leaves(rng: np.random.Generator, side: int) -> NDArray[np.int64]:
    """Which of the shapes is seen where, 0 for none: ellipses and, more or less, rectangles."""
    least = _log_uniform(rng, 2, 12)
    # as many of half the size as cover the same area: p(r) ~ r^-3
    radii = (least**-2 + rng.random(_SHAPES) * ((side / 2) ** -2 - least**-2)) ** -0.5
    built, grid = rng.random(), rng.uniform(0, np.pi)
    seen = np.zeros((side, side), dtype=np.int64)
    for k, radius in enumerate(radii, 1):
        centre, narrow = rng.uniform(0, side, 2), radius * rng.uniform(0.25, 1)
        first, last = (
            np.clip(centre + away * (1.5 * radius + 1), 0, side).astype(int) for away in (-1, 1)
        )
        y, x = (np.arange(a, b) - c for a, b, c in zip(first, last, centre, strict=True))
        rectangle = rng.random() < built
        turn = grid if rectangle and rng.random() < 0.8 else rng.uniform(0, np.pi)
        along = (np.cos(turn) * x + np.sin(turn) * y[:, None]) / radius
        beside = (np.cos(turn) * y[:, None] - np.sin(turn) * x) / narrow
        inside = np.maximum(abs(along), abs(beside)) if rectangle else np.hypot(along, beside)
        seen[first[0] : last[0], first[1] : last[1]][inside < 1] = k
    return seen


def _fractal(rng: np.random.Generator, side: int, slope: float) -> Image:
    """Noise of amplitude 1/f^slope and standard deviation 1, (side, side)."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    noise: Image = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / frequency**slope)
    noise /= noise.std()
    return noise


def _log_uniform(
    rng: np.random.Generator, least: float, most: float, shape: int | tuple[int, ...] = ()
) -> Image:
    drawn: Image = np.exp(rng.uniform(np.log(least), np.log(most), shape))
    return drawn
