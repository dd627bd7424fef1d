"""SNLSR and A-SNLSR: what unmixes, what is reversed, and how they start."""

import pytest
import torch
from torch.nn import functional as F

from asnlsr.models.layers import far_apart, whitening
from asnlsr.models.registry import build
from asnlsr.models.snlsr import encode, matched


def test_gradient_of_the_discriminator_reaches_the_encoder_reversed():
    """It is exactly -lambda times the gradient without reversal."""
    torch.manual_seed(0)
    x, domains = torch.rand(2, 6, 16, 16), torch.tensor([0, 1])

    def encoder_gradient(reversal):
        torch.manual_seed(0)
        network = build("asnlsr", bands=6, reversal=reversal or 0.0).eval()  # no dropout
        plain = network.discriminator(network.encoder(x))
        logits = plain if reversal is None else network(x, 0).domain_logits
        F.cross_entropy(logits, domains).backward()
        return network.encoder.layers[0].weight.grad

    plain = encoder_gradient(None)
    assert plain.abs().max() > 0
    for strength in (0.01, 0.25):
        assert torch.allclose(encoder_gradient(strength), -strength * plain, rtol=1e-4, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("model", ["snlsr", "snlsr-matched", "asnlsr"])
def test_abundances_first_and_enlarging_then_are_the_same(model):
    """As `evaluate` and `upscale` do it."""
    torch.manual_seed(0)
    network, x = build(model, bands=6).eval(), torch.rand(3, 6, 16, 16)
    whole, abundances = network(x), encode(network, x)
    torch.testing.assert_close(abundances, whole.abundances)
    torch.testing.assert_close(network.super_resolve(x, abundances), whole.sr)


@torch.no_grad()
def test_only_the_first_tiles_are_super_resolved_on_demand():
    torch.manual_seed(0)
    network, x = build("asnlsr", bands=6).eval(), torch.rand(3, 6, 16, 16)
    whole, part, none = network(x), network(x, 2), network(x, 0)
    assert torch.allclose(part.sr, whole.sr[:2], atol=1e-6)
    assert len(none.sr) == 0
    assert len(none.abundances) == 3


@torch.no_grad()
def test_matched_bands_differ_in_nothing_but_their_pattern():
    """Another level and contrast of each band changes neither abundances nor the detail."""
    torch.manual_seed(0)
    network = build("snlsr-matched", bands=6).eval()
    x, gain, light = torch.rand(2, 6, 16, 16), torch.rand(1, 6, 1, 1) + 0.5, torch.rand(1, 6, 1, 1)
    plain, changed = network(x), network(gain * x + light)
    assert torch.allclose(changed.abundances, plain.abundances, atol=1e-5)
    assert torch.allclose(changed.sr, gain * plain.sr + light, atol=1e-4)
    assert torch.allclose(changed.reconstruction, gain * plain.reconstruction + light, atol=1e-4)
    std, mean = torch.std_mean(matched(x)[0], (2, 3))
    assert torch.allclose(mean, torch.tensor(0.4))
    assert torch.allclose(std, torch.tensor(0.06))


@torch.no_grad()
def test_start_of_the_unmixing_separates_and_does_not_collapse():
    torch.manual_seed(0)
    network, mixture = build("snlsr", bands=6), torch.rand(3, 2, 16, 16)
    lr = torch.einsum("cm,bmhw->bchw", torch.rand(6, 2) + 0.2, mixture)
    network.start(lr, warming_up=True)
    logits = network.encoder.layers(lr)
    assert (logits.mean((0, 2, 3)) - 5).abs().max() < 1e-3  # the ReLU is open
    assert torch.allclose(logits.std((0, 2, 3)), torch.ones(16), atol=1e-3)


@pytest.mark.parametrize("model", ["snlsr", "snlsr-matched", "asnlsr", "rcam", "srformer"])
@torch.no_grad()
def test_starts_as_the_bicubic_skip(model):
    torch.manual_seed(0)
    network, lr = build(model, bands=6).eval(), torch.rand(3, 6, 24, 24)
    network.start(lr, warming_up=True)
    network.start(lr, warming_up=False)
    bicubic = build("bicubic", bands=6)(lr).sr
    assert torch.allclose(network(lr).sr, bicubic, atol=1e-5 if model == "snlsr-matched" else 0)


@torch.no_grad()
def test_start_of_super_resolution_is_blind_to_the_level():
    torch.manual_seed(0)
    network, lr = build("snlsr", bands=6), torch.rand(3, 6, 16, 16)
    network.start(lr, warming_up=True)
    network.start(lr, warming_up=False)
    level = torch.rand(1, 16, 1, 1).expand(1, 16, 5, 5)  # abundances of a flat area
    flat = F.conv2d(level, network.sr.head.weight)
    contrast = F.conv2d(network.encoder(lr), network.sr.head.weight)
    assert flat.abs().max() < 1e-3
    assert 0.1 < contrast.std() < 1


def test_endmembers_are_extremes_and_whitening_whitens():
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    inside = 0.1 * torch.rand(200, 2, generator=generator) + 1
    chosen = far_apart(torch.cat([inside, corners]), 3)
    assert {tuple(row) for row in chosen.tolist()} == {tuple(row) for row in corners.tolist()}
    pixels = torch.randn(5000, 3, generator=generator) @ torch.rand(3, 3, generator=generator)
    covariance = torch.cov((pixels @ whitening(pixels).T).T)
    assert torch.allclose(covariance, torch.eye(3), atol=0.01)
