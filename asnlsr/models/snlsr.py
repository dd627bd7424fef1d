"""SNLSR: unmix, super-resolve the abundances, mix again (Hu et al. 2024)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.models.layers import (
    SuperResolution,
    doublings,
    enlarge,
    far_apart,
    standardise,
    whitening,
)
from asnlsr.models.sanl import SANL

OPEN_RELU = 5.0  # the softmax does not see it, but the ReLU before it stays open
LEVEL, SPREAD = 0.4, 0.06  # mean and standard deviation of a band of a matched tile, z


class CBAM(nn.Module):
    """Channel gate, then pixel gate (Woo et al. 2018), reduction 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels // 4, bias=False),
            nn.ReLU(),
            nn.Linear(channels // 4, channels, bias=False),
        )
        self.conv = nn.Conv2d(2, 1, 7, padding=3, padding_mode="reflect", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gate (B, C, h, w)."""
        pooled = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        x = x * torch.sigmoid(pooled)[:, :, None, None]
        pixel = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # (B, 2, h, w)
        return x * torch.sigmoid(self.conv(pixel))


class UnmixingEncoder(nn.Module):
    """Spectra (B, C, h, w) to abundances (B, K, h, w)."""

    def __init__(self, bands: int, materials: int) -> None:
        super().__init__()
        widths = (bands, 128, 64, 32)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), CBAM(n_out), nn.Tanh()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], materials, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Unmix (B, C, h, w) to (B, K, h, w)."""
        # ReLU before the softmax is the release's: where it dies, abundances stay uniform.
        return F.relu(self.layers(x)).softmax(1)


class ESA(nn.Module):
    """Enhanced spatial attention (Liu et al. 2020): a gate computed at low resolution."""

    def __init__(self, channels: int = 64, inner: int = 16) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.bypass = nn.Conv2d(inner, inner, 1)
        self.stride = nn.Conv2d(inner, inner, 3, stride=2)  # no padding: needs h, w >= 15
        self.refine = nn.Sequential(
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1),
        )
        self.expand = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gate (B, C, h, w), h and w at least 15."""
        c = self.reduce(x)
        d = self.refine(F.max_pool2d(self.stride(c), 7, stride=3))
        d = F.interpolate(d, size=x.shape[2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.expand(d + self.bypass(c)))


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

    def __init__(self, materials: int, scale: int, channels: int = 64) -> None:
        super().__init__()
        self.head = nn.Conv2d(materials, channels, 3, padding=1)
        self.stages = nn.Sequential(*(Stage(channels) for _ in range(doublings(scale))))
        self.tail = nn.Conv2d(channels, materials, 3, padding=1)

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
    materials : int
        K, number of endmembers.
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

    def __init__(
        self, bands: int = 30, scale: int = 4, materials: int = 16, skip: bool = True
    ) -> None:
        super().__init__()
        self.scale, self.skip = scale, skip
        self.encoder = UnmixingEncoder(bands, materials)
        self.decoder = nn.Conv2d(materials, bands, 1, bias=False)  # its weight: the endmembers
        self.sr = AbundanceSR(materials, scale)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster

    def match(self, x: Tensor) -> Tensor:
        """Return x (B, C, h, w) as the encoder sees it; here unchanged."""
        return x

    def super_resolve(self, x: Tensor, abundances: Tensor) -> Tensor:
        """Mix the super-resolved abundances and add the skip: (B, C, r h, r w)."""
        if not len(x):  # in the warm-up; a GPU has no kernels for nothing
            return x.new_zeros(0, x.shape[1], *(self.scale * side for side in x.shape[2:]))
        detail: Tensor = self.decoder(self.sr(abundances))
        return detail + enlarge(x, self.scale) if self.skip else detail

    def forward(self, x: Tensor, n_sr: int | None = None) -> SuperResolution:
        """Unmix all of x (B, C, h, w); super-resolve the first `n_sr` (default: all)."""
        abundances = self.encoder(x)
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
            lr = self.match(lr)
            self._start_unmixing(lr, lr if pool is None else pool)
        else:
            self._start_super_resolution(self.match(lr))

    def _start_unmixing(self: Any, lr: Tensor, pool: Tensor) -> None:
        """Start encoder and endmembers from the data.

        The encoder starts as a network of single pixels (off-centre taps zero) that sees whitened
        spectra, every layer scaled to unit-variance inputs of the next (Salimans & Kingma 2016).
        Endmembers are pixels of the pool, each the farthest from those before it, so that their
        hull covers the data. A constant on all logits, invisible to the softmax, keeps the ReLU
        before it from dying, which is how abundances collapse.
        """
        pixels = pool.movedim(1, -1).flatten(0, -2)  # (n h w, C)
        self.decoder.weight[:, :, 0, 0] = far_apart(pixels, self.decoder.in_channels).T
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


class MatchedSNLSR(SNLSR):
    """SNLSR whose encoder sees every band of every tile with the same mean and spread.

    The simplest alignment of domains: of the statistics of the input, with nothing to learn.
    The output gets the tile's own mean and spread back.
    """

    def match(self, x: Tensor) -> Tensor:
        """Give every band of (B, C, h, w) the mean `LEVEL` and the standard deviation `SPREAD`."""
        std, mean = torch.std_mean(x, (2, 3), keepdim=True)
        return LEVEL + SPREAD * (x - mean) / std.clamp(min=1e-3)

    def forward(self, x: Tensor, n_sr: int | None = None) -> SuperResolution:
        """As `SNLSR.forward`, on matched tiles."""
        std, mean = torch.std_mean(x, (2, 3), keepdim=True)
        gain = std.clamp(min=1e-3) / SPREAD
        output = super().forward(self.match(x), n_sr)
        assert output.reconstruction is not None
        output.sr = mean[:n_sr] + gain[:n_sr] * (output.sr - LEVEL)
        output.reconstruction = mean + gain * (output.reconstruction - LEVEL)
        return output


@torch.no_grad()
def encode(network: nn.Module, lr: Tensor) -> Tensor:
    """Abundances (n, K, h, w) of normalised log radiance (n, C, h, w), tile by tile."""
    device = network.decoder.weight.device  # type: ignore[union-attr]
    tiles = [network.encoder(tile[None].to(device)) for tile in lr]  # type: ignore[operator]
    return torch.cat(tiles).cpu()
