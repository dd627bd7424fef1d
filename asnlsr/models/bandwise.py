"""One network for every band: nothing in it knows which band it sees. Ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.models.deconvolution import RichardsonLucy
from asnlsr.models.output import SuperResolution, doublings, enlarge

FEATURES, BLOCKS = 48, 6  # channels and residual blocks of the large network
OWN_FEATURES = 24  # channels of the small one, which has one block and runs for every band
WIDTHS = (1, 3, 7)  # bands in the spectral means around a band; the mean of all bands is added
CONTRAST = 0.1  # z; the size of local contrast, which the first convolutions divide by
PART = 32  # bands worked on at a time, which bounds the memory for a sensor with hundreds


def spectral_means(x: Tensor, bands: Tensor, widths: tuple[int, ...] = WIDTHS) -> Tensor:
    """Means over the bands around each of some bands: (B, C, h, w) to (B, n, W, h, w).

    A window is cut off at the first and the last band. The last of the W means is that of all
    bands.
    """
    every = torch.arange(x.shape[1], device=x.device)
    distance = (bands[:, None] - every).abs()
    near = torch.stack([distance <= width // 2 for width in (*widths, 2 * len(every))], 1)
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
    """Detail that all bands share, and what a band has of its own.

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
    neighbours : {1, 3, 7}
        Bands in the widest of the spectral means, beside that of all bands.
    deblur : int
        Iterations of Richardson-Lucy with the known PSF: detail is added to their result, and
        what they changed is seen too, as r^2 more images of low resolution. 0 starts from the
        bicubic enlargement. It is a setting for study, not the method.

    Raises
    ------
    ValueError
        If `scale` is not 2, 4 or 8, `neighbours` not 1, 3 or 7, or `deblur` negative.
    """

    def __init__(
        self, bands: int = 30, scale: int = 4, neighbours: int = WIDTHS[-1], deblur: int = 0
    ) -> None:
        super().__init__()
        doublings(scale)
        if neighbours not in WIDTHS or deblur < 0:
            raise ValueError(
                f"neighbours={neighbours} must be one of {WIDTHS}, deblur={deblur} 0 or more"
            )
        self.scale, self.widths = scale, WIDTHS[: WIDTHS.index(neighbours) + 1]
        self.deblurring = RichardsonLucy(scale=scale) if deblur else None
        if self.deblurring:
            self.deblurring.iterations.fill_(deblur)
        changes = scale**2 if deblur else 0
        self.shared = nn.Sequential(
            LocalContrast(1 + changes, FEATURES), *(Residual(FEATURES) for _ in range(BLOCKS))
        )
        self.shared_detail = detail(FEATURES, scale)
        self.guide = nn.Conv2d(FEATURES, OWN_FEATURES, 1)
        self.own = LocalContrast(len(self.widths) + 1 + changes, OWN_FEATURES)
        self.own_detail = nn.Sequential(
            nn.ReLU(), Residual(OWN_FEATURES), *detail(OWN_FEATURES, scale)
        )

    def forward(self, x: Tensor, bands: Tensor | None = None) -> SuperResolution:
        """Enlarge the bands of (B, C, h, w) that have these numbers, by default all."""
        numbers = torch.arange(x.shape[1], device=x.device) if bands is None else bands
        mean = x.mean(1, keepdim=True)
        shared = self.shared(torch.cat([mean, *self._changed(mean, self._start(mean))], 1))
        guide = self.guide(shared)
        sr = self._start(x[:, numbers])
        changed = [
            z.reshape(len(z), len(numbers), -1, *z.shape[2:])
            for z in self._changed(x[:, numbers], sr)
        ]
        sr += self.shared_detail(shared)  # in place: hundreds of bands take hundreds of megabytes
        for start in range(0, len(numbers), PART):
            part = slice(start, start + PART)
            seen = [spectral_means(x, numbers[part], self.widths), *(z[:, part] for z in changed)]
            sr[:, part] += self._detail_of(torch.cat(seen, 2), guide)
        return SuperResolution(sr=sr)

    def _start(self, x: Tensor) -> Tensor:
        """Enlarge (B, n, h, w) without any weight."""
        if self.deblurring is None:
            return enlarge(x, self.scale)
        with torch.no_grad():
            return self.deblurring(x).sr.clone()  # type: ignore[no-any-return]

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
