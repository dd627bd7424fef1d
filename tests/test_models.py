"""Networks: parameter counts of the papers, any size of input, gradients, learning."""

import pytest
import torch
from torch.nn import functional as F

from asnlsr.models.registry import MODELS, build
from asnlsr.models.snlsr import reverse_gradient
from asnlsr.training.losses import domain_labels, training_losses
from benchmarks.reference.sanl import plain_attention, with_attention


def count(module):
    return sum(p.numel() for p in module.parameters())


def silent_weights(network):
    """Return the names of weights that no gradient has reached."""
    return [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_parameter_counts():
    """Counts of the original checkpoints (design notes), not of this code."""
    snlsr = build("snlsr")
    assert count(snlsr) == 1_167_750
    assert count(snlsr.encoder) + count(snlsr.decoder) == 138_998
    assert count(build("asnlsr")) == 1_174_824
    assert count(build("asnlsr").discriminator) == 7_074
    assert count(build("bicubic")) == 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("h", "w"), [(16, 16), (17, 30), (33, 16)])
def test_any_size(model, h, w):
    network = build(model, bands=5).eval()
    out = network(torch.rand(2, 5, h, w))
    assert out.sr.shape == (2, 5, 4 * h, 4 * w)
    if out.abundances is not None:
        assert out.abundances.shape == (2, 16, h, w)
        assert torch.allclose(out.abundances.sum(1), torch.ones(2, h, w), atol=1e-6)
        assert out.reconstruction.shape == (2, 5, h, w)


@pytest.mark.parametrize("scale", [2, 8])
def test_other_scales(scale):
    assert build("snlsr", bands=4, scale=scale)(torch.rand(1, 4, 16, 16)).sr.shape[-1] == 16 * scale


def test_unsupported_scale_is_named():
    with pytest.raises(ValueError, match="scale 3"):
        build("snlsr", scale=3)


