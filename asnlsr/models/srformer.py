"""SRFormer: permuted self-attention in windows (Zhou et al. 2023)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from asnlsr.models.layers import Pointwise, SuperResolution, enlarge, upsampler

WINDOW = 6  # pixels a side; keys and values come in cells of 2 x 2, so 3 a side
SHIFT = WINDOW // 2  # of every other block
CELLS = WINDOW // 2
REFERENCE = 6  # windows a side at which the original checkpoints hold their mask (32 pixels)


def to_windows(x: Tensor, side: int = WINDOW) -> Tensor:
    """Cut (B, h, w, C) into windows of tokens: (B n, side^2, C), row by row."""
    B, h, w, C = x.shape
    x = x.reshape(B, h // side, side, w // side, side, C)
    return x.transpose(2, 3).reshape(-1, side**2, C)


def from_windows(x: Tensor, h: int, w: int) -> Tensor:
    """Put windows (B n, 36, C) together again: (B, h, w, C)."""
    x = x.view(-1, h // WINDOW, w // WINDOW, WINDOW, WINDOW, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, h, w, x.shape[-1])


def position_index() -> Tensor:
    """Entry of the bias table for each query and cell: (36, 9), by their relative position.

    Entry 5 (row + 2) + column + 2 holds the bias of a cell that lies `row` and `column` cells
    before that of the query.
    """
    place = torch.arange(CELLS)
    cell = torch.stack(torch.meshgrid(place, place, indexing="ij"), -1).view(-1, 2)  # (9, 2)
    apart = cell[:, None] - cell + CELLS - 1  # (9, 9, 2), from 0 to 4
    index = (apart * torch.tensor([2 * CELLS - 1, 1])).sum(-1)
    image = index.view(CELLS, CELLS, -1).repeat_interleave(2, 0).repeat_interleave(2, 1)
    return image.flatten(0, 1)


def shift_mask() -> Tensor:
    """Return 0, or -100 where a roll by 3 made strangers neighbours: (windows, 36, 9).

    For 6 x 6 windows. Pixels and cells fall into three regions a side: before the last window,
    and the last window before and behind the seam.
    """

    def regions(window: int, seam: int) -> Tensor:
        place = torch.arange(REFERENCE * window).flip(0)
        line = (place < window).long() + (place < seam).long()
        return to_windows((3 * line[:, None] + line)[None, :, :, None], window)

    queries, keys = regions(WINDOW, SHIFT), regions(CELLS, (SHIFT + 1) // 2)
    return -100.0 * (queries != keys.transpose(1, 2))


class PermutedAttention(nn.Module):
    """Attention of the 36 pixels of a window to its nine 2 x 2 cells, channels of a cell joined."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.bias = nn.Parameter(torch.zeros((2 * CELLS - 1) ** 2, heads))
        self.index: Tensor
        self.register_buffer("index", position_index())
        self.kv = Pointwise(width, width // 2)
        self.q = Pointwise(width, width)
        self.out = Pointwise(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend in windows (B n, 36, C); `mask` is (n, 1, 9, 36).

        Keys come before queries in the logits: a softmax over nine neighbours in memory is ten
        times as slow, and it is what the fused attention of PyTorch falls back to.
        """
        B, _, C = x.shape
        q = self.q(x).view(B, -1, self.heads, C // self.heads).permute(0, 2, 3, 1)
        kv = self.kv(x).view(B, CELLS, 2, CELLS, 2, 2, C // 4).permute(5, 0, 1, 3, 2, 4, 6)
        k, v = kv.reshape(2, B, CELLS**2, self.heads, -1).transpose(2, 3)  # (B n, heads, 9, 16)
        bias = self.bias[self.index.T].permute(2, 0, 1)  # (heads, 9, 36)
        logits = (k * self.scale) @ q
        if mask is None:
            logits = logits + bias
        else:
            logits = (logits.unflatten(0, (-1, len(mask))) + (bias + mask)).flatten(0, 1)
        y = logits.softmax(2).transpose(2, 3) @ v  # (B n, heads, 36, 16)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution of (B, h, w, C) with (C, 1, k, k), k odd, and its bias.

    The gradient of the weights takes PyTorch three times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        image, k = x.permute(0, 3, 1, 2), weight.shape[-1]
        y = F.conv2d(image, weight, bias, padding=k // 2, groups=len(weight))
        return y.permute(0, 2, 3, 1)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        C, _, k, _ = weight.shape
        flipped, image = weight.flip(2, 3), grad.permute(0, 3, 1, 2)
        grad_x = F.conv2d(image, flipped, padding=k // 2, groups=C).permute(0, 2, 3, 1)
        padded = F.pad(x, (0, 0, *[k // 2] * 4))
        column, row = padded.stride(2), padded.stride(1)
        # summed over images and rows, in single precision even where the rest is bfloat16
        wide = torch.promote_types(x.dtype, torch.float32)
        products = torch.zeros(k, k, x.shape[2], C, dtype=wide, device=x.device)
        for image, grad_image in zip(padded, grad, strict=True):
            for n, grad_row in enumerate(grad_image):
                taps = image[n:].as_strided(products.shape, (row, column, column, 1))
                products.addcmul_(taps, grad_row)
        grad_weight = products.sum(2).permute(2, 0, 1)[:, None]
        return grad_x, grad_weight, grad.sum((0, 1, 2))


class ConvFFN(nn.Module):
    """Two-layer perceptron with a depthwise convolution in between."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.expand = Pointwise(width, inner)
        self.depth = nn.Conv2d(inner, inner, 5, padding=2, groups=inner)
        self.reduce = Pointwise(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform an image of tokens (B, h, w, C)."""
        z = F.gelu(self.expand(x))
        weight, bias = self.depth.weight.to(z.dtype), self.depth.bias.to(z.dtype)  # type: ignore[union-attr]
        local = _Depthwise.apply(z, weight, bias)  # type: ignore[no-untyped-call]
        return self.reduce(z + F.gelu(local))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention in windows, shifted or not, and the perceptron, each dropped now and then."""

    def __init__(self, width: int, heads: int, shifted: bool, drop: float) -> None:
        super().__init__()
        self.shift, self.drop = SHIFT * shifted, drop
        self.mask: Tensor
        self.register_buffer("mask", shift_mask() if shifted else None)
        self.norm1 = nn.LayerNorm(width)
        self.attention = PermutedAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = ConvFFN(width, 4 * width)

    def drop_path(self, x: Tensor) -> Tensor:
        """Set x to zero for whole images at random while training (Huang et al. 2016)."""
        if not self.training or not self.drop:
            return x
        keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
        return x * (keep / (1 - self.drop))

    def mask_for(self, h: int, w: int) -> Tensor | None:
        """Return the mask of all windows of an image: (n, 1, 9, 36).

        Only the last row and column of windows have a seam, so those of 6 x 6 give all.
        """
        if not self.shift:
            return None
        places = (torch.arange(side // WINDOW, device=self.mask.device) for side in (h, w))
        rows, cols = ((place == len(place) - 1) * (REFERENCE - 1) for place in places)
        return self.mask[(REFERENCE * rows[:, None] + cols).flatten()].transpose(1, 2)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Transform an image of tokens (B, h, w, C)."""
        _, h, w, _ = x.shape
        y = self.norm1(x)
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
        y = from_windows(self.attention(to_windows(y), self.mask_for(h, w)), h, w)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + self.drop_path(y)
        return x + self.drop_path(self.ffn(self.norm2(x)))


class Group(nn.Module):
    """Six blocks and a convolution, added to the input."""

    def __init__(self, width: int, heads: int, drops: list[float]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(Block(width, heads, n % 2 == 1, drop) for n, drop in enumerate(drops))
        )
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform an image of tokens (B, h, w, C)."""
        y: Tensor = self.conv(self.blocks(x).permute(0, 3, 1, 2))
        return x + y.permute(0, 2, 3, 1)


class SRFormer(nn.Module):
    """Four groups of window attention at low resolution, then pixel shuffles.

    Tokens stay in the order (B, h, w, C), which convolutions read as channels-last images.

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
    Zhou et al. 2023, ICCV, "SRFormer: Permuted self-attention for single image
    super-resolution". The sizes are those of the A-SNLSR paper: SRFormer itself has 180
    channels, six groups and windows of 24.
    """

    def __init__(self, bands: int = 30, scale: int = 4, skip: bool = True) -> None:
        super().__init__()
        width, heads, groups, depth, features = 96, 6, 4, 6, 64
        self.scale, self.skip = scale, skip
        self.head = nn.Conv2d(bands, width, 3, padding=1)
        self.norm_in = nn.LayerNorm(width)
        drops = np.linspace(0, 0.1, groups * depth).reshape(groups, depth).tolist()
        self.groups = nn.Sequential(*(Group(width, heads, drop) for drop in drops))
        self.norm_out = nn.LayerNorm(width)
        self.fuse = nn.Conv2d(width, width, 3, padding=1)
        self.reduce = nn.Sequential(nn.Conv2d(width, features, 3, padding=1), nn.LeakyReLU(0.01))
        self.up = upsampler(features, scale)
        self.tail = nn.Conv2d(features, bands, 3, padding=1)
        self.apply(_start)

    def forward(self, x: Tensor) -> SuperResolution:
        """Super-resolve (B, C, h, w)."""
        h, w = x.shape[2:]
        padded = F.pad(x, (0, -w % WINDOW, 0, -h % WINDOW), mode="reflect")
        f = self.head(padded.contiguous(memory_format=torch.channels_last))
        tokens = self.norm_out(self.groups(self.norm_in(f.permute(0, 2, 3, 1))))
        y = self.reduce(f + self.fuse(tokens.permute(0, 3, 1, 2)))
        sr = self.tail(self.up(y))[:, :, : self.scale * h, : self.scale * w]
        return SuperResolution(sr=sr + enlarge(x, self.scale) if self.skip else sr)

    @torch.no_grad()
    def start(self, lr: Tensor, warming_up: bool) -> None:
        """Start from local contrast of unit variance, and as the bicubic skip. Ours.

        The missing detail goes with differences between neighbours, small beside the level,
        which is what random kernels answer to; from those, and at the learning rate of the other
        networks, it is still at bicubic after 1,200 steps.
        """
        self.head.weight -= self.head.weight.mean((2, 3), keepdim=True)
        self.head.weight /= self.head(lr).std((0, 2, 3))[:, None, None, None]
        for parameter in (self.head.bias, *self.tail.parameters()):
            nn.init.zeros_(parameter)  # type: ignore[arg-type]


def _start(module: nn.Module) -> None:
    """Draw the weights of linear layers and of the position bias as transformers do."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    if isinstance(module, PermutedAttention):
        nn.init.trunc_normal_(module.bias, std=0.02)
