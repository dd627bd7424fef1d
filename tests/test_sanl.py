"""The series form of SANL against the plain form that it replaces."""

import time

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


def test_gradient_agrees_with_finite_differences():
    q, k, v, _ = (t.double() for t in random_tokens(3, 8, 2))
    # float64, so that the differences are exact; the polynomial is off by 2e-7
    leaves = [t.requires_grad_() for t in (q, k, v)]
    assert torch.autograd.gradcheck(abundance_attention, leaves, atol=1e-5, rtol=1e-4)


def test_attention_averages_values():
    """Weights are positive and sum to 1: a constant v comes back, the rest stays in its range."""
    q, k, v, _ = random_tokens(100, 16, 3)
    assert torch.allclose(abundance_attention(q, k, torch.ones_like(v)), torch.ones_like(v))
    out = abundance_attention(q, k, v)
    assert (out <= v.amax(1, keepdim=True)).all()
    assert (out >= v.amin(1, keepdim=True)).all()


@pytest.mark.slow
def test_series_is_faster():
    """At (4, 64, 64, 64), forward and backward, at least 3.5 times (the bar of the project)."""
    torch.manual_seed(0)
    ours, plain = SANL(), with_attention(SANL(), plain_attention)
    x = torch.rand(4, 64, 64, 64)

    def best(module):
        times = []
        for _ in range(4):
            start = time.perf_counter()
            module(x).square().mean().backward()
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(plain) / best(ours) >= 3.5
