"""SRFormer: its parts against plain forms, and how it starts."""

import torch
from torch import nn
from torch.nn import functional as F

from asnlsr.models.registry import build
from asnlsr.models.srformer import Block, from_windows, to_windows


def test_windows_are_the_squares_of_the_image():
    image = torch.rand(2, 12, 18, 4)
    windows = to_windows(image)
    assert torch.equal(windows[7].view(6, 6, 4), image[1, :6, 6:12])  # image 1, window (0, 1)
    assert torch.equal(from_windows(windows, 12, 18), image)


def plain_attention(block, x, mask):
    """Query by query and cell by cell, as the paper says; `mask` is (windows, 36, 9)."""
    q = x @ block.q.weight.T + block.q.bias
    kv = x @ block.kv.weight.T + block.kv.bias
    cell = [[6 * (2 * r + i) + 2 * c + j for i in (0, 1) for j in (0, 1)]
            for r in range(3) for c in range(3)]  # fmt: skip
    k, v = (
        torch.stack([torch.cat([half[:, p] for p in pixels], -1) for pixels in cell], 1)
        for half in kv.chunk(2, -1)
    )  # (windows, 9, 96)
    out = torch.empty_like(q)
    for i in range(36):
        mine = next(n for n, pixels in enumerate(cell) if i in pixels)
        entry = [5 * (mine // 3 - n // 3 + 2) + mine % 3 - n % 3 + 2 for n in range(9)]
        for head in range(block.heads):
            part = slice(16 * head, 16 * head + 16)
            logits = (k[:, :, part] @ q[:, i, part, None])[..., 0] / 4 + block.bias[entry, head]
            logits = logits + mask[:, i].repeat(len(x) // len(mask), 1)
            out[:, i, part] = (logits.softmax(-1)[:, None] @ v[:, :, part])[:, 0]
    return out @ block.out.weight.T + block.out.bias


def test_shifted_block_equals_the_plain_form():
    torch.manual_seed(0)
    block, x = Block(96, 6, shifted=True, drop=0).eval(), torch.randn(2, 18, 12, 96)
    nn.init.normal_(block.attention.bias)
    mask = block.mask_for(18, 12)[:, 0].transpose(1, 2)
    y = block.norm1(x).roll((-3, -3), (1, 2))
    y = from_windows(plain_attention(block.attention, to_windows(y), mask), 18, 12)
    y = x + y.roll((3, 3), (1, 2))
    ffn = block.ffn
    z = F.gelu(F.linear(block.norm2(y), ffn.expand.weight, ffn.expand.bias))
    z = z + F.gelu(ffn.depth(z.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    expected = y + F.linear(z, ffn.reduce.weight, ffn.reduce.bias)
    assert torch.allclose(block(x), expected, atol=1e-5)


def test_dropped_paths_keep_the_mean():
    torch.manual_seed(0)
    block, x = Block(96, 6, shifted=False, drop=0.25), torch.ones(4000, 1, 1, 1)
    dropped = block.drop_path(x)
    assert set(dropped.flatten().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(dropped.mean().item() - 1) < 4 * (1 / 3 / 4000) ** 0.5  # four standard errors
    assert torch.equal(block.eval().drop_path(x), x)


@torch.no_grad()
def test_start_is_blind_to_the_level():
    torch.manual_seed(0)
    network, lr = build("srformer", bands=6).eval(), torch.rand(3, 6, 24, 24)
    network.start(lr, warming_up=False)
    flat = F.conv2d(torch.rand(1, 6, 1, 1).expand(1, 6, 5, 5), network.head.weight)
    assert flat.abs().max() < 1e-4
    assert torch.allclose(network.head(lr).std((0, 2, 3)), torch.ones(96), atol=1e-3)
