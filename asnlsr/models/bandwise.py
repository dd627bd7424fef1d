"""One network for every band: nothing in it knows which band it sees. Ours."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.models.classical import RichardsonLucy
from asnlsr.models.layers import SuperResolution, doublings, enlarge
from asnlsr.tiles.store import Pairs

FEATURES, BLOCKS = 48, 6  # channels and residual blocks of the large network
OWN_FEATURES = 24  # channels of the small one, which has one block and runs for every band
WIDTHS = (1, 3, 7)  # bands in the spectral means around a band; the mean of all bands is added
CONTRAST = 0.1  # z; the size of local contrast, which the first convolutions divide by
_TINY = 1e-9  # keeps quotients finite
PART = 32  # bands worked on at a time, which bounds the memory for a sensor with hundreds


def spectral_means(x: Tensor, bands: Tensor) -> Tensor:
    """Means over the bands around each of some bands: (B, C, h, w) to (B, n, W, h, w).

    A window is cut off at the first and the last band. The last of the W means is that of all
    bands.
    """
    every = torch.arange(x.shape[1], device=x.device)
    distance = (bands[:, None] - every).abs()
    near = torch.stack([distance <= width // 2 for width in (*WIDTHS, 2 * len(every))], 1)
    weights = near / near.sum(2, keepdim=True)  # (n, W, C)
    return torch.einsum("nwc,bchk->bnwhk", weights.to(x), x)


class LocalContrast(nn.Conv2d):
    """Convolution 3 x 3 whose kernels sum to zero: it cannot see a constant."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(inputs, features, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Filter (N, inputs, h, w); outside is the border, repeated."""
        kernels = (self.weight - self.weight.mean((2, 3), keepdim=True)) / CONTRAST
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernels, self.bias)


class Residual(nn.Module):
    """x + conv3(ReLU(conv3 x))."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine (N, F, h, w)."""
        refined: Tensor = x + self.second(F.relu(self.first(x)))
        return refined


def detail(features: int, scale: int) -> nn.Sequential:
    """Features (N, F, h, w) to detail (N, 1, r h, r w), which is zero before training."""
    last = nn.Conv2d(features, scale**2, 3, padding=1)
    for weight in last.parameters():
        nn.init.zeros_(weight)
    return nn.Sequential(last, nn.PixelShuffle(scale))


class Bandwise(nn.Module):
    """Deblurring, and learned detail: what all bands share, and what a band has of its own.

    The known blur is undone first, by Richardson-Lucy, and the network adds to the result; it
    sees the bands, and what deblurring changed of them as r^2 more images of low resolution.

    In log radiance, light and shade add the same to every band, and the light's spectrum adds a
    constant to a band. So the detail of the mean band is most of the detail of any band: a large
    network finds it once. A small one, the same for every band, adds the rest from the band's
    spectral means and the features of the large one. Both see local contrast only: z plus a
    constant in each band gives the output plus those constants. Whatever the number of bands is,
    the weights are the same.

    Parameters
    ----------
    bands : int
        Ignored, because any number fits; the registry gives it to every network.
    scale : int
        r, a power of two.
    deblur : int
        Iterations of Richardson-Lucy; 0 starts from the bicubic enlargement.

    Attributes
    ----------
    strength : Tensor
        Factor on the learned detail, from 0 to 1: see `fit`.

    Raises
    ------
    ValueError
        If `scale` is not 2, 4 or 8.
    """

    def __init__(self, bands: int = 30, scale: int = 4, deblur: int = 0) -> None:
        super().__init__()
        doublings(scale)
        self.scale = scale
        self.strength: Tensor
        self.register_buffer("strength", torch.tensor(1.0))
        self.deblurring = RichardsonLucy(scale=scale) if deblur else None
        if self.deblurring:
            self.deblurring.iterations.fill_(deblur)
        changes = scale**2 if deblur else 0
        self.shared = nn.Sequential(
            LocalContrast(1 + changes, FEATURES), *(Residual(FEATURES) for _ in range(BLOCKS))
        )
        self.shared_detail = detail(FEATURES, scale)
        self.guide = nn.Conv2d(FEATURES, OWN_FEATURES, 1)
        self.own = LocalContrast(len(WIDTHS) + 1 + changes, OWN_FEATURES)
        self.own_detail = nn.Sequential(
            nn.ReLU(), Residual(OWN_FEATURES), *detail(OWN_FEATURES, scale)
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster

    def forward(self, x: Tensor, bands: Tensor | None = None) -> SuperResolution:
        """Enlarge the bands of (B, C, h, w) that have these numbers, by default all."""
        numbers = torch.arange(x.shape[1], device=x.device) if bands is None else bands
        mean = x.mean(1, keepdim=True)
        shared = self.shared(torch.cat([mean, *self._changed(mean, self._start(mean))], 1))
        guide = self.guide(shared)
        shared_detail = self.shared_detail(shared)
        h, w = shared_detail.shape[2:]
        sr = x.new_empty(len(x), len(numbers), h, w)  # hundreds of bands: a part at a time
        for first in range(0, len(numbers), PART):
            part = numbers[first : first + PART]
            start = self._start(x[:, part])
            seen = [spectral_means(x, part)]
            for changed in self._changed(x[:, part], start):
                seen.append(changed.reshape(len(x), len(part), -1, *x.shape[2:]))
            added = shared_detail + self._detail_of(torch.cat(seen, 2), guide)
            sr[:, first : first + PART] = start + self.strength * added
        return SuperResolution(sr=sr)

    def take_psf(self, psf: NDArray[np.float64]) -> None:
        """Take over the known blur, before training."""
        if self.deblurring:
            self.deblurring.psf.copy_(torch.from_numpy(psf))

    @torch.no_grad()
    def fit(self, source: Pairs, val: Pairs) -> None:
        """Choose `strength`, after training, by least squares on validation tiles.

        What was learned from few tiles is too sure of itself elsewhere.
        """
        self.strength.fill_(1.0)
        missing, square = 0.0, 0.0
        for lr, hr in zip(val.lr, val.hr, strict=True):
            start = self._start(lr[None])
            added = self(lr[None]).sr - start
            missing += float((added * (hr - start)).sum())
            square += float(added.square().sum())
        if square:
            self.strength.fill_(min(max(missing / square, 0.0), 1.0))

    def _start(self, x: Tensor) -> Tensor:
        """Enlarge (B, n, h, w) without any weight."""
        if self.deblurring is None:
            return enlarge(x, self.scale)
        # Richardson-Lucy passes a factor on; the floor of z, which cuts off, must not see one.
        level = x.mean((2, 3), keepdim=True) - 0.5
        with torch.no_grad():
            return self.deblurring(x - level).sr + level  # type: ignore[no-any-return]

    def _changed(self, x: Tensor, start: Tensor) -> list[Tensor]:
        """Return what deblurring changed of (B, n, h, w), as (B, n r^2, h, w); [] without it."""
        if self.deblurring is None:
            return []
        return [F.pixel_unshuffle(start - enlarge(x, self.scale), self.scale)]

    def _detail_of(self, seen: Tensor, guide: Tensor) -> Tensor:
        """Detail (B, n, r h, r w) of n bands of which (B, n, W, h, w) is seen."""
        own: Tensor = self.own(seen.flatten(0, 1))
        features = own.reshape(*seen.shape[:2], *guide.shape[1:]) + guide[:, None]
        added: Tensor = self.own_detail(features.flatten(0, 1))  # (B n, 1, r h, r w)
        return added.reshape(*seen.shape[:2], *added.shape[2:])
