"""ESRT: convolutions that keep high frequencies, then one transformer block (Lu et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.models.layers import Pointwise, SuperResolution, enlarge, upsampler

FEATURES = 32
CHUNKS = 4  # parts of the token sequence that attention does not look beyond


def _weight() -> nn.Parameter:
    """Return the learnable factor of one summand."""
    return nn.Parameter(torch.ones(1))


def _scaled(conv: nn.Conv2d, x: Tensor, factor: Tensor) -> Tensor:
    """Factor * conv(x), at the cost of the convolution: its few weights are scaled."""
    bias = None if conv.bias is None else factor * conv.bias
    return F.conv2d(x, factor * conv.weight, bias, padding=conv.padding)


class ResidualUnit(nn.Module):
    """a x + b conv(PReLU(conv x)), narrower in between."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(FEATURES, FEATURES // 2, 3, padding=1)
        self.expand = nn.Conv2d(FEATURES // 2, FEATURES, 3, padding=1)
        self.act = nn.PReLU(FEATURES // 2)
        self.s1, self.s2 = _weight(), _weight()

    def forward(self, x: Tensor) -> Tensor:
        """Refine (B, F, h, w)."""
        y = _scaled(self.expand, self.act(self.reduce(x)), self.s2)
        return torch.addcmul(y, x, self.s1)


class ChannelGate(nn.Module):
    """x times a gate computed from its mean over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(FEATURES, FEATURES // 16, 1),
            nn.ReLU(),
            nn.Conv2d(FEATURES // 16, FEATURES, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Gate (B, F, h, w)."""
        gate: Tensor = self.gate(x.mean((2, 3), keepdim=True))
        return x * gate


class ARFB(nn.Module):
    """Adaptive residual feature block: two residual units, fused and gated."""

    def __init__(self) -> None:
        super().__init__()
        self.unit1, self.unit2 = ResidualUnit(), ResidualUnit()
        self.mix = nn.Conv2d(FEATURES, FEATURES, 3, padding=1, bias=False)
        self.fuse = nn.Conv2d(2 * FEATURES, FEATURES, 1, bias=False)
        self.attention = ChannelGate()
        self.s1 = _weight()  # in the original checkpoints, but not used
        self.s2, self.s3, self.s4, self.s5 = _weight(), _weight(), _weight(), _weight()

    def forward(self, x: Tensor) -> Tensor:
        """Refine (B, F, h, w)."""
        x1 = self.unit1(x)
        x2 = self.unit2(x1)
        factors = torch.cat([self.s2, self.s3]).repeat_interleave(FEATURES)[:, None, None]
        y = F.relu(_scaled(self.fuse, torch.cat([x2, x1], 1), factors))
        return torch.addcmul(self.s4 * x, F.relu(self.mix(self.attention(y))), self.s5)


class HighPreservingBlock(nn.Module):
    """Treats smooth and detailed parts apart, the smooth one at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.low, self.high, self.last = ARFB(), ARFB(), ARFB(), ARFB()
        self.merge = nn.Conv2d(2 * FEATURES, FEATURES, 1, bias=False)
        self.gate = ChannelGate()

    def forward(self, x: Tensor) -> Tensor:
        """Refine (B, F, h, w)."""

        def back(low: Tensor) -> Tensor:
            return F.interpolate(low, x.shape[2:], mode="bilinear", align_corners=True)

        a = self.first(x)
        low = F.avg_pool2d(a, 2)  # (B, F, h // 2, w // 2)
        high = self.high(a - back(low))
        for _ in range(5):
            low = self.low(low)
        merged = F.relu(self.merge(torch.cat([back(low), high], 1)))
        return x + self.last(self.gate(merged))  # type: ignore[no-any-return]


class ChunkedAttention(nn.Module):
    """Self-attention within chunks of N // 4 consecutive tokens; the remainder is one of its own.

    Few tokens and half the channels make it cheap: "efficient multi-head attention".
    """

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5  # that of the width before its reduction
        self.reduce = Pointwise(width, width // 2, bias=False)
        self.qkv = Pointwise(width // 2, 3 * width // 2, bias=False)
        self.out = Pointwise(width // 2, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend (B, N, width)."""
        B, N, _ = tokens.shape
        qkv = self.qkv(self.reduce(tokens)).view(B, N, 3, self.heads, -1)
        parts = []
        for chunk in qkv.split(N // CHUNKS, 1):
            q, k, v = chunk.permute(2, 0, 3, 1, 4)  # (B, heads, n, 18) each
            attended = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
            parts.append(attended.transpose(1, 2))
        return self.out(torch.cat(parts, 1).flatten(2))  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each on normalised tokens and added to them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = ChunkedAttention(width)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            Pointwise(width, width // 4), nn.ReLU(), Pointwise(width // 4, width)
        )
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform (B, N, width)."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class Body(nn.Module):
    """Three high-preserving blocks, then the transformer on 3 x 3 patches around every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(HighPreservingBlock() for _ in range(3))
        self.fuse = nn.Conv2d(3 * FEATURES, FEATURES, 3, padding=1)
        self.transformer = TransformerBlock(9 * FEATURES)
        self.tail = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.s1, self.s2 = _weight(), _weight()

    def forward(self, f: Tensor) -> Tensor:
        """Refine (B, F, h, w)."""
        outputs = [f]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        x = self.fuse(torch.cat(outputs[1:], 1))
        tokens = F.unfold(x, 3, padding=1).transpose(1, 2).contiguous()  # (B, h w, 9 F)
        patches = self.transformer(tokens).transpose(1, 2)
        x = F.fold(patches, f.shape[2:], 3, padding=1)  # overlaps are summed
        return torch.addcmul(_scaled(self.tail, x, self.s2), f, self.s1)


class ESRT(nn.Module):
    """Convolutional backbone and transformer, beside a branch straight from the first features.

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
    Lu et al. 2022, CVPR Workshops, "Transformer for single image super-resolution".
    """

    def __init__(self, bands: int = 30, scale: int = 4, skip: bool = True) -> None:
        super().__init__()
        self.scale, self.skip = scale, skip

        def to_image(bias: bool) -> nn.Sequential:
            last = nn.Conv2d(FEATURES, bands, 3, padding=1, bias=bias)
            return nn.Sequential(upsampler(FEATURES, scale), last)

        self.branch = to_image(bias=False)
        self.head = nn.Conv2d(bands, FEATURES, 3, padding=1)
        self.body = Body()
        self.tail = to_image(bias=True)
        self.neck = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster

    def forward(self, x: Tensor) -> SuperResolution:
        """Super-resolve (B, C, h, w)."""
        f = self.head(x)
        sr = self.tail(self.neck(self.body(f)))
        sr += self.branch(f).relu_()
        if self.skip:
            sr += enlarge(x, self.scale)
        return SuperResolution(sr=sr)
