"""The series form of SANL against the plain form that it replaces."""

from timeit import repeat

import pytest
import torch

from asnlsr.models.sanl import SANL, abundance_attention
from benchmarks.reference.sanl import plain_attention, with_attention


def random_tokens(tokens, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, v, g = (torch.randn(tokens, channels, generator=generator) for _ in range(4))
    return q, k, v, g


def one_hot_tokens():
    """The worst case: q and k along one axis, so that q_i k_i is 1 or -1."""
    q, k, v, g = random_tokens(128, 64, 1)
    q[:], k[:] = 0, 0
    q[:, 3] = 1
    k[:64, 3], k[64:, 3] = 1, -1
    return q, k, v, g


def run(attention, q, k, v, g):
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    out = attention(*leaves)
    out.backward(g)
    return [out.detach(), *(t.grad for t in leaves)]


@pytest.mark.parametrize("tokens", [random_tokens(5000, 64, 0), one_hot_tokens()])
def test_series_equals_plain_form(tokens):
    ours, reference = run(abundance_attention, *tokens), run(plain_attention, *tokens)
    for n, (a, b) in enumerate(zip(ours, reference, strict=True)):
        worst = (a - b).abs().max() / b.abs().max()
        assert worst < (1e-6 if n == 0 else 1e-5), f"tensor {n}: {worst}"


@pytest.mark.slow
def test_series_is_faster():
    """At (4, 64, 64, 64), forward and backward, at least 3.5 times (the bar of the project)."""
    torch.manual_seed(0)
    ours, plain = SANL(), with_attention(SANL(), plain_attention)
    x = torch.rand(4, 64, 64, 64)

    def best(module):
        return min(repeat(lambda: module(x).square().mean().backward(), number=1, repeat=4))

    assert best(plain) / best(ours) >= 3.5
