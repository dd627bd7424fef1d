"""Losses on cases with a known answer, and at the points where they could break."""

import math

import pytest
import torch

from asnlsr.metrics import spectral_angle
from asnlsr.models.registry import SuperResolution, build
from asnlsr.results import alignment
from asnlsr.training.losses import ALIGNMENTS, coral, fidelity, mmd, training_losses


def cube(*spectrum):
    """One pixel with this spectrum."""
    return torch.tensor(spectrum, dtype=torch.float32)[None, :, None, None]


@pytest.mark.parametrize(
    ("a", "b", "degrees"),
    [((1, 0), (0, 2), 90), ((1, 0), (3, 3), 45), ((1, 2), (-1, -2), 180), ((1, 2), (2, 4), 0)],
)
def test_angle_by_hand(a, b, degrees):
    assert math.degrees(spectral_angle(cube(*a), cube(*b)).item()) == pytest.approx(
        degrees, abs=1e-3
    )


def test_small_angle_is_exact_where_arccos_is_not():
    angle = spectral_angle(cube(1, 0), cube(1, 1e-5)).item()
    assert angle == pytest.approx(1e-5, rel=1e-4)  # arccos in float32 gives 0


def test_angle_with_itself_is_zero_without_a_floor():
    x = torch.rand(2, 30, 5, 5)
    assert spectral_angle(x, x).max() == 0


@pytest.mark.parametrize("b", [cube(1, 2), cube(0, 0)])
def test_gradient_is_finite_at_identical_and_zero_spectra(b):
    for start in (b.clone(), torch.zeros_like(b)):
        a = start.requires_grad_()
        spectral_angle(a, b).sum().backward()
        assert torch.isfinite(a.grad).all()


def test_fidelity_by_hand():
    """|(1,0) - (0,1)| averages to 1; the right angle adds 0.1 pi/2."""
    assert fidelity(cube(1, 0), cube(0, 1)).item() == pytest.approx(1 + 0.05 * math.pi)


def test_batch_without_source_tiles_contributes_nothing():
    lr = torch.rand(2, 3, 4, 4)
    out = SuperResolution(
        sr=torch.empty(0, 3, 16, 16, requires_grad=True), reconstruction=lr, abundances=None
    )
    losses = training_losses(out, {"lr": lr, "hr": torch.empty(0, 3, 16, 16)})
    assert losses["loss_sr"].item() == 0
    assert losses["loss_unmix"].item() == 0


def test_batch_of_target_tiles_alone_can_be_trained_on():
    """As `published` draws them, a batch may hold no source tile."""
    network = build("asnlsr")
    batch = {
        "lr": torch.rand(2, 30, 16, 16),
        "hr": torch.empty(0, 30, 64, 64),
        "domain": torch.tensor([1, 1]),
    }
    losses = training_losses(network(batch["lr"], 0), batch)
    torch.stack(list(losses.values())).sum().backward()
    assert network.decoder.weight.grad.abs().max() > 0
    assert network.sr.head.weight.grad is None


def test_coral_by_hand():
    """Covariances ((2, 2), (2, 2)) and ((2, 0), (0, 0)); their difference squared sums to 12."""
    source = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    target = torch.tensor([[5.0, 3.0], [7.0, 3.0]])  # a shift of the mean does not count
    assert coral(source, target).item() == pytest.approx(12 / (4 * 2**2))
    assert coral(source, source + 3).item() == 0


def test_mmd_is_the_measured_one_and_descends():
    """Equal to the NumPy function that chapter 5 measures with; its gradient brings them closer."""
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(40, 16, generator=generator)
    target = (0.5 + torch.rand(30, 16, generator=generator)).requires_grad_()
    loss = mmd(source, target)
    measured = alignment.mmd(source.numpy(), target.detach().numpy())
    assert loss.item() == pytest.approx(measured, rel=1e-3)
    (gradient,) = torch.autograd.grad(loss, target)
    closer = target.detach() - 0.1 * gradient / gradient.norm()
    assert (closer.mean(0) - source.mean(0)).norm() < (target.mean(0) - source.mean(0)).norm()


def test_equal_features_have_no_discrepancy():
    """As abundances are that collapsed; there is no distance to take the kernel's width from."""
    same = torch.full((6, 4), 0.25, requires_grad=True)
    loss = mmd(same, same)
    loss.backward()
    assert loss.item() == 0
    assert not same.grad.any()


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