def test_bicubic_is_cubic_convolution():
    """Keys (1981), equation 8, with a = -0.75, at fine pixel centres (i + 0.5) / 4 - 0.5."""
    line = torch.rand(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distance = ((torch.arange(64) + 0.5) / 4 - 0.5)[:, None] - torch.arange(16)
    a, s = -0.75, distance.abs().double()
    near = (a + 2) * s**3 - (a + 3) * s**2 + 1
    far = a * (s**3 - 5 * s**2 + 8 * s - 4)
    kernel = near.where(s <= 1, far.where(s < 2, torch.zeros_like(s)))
    sr = build("bicubic")(line.expand(1, 1, 16, 16)).sr
    assert torch.allclose(sr[0, 0, 30, 12:-12], (kernel @ line)[12:-12])


def test_gradient_reaches_every_weight():
    torch.manual_seed(0)
    network = build("asnlsr", bands=6)
    out = network(torch.rand(2, 6, 16, 16))
    (out.sr.square().mean() + out.reconstruction.mean() + out.domain_logits[:, 0].sum()).backward()
    assert silent_weights(network) == []


@pytest.mark.parametrize(
    ("model", "weights"),  # two layers with bias, the norms' 2 (16 + 32), the last layer
    [
        ("asnlsr-dense", (16 * 16 + 16) + (32 * 16 + 32) + 96 + (2 * 32 + 2)),
        ("asnlsr-conv1d", (16 * 3 + 16) + (32 * 16 * 3 + 32) + 96 + (2 * 32 * 12 + 2)),
    ],
)
def test_discriminators_of_pixels(model, weights):
    """Logits per pixel, each from its own abundances; the gradient comes back times -lambda."""
    torch.manual_seed(0)
    network = build(model, bands=6, reversal=0.25).eval()
    assert count(network.discriminator) == weights
    abundances = torch.rand(2, 16, 5, 7, requires_grad=True)
    logits = network.discriminator(abundances)
    assert logits.shape == (2, 2, 5, 7)
    alone = network.discriminator(abundances[1:, :, 3:4, 2:3])
    assert torch.allclose(logits[1, :, 3, 2], alone[0, :, 0, 0], atol=1e-6)
    labels = domain_labels(logits, torch.tensor([0, 1]))
    assert not labels[0].any()
    assert labels[1].all()

    def gradient(features):
        loss = F.cross_entropy(network.discriminator(features), labels)
        return torch.autograd.grad(loss, abundances)[0]

    reversed_ = gradient(reverse_gradient(abundances, network.reversal))
    assert reversed_.abs().max() > 0
    assert torch.equal(reversed_, -0.25 * gradient(abundances))


@pytest.mark.parametrize("model", ["asnlsr-dense", "asnlsr-conv1d"])
def test_gradient_reaches_every_weight_of_pixel_discriminators(model):
    torch.manual_seed(0)
    network = build(model, bands=6)
    x, domain = torch.rand(2, 6, 16, 16), torch.tensor([0, 1])
    batch = {"lr": x, "hr": torch.rand(2, 6, 64, 64), "domain": domain}
    torch.stack(list(training_losses(network(x), batch).values())).sum().backward()
    assert silent_weights(network) == []


def test_reversed_gradient_is_minus_lambda_times():
    """What reaches the abundances is exactly -lambda times the gradient without reversal."""
    torch.manual_seed(0)
    network = build("asnlsr", bands=6, reversal=0.25).eval()  # eval: no dropout
    abundances = torch.rand(2, 16, 16, 16, requires_grad=True)
    labels = torch.tensor([0, 1])

    def gradient(features):
        loss = F.cross_entropy(network.discriminator(features), labels)
        return torch.autograd.grad(loss, abundances)[0]

    plain, reversed_ = gradient(abundances), gradient(reverse_gradient(abundances, 0.25))
    assert plain.abs().max() > 0
    assert torch.equal(reversed_, -0.25 * plain)


def test_lambda_of_the_network_reaches_the_encoder():
    """The gradient in the encoder's weights scales with lambda, and changes its sign."""

    def encoder_gradient(reversal):
        torch.manual_seed(0)
        network = build("asnlsr", bands=6, reversal=reversal).eval()
        x = torch.rand(2, 6, 16, 16)
        F.cross_entropy(network(x, 0).domain_logits, torch.tensor([0, 1])).backward()
        return network.encoder.layers[0].weight.grad

    one, minus_one = encoder_gradient(1.0), encoder_gradient(-1.0)
    assert one.abs().max() > 0
    assert torch.equal(one, -minus_one)
    assert torch.allclose(encoder_gradient(0.01), 0.01 * one, rtol=1e-4, atol=1e-12)


def test_network_equals_the_one_with_plain_attention():
    torch.manual_seed(0)
    network = build("snlsr", bands=6).eval()
    x = torch.rand(1, 6, 16, 20)
    with torch.no_grad():
        ours = network(x).sr
        reference = with_attention(network, plain_attention)(x).sr
    assert (ours - reference).abs().max() / reference.abs().max() < 1e-6


def test_only_the_first_tiles_are_super_resolved_on_demand():
    torch.manual_seed(0)
    network = build("asnlsr", bands=6).eval()
    x = torch.rand(3, 6, 16, 16)
    with torch.no_grad():
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
    std, mean = torch.std_mean(network.match(x), (2, 3))
    assert torch.allclose(mean, torch.tensor(0.4))
    assert torch.allclose(std, torch.tensor(0.06))


def learn_by_heart(network, x, hr, steps, lr):
    """Train on one batch and return the share of the first error that is left."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.l1_loss(network(x).sr, hr)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[-1] / losses[0]


@pytest.mark.parametrize("model", ["snlsr", "asnlsr"])
def test_overfits_one_batch(model):
    """A network that cannot learn one tile by heart cannot learn."""
    torch.manual_seed(0)
    network = build(model, bands=4, skip=False)
    x, hr = torch.rand(1, 4, 16, 16), torch.rand(1, 4, 1, 1).expand(1, 4, 64, 64)
    assert learn_by_heart(network, x, hr, steps=25, lr=1e-3) < 0.2
