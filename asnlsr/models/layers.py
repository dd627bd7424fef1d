"""The one output contract of all networks, and the layers that they are built of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class SuperResolution:
    """What a network returns; fields that it does not have are None.

    Attributes
    ----------
    sr : Tensor, (B', C, r h, r w)
        Super-resolved normalised log radiance. B' is B, or fewer if only some were asked for.
    sr_half : Tensor, (B', C, r h / 2, r w / 2)
        The same at half of that size, from a progressive network.
    reconstruction : Tensor, (B, C, h, w)
        The input rebuilt from its abundances.
    abundances : Tensor, (B, K, h, w)
        Non-negative, summing to 1 over the K materials.
    domain_logits : Tensor, (B, 2)
        Class 0 is the source domain, class 1 the target domain.
    """

    sr: Tensor
    sr_half: Tensor | None = None
    reconstruction: Tensor | None = None
    abundances: Tensor | None = None
    domain_logits: Tensor | None = None


def enlarge(x: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement (a = -0.75) of (B, C, h, w) to (B, C, scale h, scale w)."""
    return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)


def doublings(scale: int) -> int:
    """Return log2 of the scale; raises `ValueError` unless it is 2, 4 or 8."""
    if scale not in (2, 4, 8):
        raise ValueError(f"scale {scale} is not supported: use 2, 4 or 8")
    return int(math.log2(scale))


class Pointwise(nn.Linear):
    """A linear layer of tokens (B, ..., n, C), computed as a 1 x 1 convolution.

    The same numbers: oneDNN is twice as fast at it as the matrix product that PyTorch calls on
    an AMD processor, and as fast elsewhere. Images of one row, because it takes over from
    sixteen images on or with more than one thread.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map the channels of tokens."""
        rows = x.reshape(-1, 1, *x.shape[-2:]).permute(0, 3, 1, 2)  # (rows, C, 1, n)
        y = F.conv2d(rows, self.weight[:, :, None, None], self.bias)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def upsampler(channels: int, scale: int) -> nn.Sequential:
    """Convolution to 4 C channels and x2 pixel shuffle, repeated: (B, C, h, w) to r h, r w."""
    layers: list[nn.Module] = []
    for _ in range(doublings(scale)):
        layers += [nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)


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


NOISE_FLOOR = 0.03  # principal components weaker than this share of the first are not whitened


def standardise(layer: Any, _: object, y: Tensor) -> Tensor:  # noqa: ANN401
    """Scale a convolution so that its outputs `y` (B, C, h, w) get mean 0 and variance 1.

    As a forward hook, it also hands these outputs on.
    """
    std, mean = y.std((0, 2, 3)), y.mean((0, 2, 3))
    layer.weight /= std[:, None, None, None]
    layer.bias[:] = (layer.bias - mean) / std
    return (y - mean[:, None, None]) / std[:, None, None]


def far_apart(pixels: Tensor, count: int) -> Tensor:
    """Choose `count` spectra of (P, C), each the farthest from the mean and those before it."""
    chosen = [pixels.mean(0)]
    distance = torch.full((len(pixels),), torch.inf, device=pixels.device)
    while len(chosen) <= count:
        distance = torch.minimum(distance, (pixels - chosen[-1]).norm(dim=1))
        chosen.append(pixels[distance.argmax()])
    return torch.stack(chosen[1:])


def whitening(pixels: Tensor) -> Tensor:
    """Matrix (C, C) that gives the principal components of (P, C) unit variance."""
    covariance = torch.cov(pixels.T.double()).cpu()  # signs of axes are a library's choice
    variance, axes = torch.linalg.eigh(covariance)
    floor = NOISE_FLOOR**2 * variance[-1]
    scaled: Tensor = axes / variance.clamp(min=floor).sqrt()
    return scaled.T.to(pixels)
