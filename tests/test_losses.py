"""Losses on cases with a known answer, and at the points where they could break."""

import math

import pytest
import torch

from asnlsr.models.registry import build
from asnlsr.physics import log_scale
from asnlsr.training.losses import ALIGNMENTS, coral, log_errors, training_losses


def test_log_errors_by_hand():
    """Half of the pixels off by 3 in 10 of radiance, in either band."""
    truth = torch.full((1, 2, 4, 4), 0.02)
    truth[:, 1] = 0.5  # a dark band counts as much as a bright one
    estimate = truth.clone()
    estimate[:, :, :2] *= 1.3
    in_z = math.log((math.log(1.3) / math.log(2e4)) ** 2 / 2 + 1e-6)
    both = log_errors(log_scale(estimate), log_scale(truth)).item()
    assert both == pytest.approx(in_z + 0.3 * math.log(0.3**2 / 2), rel=1e-4)


def test_coral_by_hand():
    """Covariances ((2, 2), (2, 2)) and ((2, 0), (0, 0)); their difference squared sums to 12."""
    source = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    target = torch.tensor([[5.0, 3.0], [7.0, 3.0]])  # a shift of the mean does not count
    assert coral(source, target).item() == pytest.approx(12 / (4 * 2**2))
    assert coral(source, source + 3).item() == 0


@pytest.mark.parametrize("align", ALIGNMENTS)
@pytest.mark.parametrize("domain", [0, 1])
def test_batch_of_one_domain_has_nothing_to_align(align, domain):
    """As `published` may draw it."""
    network, x = build("snlsr", bands=6), torch.rand(2, 6, 16, 16)
    source = 2 * (1 - domain)
    batch = {"lr": x, "hr": torch.rand(source, 6, 64, 64), "domain": torch.full((2,), domain)}
    losses = training_losses(network(x, source), batch, align=align)
    assert set(losses) == {"loss_unmix", "loss_sr"}
    assert torch.stack(list(losses.values())).isfinite().all()
    torch.stack(list(losses.values())).sum().backward()
    assert network.decoder.weight.grad.any()
    assert (network.sr.head.weight.grad is None) == (losses["loss_sr"] == 0) == bool(domain)


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_alignment_loss_compares_domains_and_reaches_the_encoder(align):
    torch.manual_seed(0)
    network = build("snlsr", bands=6)
    x = torch.rand(2, 6, 16, 16)
    batch = {"lr": x, "hr": torch.rand(1, 6, 64, 64), "domain": torch.tensor([0, 1])}
    loss = training_losses(network(x, 1), batch, align=align)["loss_align"]
    assert loss.item() != 0
    loss.backward()
    assert network.encoder.layers[0].weight.grad.any()
    assert not any(p.grad is not None and p.grad.any() for p in network.sr.parameters())
    same = batch | {"lr": x[:1].expand(2, -1, -1, -1)}
    assert training_losses(network(same["lr"], 1), same, align=align)["loss_align"].abs() < 1e-3
