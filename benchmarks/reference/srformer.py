"""SRFormer as window transformers are usually written.

Linear layers as matrix products; logits, bias and mask added in turn; the softmax over the keys;
the mask computed again in every shifted block; images made contiguous before each convolution,
whose gradients are PyTorch's.
"""

from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.models.srformer import CELLS, SHIFT, WINDOW, Block, ConvFFN, Group, PermutedAttention


def plain(network: nn.Module) -> nn.Module:
    """Put the plain formulation into an SRFormer."""
    forms = {PermutedAttention: _attention, ConvFFN: _ffn, Group: _group}
    for module in network.modules():
        if type(module) in forms:
            module.forward = MethodType(forms[type(module)], module)
        if isinstance(module, Block):
            module.mask_for = MethodType(_mask, module)
    return network


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def _attention(self: PermutedAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """Attend in windows (B n, 36, C); `mask` is (n, 36, 9)."""
    B, N, C = x.shape
    q = _linear(self.q, x).reshape(B, N, self.heads, -1).permute(0, 2, 1, 3)
    cells = _linear(self.kv, x).view(B, CELLS, 2, CELLS, 2, 2, C // 4).permute(5, 0, 1, 3, 2, 4, 6)
    k, v = cells.reshape(2, B, CELLS**2, self.heads, -1).permute(0, 1, 3, 2, 4)
    bias = self.bias[self.index.flatten()].view(N, CELLS**2, self.heads).permute(2, 0, 1)
    logits = (q * self.scale) @ k.transpose(2, 3)  # (B n, heads, 36, 9)
    logits = logits + bias.contiguous()
    if mask is not None:
        logits = logits.view(-1, len(mask), self.heads, N, CELLS**2) + mask[:, None]
        logits = logits.view(B, self.heads, N, CELLS**2)
    y = logits.softmax(-1) @ v
    return _linear(self.out, y.transpose(1, 2).reshape(B, N, C))


def _mask(self: Block, h: int, w: int) -> Tensor | None:
    """Mask (n, 36, 9) of pixels and cells: -100 between regions that the roll brought together."""
    if not self.shift:
        return None
    pixels = _regions(h, w, WINDOW, SHIFT)
    cells = _regions(h // 2, w // 2, CELLS, (SHIFT + 1) // 2)
    return -100.0 * (pixels[:, :, None] != cells[:, None])


def _regions(rows: int, cols: int, window: int, seam: int) -> Tensor:
    """Return the number of the region of every place, window by window."""
    image = torch.zeros(rows, cols)
    parts = (slice(0, -window), slice(-window, -seam), slice(-seam, None))
    for n, (row, col) in enumerate((row, col) for row in parts for col in parts):
        image[row, col] = n
    windows = image.view(rows // window, window, cols // window, window).transpose(1, 2)
    return windows.reshape(-1, window**2)


def _ffn(self: ConvFFN, x: Tensor) -> Tensor:
    z = F.gelu(_linear(self.expand, x))
    local = self.depth(z.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1).contiguous()
    return _linear(self.reduce, z + F.gelu(local))


def _group(self: Group, x: Tensor) -> Tensor:
    y = self.conv(self.blocks(x).permute(0, 3, 1, 2).contiguous())
    return x + y.permute(0, 2, 3, 1).contiguous()
