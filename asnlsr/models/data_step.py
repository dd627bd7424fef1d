"""What the known blur alone says of an image: a start, and steps back to what was seen. Ours."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.models.classical import CentredBicubic, enlarge_centred
from asnlsr.physics import SPAN, TOP, ForwardOperator, gaussian_psf, halo, log_scale, unscale

DAMPING = 2e-3  # lambda
SIDE = 13  # low-resolution pixels in a row and in a column over which a difference is spread
_AROUND = 4  # more of them on each side where the filters are made


class DataStep(nn.Module):
    r"""Steps towards an image that would be seen as what was seen, each nearly exact.

    .. math:: z \leftarrow z + A^\top (A A^\top + \lambda)^{-1} \bigl( z(Y) - z(A L) \bigr)

    If the blur A were one of z, a single step would end back-projection. It is one of radiance
    L, and two or three steps agree with what was seen as well as dozens of Richardson-Lucy do.
    What stands before the bracket is one filter of the low-resolution difference. The image has a
    rim, as unknown as itself, from which light fell on what was seen.

    Attributes
    ----------
    first, spread : Tensor, (r^2, 1, SIDE, SIDE)
        Filters for each of the r x r places in a low-resolution pixel: that of the start, which
        is bicubic enlargement and a step as though A blurred z, and that of a step.
    """

    first: Tensor
    spread: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.rim = -(-max(halo(scale)) // scale)  # low-resolution pixels
        self.known = CentredBicubic(scale=scale)  # keeps the PSF
        self.register_buffer("first", torch.zeros(scale**2, 1, SIDE, SIDE))
        self.register_buffer("spread", torch.zeros(scale**2, 1, SIDE, SIDE))
        self.take_psf(gaussian_psf())

    def take_psf(self, psf: NDArray[np.float64]) -> None:
        """Take over the known blur: make both filters from what becomes of one pixel."""
        n, r, (before, after) = SIDE + 2 * _AROUND, self.scale, halo(self.scale)
        side = before + r * n + after
        each = torch.eye(n * n, dtype=torch.float64).view(-1, n, n)
        pixel = each[n * n // 2]
        blur = ForwardOperator((side, side), r, "open", psf, like=each)
        damped = blur(blur.adjoint(each)).flatten(1) + DAMPING * each.flatten(1)
        spread = blur.adjoint(torch.linalg.solve(damped, pixel.flatten()).view(n, n))
        self.known.psf.copy_(torch.from_numpy(psf))
        self.spread.copy_(_taps(spread[before : side - after, before : side - after], r))
        bicubic = enlarge_centred(pixel[None, None], r)
        left = pixel - blur(F.pad(bicubic, (before, after) * 2))
        first = bicubic + _filtered(left, self.spread.to(left))
        taps = _taps(first[0, 0], r)
        self.first.copy_(taps / taps.sum((2, 3), keepdim=True))  # a constant stays

    def start(self, y: Tensor) -> Tensor:
        """Enlarge z (B, n, h, w), and the rim around it, without a look at what that gives."""
        level = y.mean((2, 3), keepdim=True)
        wide = F.pad(y - level, [self.rim] * 4, mode="replicate")
        return _filtered(wide, self.first) + level

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Take a step from z with its rim, (B, n, r (h + 2 rim), r (w + 2 rim)); none below 0."""
        before, after = (self.rim * self.scale - n for n in halo(self.scale))
        height, width = z.shape[-2:]
        radiance = unscale(z[..., before : height - after, before : width - after])
        rows, cols = radiance.shape[-2:]
        seen = self.known.blur((rows, cols), "open", y)(radiance)
        apart = y - log_scale(seen)
        # Upwards in z, downwards in radiance: a pixel that is dark by noise alone has no z.
        apart = torch.where(apart > 0, apart, (unscale(1 + apart) / TOP - 1) / SPAN)
        return (z + _filtered(F.pad(apart, [self.rim] * 4), self.spread)).clamp_(min=0)

    def inside(self, z: Tensor) -> Tensor:
        """Take the rim off."""
        rim = self.rim * self.scale
        return z[..., rim:-rim, rim:-rim]


def _taps(answer: Tensor, scale: int) -> Tensor:
    """Return the filters that answer to the middle pixel with an image."""
    far = F.pixel_unshuffle(answer[None], scale).flip(1, 2)
    return far[:, None, _AROUND:-_AROUND, _AROUND:-_AROUND]


def _filtered(y: Tensor, taps: Tensor) -> Tensor:
    """Filter (B, n, h, w) to (B, n, r h, r w), the border repeated."""
    images = F.pad(y.flatten(0, 1)[:, None], [SIDE // 2] * 4, mode="replicate")
    r = round(len(taps) ** 0.5)
    places = F.conv2d(images, taps).view(len(images), r, r, *y.shape[2:])
    # As F.pixel_shuffle, in half the time.
    return places.permute(0, 3, 1, 4, 2).reshape(*y.shape[:2], r * y.shape[2], r * y.shape[3])
