"""One network for every band: nothing in it knows which band it sees. Ours."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.models.classical import CentredBicubic, enlarge_centred
from asnlsr.models.layers import SuperResolution, doublings
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


FEATURES, BLOCKS = 32, 6  # channels and residual blocks of the large network
OWN_FEATURES = 24  # channels of the small one, which has one block and runs for every band
CONTRAST = 0.1  # z; the size of local contrast, in which the networks work
FIRST = 2  # data steps before the network, after their start
PART = 8  # bands worked on at a time; more do not fit into the cache


class LocalContrast(nn.Conv2d):
    """Convolution 3 x 3 whose kernels sum to zero: it cannot see a constant."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(inputs, features, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Filter (N, inputs, h, w); outside is the border, repeated."""
        kernels = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / CONTRAST
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernels)


class Residual(nn.Module):
    """x + conv3(ReLU(conv3 x)), without biases: a factor passes through."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.second = nn.Conv2d(features, features, 3, padding=1, bias=False)
        with torch.no_grad():
            self.second.weight *= 0.3  # each block begins as a small change

    def forward(self, x: Tensor) -> Tensor:
        """Refine (N, F, h, w)."""
        refined: Tensor = x + self.second(F.relu(self.first(x)))
        return refined


def detail(features: int, scale: int) -> nn.Sequential:
    """Features (N, F, h, w) to detail (N, 1, r h, r w), which is zero before training."""
    last = nn.Conv2d(features, scale**2, 3, padding=1, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(last, nn.PixelShuffle(scale))


class Bandwise(nn.Module):
    """Data steps, and between them learned detail: what all bands share, and what one has alone.

    The known blur is undone first, as far as the data say; the network sees the result, as r^2
    images of low resolution, and adds detail; a last data step takes back any detail that
    contradicts the data.

    In log radiance, light and shade add the same to every band, and the light's spectrum adds a
    constant to a band. So the detail of the mean band is most of the detail of any band: a large
    network finds it once. A small one, the same for every band, adds the rest from the band
    itself and the features of the large one. Both see local contrast only: above the floor of z,
    z plus a constant in each band gives the output plus those constants. Neither has a bias:
    detail is as strong as the contrast that it is found in. Whatever the number of bands is, the
    weights are the same.

    Parameters
    ----------
    bands : int
        Ignored, because any number fits; the registry gives it to every network.
    scale : int
        r, a power of two.

    Raises
    ------
    ValueError
        If `scale` is not 2, 4 or 8.
    """

    def __init__(self, bands: int = 30, scale: int = 4) -> None:
        super().__init__()
        doublings(scale)
        self.scale = scale
        self.data = DataStep(scale)
        self.shared = nn.Sequential(
            LocalContrast(scale**2, FEATURES), *(Residual(FEATURES) for _ in range(BLOCKS))
        )
        self.shared_detail = detail(FEATURES, scale)
        self.guide = nn.Conv2d(FEATURES, OWN_FEATURES, 1, bias=False)
        self.own = LocalContrast(scale**2, OWN_FEATURES)
        self.own_detail = nn.Sequential(
            nn.ReLU(), Residual(OWN_FEATURES), *detail(OWN_FEATURES, scale)
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster

    def forward(self, x: Tensor, bands: Tensor | None = None) -> SuperResolution:
        """Enlarge the bands of (B, C, h, w) that have these numbers, by default all."""
        numbers = torch.arange(x.shape[1], device=x.device) if bands is None else bands
        shared = self.shared(self._seen(self._deblurred(x.mean(1, keepdim=True))))
        guide, detail = self.guide(shared), self.shared_detail(shared)
        sr = x.new_empty(len(x), len(numbers), *detail.shape[2:])
        for first in range(0, len(numbers), PART):  # hundreds of bands: a part at a time
            part = numbers[first : first + PART]
            z = self._deblurred(x[:, part])
            added = detail + self._detail_of(z, guide)
            rim = self.data.rim * self.scale
            z = self.data(z + CONTRAST * F.pad(added, [rim] * 4), x[:, part])
            sr[:, first : first + PART] = self.data.inside(z)
        return SuperResolution(sr=sr)

    def take_psf(self, psf: NDArray[np.float64]) -> None:
        """Take over the known blur, before training."""
        self.data.take_psf(psf)

    @torch.no_grad()
    def _deblurred(self, y: Tensor) -> Tensor:
        """Enlarge (B, n, h, w) without any weight, and the rim around it."""
        z = self.data.start(y)
        for _ in range(FIRST):
            z = self.data(z, y)
        return z

    def _seen(self, z: Tensor) -> Tensor:
        """Return n images with their rims as (B n, r^2, h, w)."""
        return F.pixel_unshuffle(self.data.inside(z).flatten(0, 1)[:, None], self.scale)

    def _detail_of(self, z: Tensor, guide: Tensor) -> Tensor:
        """Detail (B, n, r h, r w) of n bands, less what they share."""
        own = self.own(self._seen(z)).unflatten(0, z.shape[:2]) + guide[:, None]
        added: Tensor = self.own_detail(own.flatten(0, 1)).unflatten(0, z.shape[:2])[:, :, 0]
        return added
