"""SNLSR (Hu et al. 2024): unmix, super-resolve the abundances, mix again; and A-SNLSR."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.models.layers import (
    CBAM,
    ESA,
    SuperResolution,
    doublings,
    enlarge,
    far_apart,
    standardise,
    whitening,
)
from asnlsr.models.sanl import SANL

MATERIALS = 16  # K, number of endmembers
OPEN_RELU = 5.0  # the softmax does not see it, but the ReLU before it stays open
LEVEL, SPREAD = 0.4, 0.06  # mean and standard deviation of a band of a matched tile, z


class UnmixingEncoder(nn.Module):
    """Spectra (B, C, h, w) to abundances (B, K, h, w)."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        widths = (bands, 128, 64, 32)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), CBAM(n_out), nn.Tanh()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], MATERIALS, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Unmix (B, C, h, w) to (B, K, h, w)."""
        # ReLU before the softmax is the release's: where it dies, abundances stay uniform.
        return F.relu(self.layers(x)).softmax(1)


class SpatialSpectral(nn.Module):
    """Module S: x + conv1(SANL(x) - x) + depthwise conv3(ESA(x) - x), 64 channels out."""

    def __init__(self, inputs: int, channels: int = 64) -> None:
        super().__init__()
        self.bottleneck = nn.Conv2d(inputs, channels, 1) if inputs > channels else nn.Identity()
        self.esa = ESA(channels)
        self.sanl = SANL(channels)
        self.point = nn.Conv2d(channels, channels, 1)
        self.depth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Mix spectral and spatial attention: (B, inputs, h, w) to (B, C, h, w)."""
        x = self.bottleneck(x)
        mixed: Tensor = x + self.point(self.sanl(x) - x) + self.depth(self.esa(x) - x)
        return mixed


class Stage(nn.Module):
    """Three densely connected S modules and a x2 pixel shuffle."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SpatialSpectral(channels * n) for n in (1, 2, 3))
        self.fuse = nn.Conv2d(4 * channels, channels, 1)
        self.up = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge (B, C, h, w) to (B, C, 2h, 2w)."""
        for block in self.blocks:
            # block(x) sees all earlier outputs: 64, 128, then 192 channels; 256 at the end
            x = torch.cat([x, block(x)], 1)
        return F.pixel_shuffle(self.up(self.fuse(x)), 2)


class AbundanceSR(nn.Module):
    """Network J: from abundances to the materials' shares of the missing detail."""

    def __init__(self, scale: int, channels: int = 64) -> None:
        super().__init__()
        self.head = nn.Conv2d(MATERIALS, channels, 3, padding=1)
        self.stages = nn.Sequential(*(Stage(channels) for _ in range(doublings(scale))))
        self.tail = nn.Conv2d(channels, MATERIALS, 3, padding=1)

    def forward(self, abundances: Tensor) -> Tensor:
        """Super-resolve (B, K, h, w) to (B, K, r h, r w)."""
        return self.tail(self.stages(self.head(abundances)))  # type: ignore[no-any-return]


class SNLSR(nn.Module):
    """Super-resolution through unmixing.

    Parameters
    ----------
    bands : int
        C, bands of the input.
    scale : int
        r, a power of two.
    skip : bool
        Add the bicubic enlargement of the input to the output.

    Raises
    ------
    ValueError
        If `scale` is not 2, 4 or 8.

    References
    ----------
    Hu et al. 2024, IEEE TIP 33, "Exploring the spectral prior for hyperspectral image
    super-resolution".
    """

    def __init__(self, bands: int = 30, scale: int = 4, skip: bool = True) -> None:
        super().__init__()
        self.scale, self.skip = scale, skip
        self.encoder = UnmixingEncoder(bands)
        self.decoder = nn.Conv2d(MATERIALS, bands, 1, bias=False)  # its weight: the endmembers
        self.sr = AbundanceSR(scale)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster

    def unmix(self, x: Tensor) -> Tensor:
        """Abundances (B, K, h, w) of x (B, C, h, w)."""
        return self.encoder(x)  # type: ignore[no-any-return]

    def super_resolve(self, x: Tensor, abundances: Tensor) -> Tensor:
        """Mix the super-resolved abundances and add the skip: (B, C, r h, r w)."""
        if not len(x):  # in the warm-up; a GPU has no kernels for nothing
            return x.new_zeros(0, x.shape[1], *(self.scale * side for side in x.shape[2:]))
        detail: Tensor = self.decoder(self.sr(abundances))
        return detail + enlarge(x, self.scale) if self.skip else detail

    def forward(self, x: Tensor, n_sr: int | None = None) -> SuperResolution:
        """Unmix all of x (B, C, h, w); super-resolve the first `n_sr` (default: all)."""
        abundances = self.unmix(x)
        return SuperResolution(
            sr=self.super_resolve(x[:n_sr], abundances[:n_sr]),
            reconstruction=self.decoder(abundances),
            abundances=abundances,
        )

    @torch.no_grad()
    def start(self, lr: Tensor, warming_up: bool, pool: Tensor | None = None) -> None:
        """Start from low-resolution training tiles, z (n, C, h, w). Ours.

        Before the warm-up the unmixing starts, so that it is learned in seconds, its endmembers
        as pixels of `pool` (n, C, h, w), or of the tiles themselves; after it the
        super-resolution branch, from what the warm-up has learned.
        """
        if warming_up:
            self._start_unmixing(lr, lr if pool is None else pool)
        else:
            self._start_super_resolution(lr)

    def _start_unmixing(self: Any, lr: Tensor, pool: Tensor) -> None:
        """Start encoder and endmembers from the data.

        The encoder starts as a network of single pixels (off-centre taps zero) that sees whitened
        spectra, every layer scaled to unit-variance inputs of the next (Salimans & Kingma 2016).
        Endmembers are pixels of the pool, each the farthest from those before it, so that their
        hull covers the data. A constant on all logits, invisible to the softmax, keeps the ReLU
        before it from dying, which is how abundances collapse.
        """
        pixels = pool.movedim(1, -1).flatten(0, -2)  # (n h w, C)
        self.decoder.weight[:, :, 0, 0] = far_apart(pixels, MATERIALS).T
        x = lr
        for layer in self.encoder.layers:
            if isinstance(layer, nn.Conv2d):
                middle = layer.kernel_size[0] // 2
                taps = layer.weight[:, :, middle, middle].clone()
                if x is lr:  # the first layer
                    drawn = torch.randn(taps.shape)  # by the CPU, so that a GPU starts the same
                    taps = drawn.to(taps) @ whitening(pixels)
                layer.weight.zero_()
                layer.weight[:, :, middle, middle] = taps
                standardise(layer, None, layer(x))
            x = layer(x)
        self.encoder.layers[-1].bias += OPEN_RELU

    def _start_super_resolution(self: Any, lr: Tensor) -> None:
        """Start with local contrast of about unit variance, and as the bicubic skip.

        The first kernels sum to zero and are divided by the spread of each abundance: the branch
        does not see the level, which differs between scenes and domains.
        """
        tiles = [self.encoder(tile[None]) for tile in lr]
        abundances = torch.cat(tiles).transpose(0, 1).flatten(1)
        head, tail = self.sr.head, self.sr.tail
        head.weight -= head.weight.mean((2, 3), keepdim=True)
        head.weight /= abundances.std(1).clamp(min=1e-3)[:, None, None]
        nn.init.zeros_(tail.weight)
        nn.init.zeros_(tail.bias)


