"""ESRT: its parts against plain forms."""

import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from asnlsr.models.esrt import ARFB, ChunkedAttention, HighPreservingBlock


@pytest.mark.parametrize("n", [256, 357])  # 357 = 4 * 89 + 1: a fifth chunk of one token
def test_attention_stays_in_chunks(n):
    """One token after the other, one head after the other."""
    torch.manual_seed(0)
    block, tokens = ChunkedAttention(48, heads=3), torch.randn(2, n, 48)
    q, k, v = (tokens @ block.reduce.weight.T @ block.qkv.weight.T).chunk(3, -1)
    out = torch.zeros(2, n, 24)
    for start in range(0, n, n // 4):
        for head in range(3):
            part = np.s_[:, start : start + n // 4, 8 * head : 8 * head + 8]
            logits = q[part] @ k[part].mT * 16**-0.5  # of 48 channels by 3
            out[part] = logits.softmax(-1) @ v[part]
    expected = out @ block.out.weight.T + block.out.bias
    assert torch.allclose(block(tokens), expected, atol=1e-5)


def test_feature_block_equals_its_formula():
    """Scales that are folded into weights give what scaled summands give."""
    torch.manual_seed(0)
    block, x = ARFB(), torch.randn(1, 32, 9, 11)
    scales = [p for name, p in block.named_parameters() if re.search(r"s\d$", name)]
    assert len(scales) == 5 + 2 * 2
    with torch.no_grad():
        for scale in scales:
            scale.copy_(torch.randn(1))

    def unit(u, x):
        return u.s1 * x + u.s2 * u.expand(F.prelu(u.reduce(x), u.act.weight))

    x1 = unit(block.unit1, x)
    x2 = unit(block.unit2, x1)
    y = F.relu(block.fuse(torch.cat([block.s2 * x2, block.s3 * x1], 1)))
    y = y * block.attention.gate(y.mean((2, 3), keepdim=True))
    expected = block.s4 * x + block.s5 * F.relu(block.mix(y))
    assert torch.allclose(block(x), expected, atol=1e-5)


def test_half_size_branch_survives_odd_sizes():
    """What leaves the block depends on the pixels of an odd last row too."""
    torch.manual_seed(0)
    block = HighPreservingBlock()
    x = torch.randn(1, 32, 17, 19, requires_grad=True)
    block(x)[0, 0, -1, -1].backward()
    assert x.grad[0, :, -1, -1].abs().min() > 0
