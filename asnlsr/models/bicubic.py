"""Bicubic interpolation, the baseline without parameters."""

from __future__ import annotations

from torch import Tensor, nn

from asnlsr.models.output import SuperResolution, enlarge


class Bicubic(nn.Module):
    """Cubic convolution; PyTorch's a = -0.75, where Keys (1981) has -0.5."""

    def __init__(self, bands: int = 30, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> SuperResolution:
        """Enlarge (B, C, h, w) to (B, C, r h, r w)."""
        return SuperResolution(sr=enlarge(x, self.scale))