def matched(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give every band of (B, C, h, w) the mean `LEVEL` and the standard deviation `SPREAD`.

    Also returns the mean and the factor (B, C, 1, 1) that lead back to x.
    """
    std, mean = torch.std_mean(x, (2, 3), keepdim=True)
    std = std.clamp(min=1e-3)
    return LEVEL + SPREAD * (x - mean) / std, mean, std / SPREAD


class MatchedSNLSR(SNLSR):
    """SNLSR whose encoder sees every band of every tile with the same mean and spread.

    The simplest alignment of domains: of the statistics of the input, with nothing to learn.
    The output gets the tile's own mean and spread back.
    """

    def unmix(self, x: Tensor) -> Tensor:
        """As `SNLSR.unmix`, of matched tiles."""
        return super().unmix(matched(x)[0])

    def super_resolve(self, x: Tensor, abundances: Tensor) -> Tensor:
        """As `SNLSR.super_resolve`, of matched tiles."""
        if not len(x):
            return super().super_resolve(x, abundances)
        x, mean, gain = matched(x)
        return mean + gain * (super().super_resolve(x, abundances) - LEVEL)

    def forward(self, x: Tensor, n_sr: int | None = None) -> SuperResolution:
        """As `SNLSR.forward`; the reconstruction is of x, not of matched tiles."""
        output: Any = super().forward(x, n_sr)
        _, mean, gain = matched(x)
        output.reconstruction = mean + gain * (output.reconstruction - LEVEL)
        return output  # type: ignore[no-any-return]

    def start(self, lr: Tensor, warming_up: bool, pool: Tensor | None = None) -> None:
        """As `SNLSR.start`, on matched tiles."""
        super().start(matched(lr)[0], warming_up, pool)


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return x; its gradient comes back times -strength (Ganin & Lempitsky 2015, eq. 3)."""
    return x.detach() - strength * (x - x.detach())


class Discriminator(nn.Module):
    """Abundance maps (B, K, h, w) to logits of the domain (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in ((MATERIALS, 16), (16, 32)):
            layers += [
                nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.LeakyReLU(0.01),
                nn.MaxPool2d(2),
                nn.Dropout2d(0.2),
            ]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classify = nn.Linear(32, 2)

    def forward(self, abundances: Tensor) -> Tensor:
        """Classify maps (B, K, h, w): logits (B, 2)."""
        return self.classify(self.features(abundances))  # type: ignore[no-any-return]


class ASNLSR(SNLSR):
    """SNLSR, gradient reversal and a discriminator on the low-resolution abundances.

    Parameters
    ----------
    bands, scale, skip
        As in `SNLSR`.
    reversal : float
        lambda: the gradient of the discriminator reaches the encoder times -lambda.
    """

    def __init__(
        self, bands: int = 30, scale: int = 4, skip: bool = True, reversal: float = 0.01
    ) -> None:
        super().__init__(bands, scale, skip)
        self.reversal = reversal
        self.discriminator = Discriminator()

    def forward(self, x: Tensor, n_sr: int | None = None) -> SuperResolution:
        """As `SNLSR.forward`, with the domain logits."""
        output: Any = super().forward(x, n_sr)
        reversed_ = reverse_gradient(output.abundances, self.reversal)
        output.domain_logits = self.discriminator(reversed_)
        return output  # type: ignore[no-any-return]


@torch.no_grad()
def encode(network: nn.Module, lr: Tensor) -> Tensor:
    """Abundances (n, K, h, w) of normalised log radiance (n, C, h, w), tile by tile."""
    device = network.decoder.weight.device  # type: ignore[union-attr]
    tiles = [network.unmix(tile[None].to(device)) for tile in lr]  # type: ignore[operator]
    return torch.cat(tiles).cpu()
