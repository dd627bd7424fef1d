"""Layers that several networks share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.models.output import doublings


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
