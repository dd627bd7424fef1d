"""What recipe `warm` adds to the published training: other light, painted images, Muon.

In log radiance another illumination is a sum and another contrast a product. A network that has
seen its source tiles with many spectra learns detail that does not depend on the spectrum, which
is what it needs where the spectrum is another. The changes of tiles are ours.

A network that is blind to the bands learns from images of dead leaves instead. Shapes of every size
lie one over the other, as things do that hide each other, and from few such images a network learns
what edges are without any scene (Lee, Mumford & Huang 2001; Achddou, Gousseau & Ladjal 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from asnlsr.physics import SPAN, degrade, log_scale, unscale

RIDGE = 1e-4  # of the source contrast: keeps the noise of its weakest components from growing
MOMENTUM = 0.95
RMS = 0.2  # of a step, in units of the rate: that of Adam, so that both take the same rate
TAPS = 9  # a kernel of a depthwise convolution has no more inputs than this, and is no matrix


class Relighting:
    """Random spectral changes of training tiles.

    Parameters
    ----------
    source_lr : Tensor, (n, C, h, w)
        Normalised log radiance.
    target_lr : Tensor or None, (m, C, h, w)
        None: there is nothing to go towards, and only the light changes.
    share : float
        Largest share of the way from a source tile to the spectra of a target tile.
    light : float
        Standard deviation, in z, of the coefficients of a random parabola over the bands.
    """

    def __init__(
        self, source_lr: Tensor, target_lr: Tensor | None, share: float, light: float
    ) -> None:
        self.share, self.light = share, light
        bands = source_lr.shape[1]
        self.terms = np.polynomial.legendre.legvander(np.linspace(-1, 1, bands), 2).T
        self.source_mean = source_lr.mean((2, 3))  # (n, C)
        self.matching: Tensor | None = None
        if target_lr is not None:
            self.target_mean = target_lr.mean((2, 3))  # (m, C)
            self.matching = transport(contrast(source_lr), contrast(target_lr))

    def draw(
        self, rng: np.random.Generator, source: list[int], targets: int
    ) -> tuple[Tensor, Tensor]:
        """Draw a change z -> `mix` z + `shift` of the spectra of each tile of a batch.

        Every tile gets another light; a source tile also goes a random share of the way to the
        contrast of the target and to the mean spectrum of one of its tiles.

        Returns
        -------
        mix : Tensor, (B, C, C)
        shift : Tensor, (B, C)
        """
        tiles = len(source) + targets
        mix = torch.eye(self.terms.shape[1]).repeat(tiles, 1, 1)
        light = rng.normal(0, self.light, (tiles, len(self.terms))) @ self.terms
        shift = torch.from_numpy(light).float()
        if self.matching is not None and source:
            n = len(source)
            share = self.share * torch.from_numpy(rng.random((n, 1))).float()
            goal = torch.from_numpy(rng.integers(len(self.target_mean), size=n))
            mix[:n] = torch.lerp(mix[:n], self.matching, share[:, :, None])
            mean = self.source_mean[source]
            shift[:n] += torch.lerp(mean, self.target_mean[goal], share)
            shift[:n] -= torch.einsum("ncd,nd->nc", mix[:n], mean)
        return mix, shift


def contrast(tiles: Tensor) -> Tensor:
    """Covariance (C, C) of (n, C, h, w) about the mean of each tile, in double precision."""
    centred = (tiles - tiles.mean((2, 3), keepdim=True)).transpose(0, 1).flatten(1).double()
    return centred @ centred.T / centred.shape[1]


def transport(source: Tensor, target: Tensor) -> Tensor:
    """Matrix (C, C) of least change that turns covariance `source` into covariance `target`.

    The optimal transport between two normal distributions, as used for the transfer of colours
    (Pitié & Kokaram 2007, equation 11), both covariances with a small ridge.
    """
    ridge = RIDGE * source.trace() * torch.eye(len(source)).to(source)
    root, back = _power(source + ridge, 0.5), _power(source + ridge, -0.5)
    return (back @ _power(root @ (target + ridge) @ root, 0.5) @ back).float()


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, axes = torch.linalg.eigh(matrix)
    power: Tensor = (axes * values.clamp(min=1e-12) ** exponent) @ axes.T
    return power


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


class Muon(torch.optim.Adam):
    """Adam whose groups marked `muon` hold kernels that are stepped as matrices (out, in).

    References
    ----------
    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the size of
    the steps from Liu et al. 2025, "Muon is scalable for LLM training", equation 4.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Take one step in all groups."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        groups = self.param_groups
        for group in groups:
            if group["muon"]:
                alike: dict[tuple[int, ...], list[Tensor]] = {}
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        alike.setdefault(parameter.shape, []).append(parameter)
                for parameters in alike.values():
                    self._turn(parameters, group["lr"])
        self.param_groups = [group for group in groups if not group["muon"]]
        super().step()
        self.param_groups = groups
        return loss

    def _turn(self, parameters: list[Tensor], lr: float) -> None:
        """Step kernels of one shape."""
        ahead = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
                state["step"] = torch.zeros(())  # Adam looks for it in a checkpoint
            grad, momentum = parameter.grad, state["momentum"]
            assert grad is not None
            momentum.lerp_(grad, 1 - MOMENTUM)
            ahead.append(grad.lerp(momentum, MOMENTUM).flatten(1))
        steps = orthogonal(torch.stack(ahead))
        size = RMS * max(steps.shape[1:]) ** 0.5
        for parameter, step in zip(parameters, steps, strict=True):
            parameter.add_(step.view_as(parameter), alpha=-lr * size)


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon may step it: a kernel with several outputs and more inputs than `TAPS`."""
    return parameter.ndim >= 2 and len(parameter) > 1 and parameter[0].numel() > TAPS


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Singular vectors of (..., m, n) with singular values near 1, by Newton and Schulz."""
    a, b, c = 3.4445, -4.7750, 2.0315  # of a quintic that brings (0, 1] near 1
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x if wide else x.mT
    return result
