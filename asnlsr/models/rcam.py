"""RCAM: progressive super-resolution with residual channel attention (Zhang et al. 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from asnlsr.models.layers import SuperResolution, doublings, enlarge, standardise

LAYER_TILES = 16  # enough to tell how far the outputs of a layer spread
STAGE_END = 0.1  # spread of what the last convolution of a stage gives to the enlargement


class ChannelAttention(nn.Module):
    """Residual channel attention unit: y + y * gate(mean of y), y = conv1(ReLU(conv1 x))."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(inputs, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1)
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mix and gate: (B, inputs, h, w) to (B, channels, h, w)."""
        y: Tensor = self.mix(x)
        gate: Tensor = self.gate(y)
        return y * (gate + 1)


class DenseBlock(nn.Module):
    """Four units in a chain, whose outputs are fused together."""

    def __init__(self, inputs: int, channels: int, fuse: nn.Module) -> None:
        super().__init__()
        widths = (inputs, channels, channels, channels)
        self.units = nn.ModuleList(ChannelAttention(n, channels) for n in widths)
        self.fuse = fuse

    def forward(self, x: Tensor) -> Tensor:
        """Fuse the four outputs: (B, inputs, h, w) to (B, outputs of `fuse`, h, w)."""
        outputs = []
        for unit in self.units:
            x = unit(x)
            outputs.append(x)
        return self.fuse(torch.cat(outputs, 1))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Four densely connected blocks and a transposed convolution of stride 2."""

    def __init__(self, bands: int, channels: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(bands, channels, 1), nn.ReLU(inplace=True))
        fuse: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(4 * channels, channels, 3, padding=1), nn.ReLU(inplace=True))
            for _ in range(3)
        ]
        fuse.append(nn.Sequential(nn.Conv2d(4 * channels, bands, 1), nn.LeakyReLU(0.01)))
        self.blocks = nn.ModuleList(
            DenseBlock((n + 1) * channels, channels, last) for n, last in enumerate(fuse)
        )
        self.up = nn.ConvTranspose2d(bands, bands, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge (B, C, h, w) to (B, C, 2h, 2w)."""
        x = self.stem(x)
        *dense, last = self.blocks
        for block in dense:
            x = torch.cat([x, block(x)], 1)  # 128, 192, then 256 channels
        return self.up(last(x))  # type: ignore[no-any-return]


class RCAM(nn.Module):
    """A x2 stage per factor 2, each corrected by the bicubic enlargement of the input.

    Parameters
    ----------
    bands : int
        C, bands of the input.
    scale : int
        r, a power of two.
    skip : bool
        Add the bicubic enlargement of the input to the output of every stage.

    Raises
    ------
    ValueError
        If `scale` is not 2, 4 or 8.

    References
    ----------
    Zhang et al. 2023, CAAI Trans. Intell. Technol. 9, "RGB-guided hyperspectral image
    super-resolution with deep progressive learning"; here without its RGB branch.
    """

    def __init__(self, bands: int = 30, scale: int = 4, skip: bool = True) -> None:
        super().__init__()
        self.skip = skip
        self.stages = nn.ModuleList(Stage(bands) for _ in range(doublings(scale)))

    def forward(self, x: Tensor) -> SuperResolution:
        """Super-resolve (B, C, h, w); `sr_half` is what the last stage starts from."""
        y, half = x, None
        for n, stage in enumerate(self.stages, 1):
            half = y if n > 1 else None
            y = stage(y)
            if self.skip:
                y += enlarge(x, 2**n)
        return SuperResolution(sr=y, sr_half=half)

    @torch.no_grad()
    def start(self, lr: Tensor, warming_up: bool) -> None:
        """Start from local contrast, layers scaled, and as the bicubic skip. Ours.

        Some thirty layers of single pixels hand on the level of the bands and hardly their
        detail: from random weights RCAM is still at bicubic after 1,000 steps. Here the
        convolutions over neighbours start with kernels that sum to zero, and the outputs of each
        layer with zero mean and unit variance (Salimans & Kingma 2016). From whitened spectra, as
        SNLSR starts, it learns the noise of single tiles and stays at bicubic too.
        """
        hooks = []
        stages: Any = self.stages
        for stage in stages:
            for name, layer in stage.named_modules():
                if isinstance(layer, nn.Conv2d) and "gate" not in name:
                    if layer.kernel_size[0] > 1:
                        layer.weight -= layer.weight.mean((2, 3), keepdim=True)
                    hooks.append(layer.register_forward_hook(standardise))
            for parameter in stage.up.parameters():
                nn.init.zeros_(parameter)
        self(lr[:: -(-len(lr) // LAYER_TILES)])
        for hook in hooks:
            hook.remove()
        for stage in stages:
            for parameter in stage.blocks[-1].fuse[0].parameters():
                parameter *= STAGE_END
