"""The network of every band: counted by hand, blind to light, local, and any number of bands."""

import pytest
import torch

from asnlsr.models.bandwise import FIRST, DataStep
from asnlsr.models.registry import build
from asnlsr.physics import degrade, gaussian_psf, log_scale, unscale


def trained():
    """Return a network whose last layers are not zero, as after training."""
    torch.manual_seed(0)
    network = build("bandwise").eval()
    for layers in (network.shared_detail, network.own_detail):
        torch.nn.init.normal_(layers[-2].weight, std=0.03)
    return network


@pytest.mark.parametrize(("scale", "left"), [(2, 0.4), (4, 0.2)])
@torch.no_grad()
def test_data_steps_agree_with_what_was_seen(scale, left):
    """Degrading the result, by the project's operator, gives the low resolution again."""
    torch.manual_seed(0)
    truth = torch.rand(1, 2, 128, 128).log()  # a contrast of far more than any scene's
    data = DataStep(scale)
    y = log_scale(degrade(0.1 * truth.exp(), scale))

    def apart(z):
        seen = log_scale(degrade(unscale(data.inside(z)), scale))
        return (seen - y)[..., 8:-8, 8:-8].abs().mean()  # what lies outside is not reflected

    steps = [data.start(y)]
    for _ in range(3):
        steps.append(data(steps[-1], y))
    assert apart(steps[3]) < left * apart(steps[0])
    assert apart(steps[3]) < 0.05 * y.std()


@torch.no_grad()
def test_data_steps_leave_a_constant():
    data, y = DataStep(4), torch.full((1, 1, 16, 16), 0.7)
    z = data.start(y)
    assert torch.allclose(z, torch.tensor(0.7), atol=1e-6)
    assert torch.allclose(data(z, y), torch.tensor(0.7), atol=1e-5)


@torch.no_grad()
def test_starts_as_data_steps_alone():
    x = 0.5 + 0.1 * torch.rand(1, 5, 16, 20)
    data = DataStep(4)
    z = data.start(x)
    for _ in range(FIRST + 1):
        z = data(z, x)
    assert torch.allclose(build("bandwise")(x).sr, data.inside(z), atol=1e-5)


@torch.no_grad()
def test_nothing_is_below_the_floor():
    """Where the sensor saw no light, the truth is the floor of z, and none is darker."""
    x = 0.3 * torch.rand(1, 3, 16, 16)
    x[..., 8:] = 0
    assert trained()(x).sr.min() == 0


@torch.no_grad()
def test_detail_is_as_strong_as_the_contrast_that_it_is_found_in():
    """Half of the contrast, half of the detail; for as little of it as light is linear in."""
    x, network = 1e-3 * torch.rand(1, 3, 16, 16), trained()
    once, half = (network(0.5 + c * x).sr - build("bandwise")(0.5 + c * x).sr for c in (1, 0.5))
    assert torch.allclose(half, 0.5 * once, atol=0.01 * once.std())


@torch.no_grad()
def test_no_band_is_known_by_its_number():
    """Equal bands stay equal, shuffled ones come out shuffled, some are those of all.

    Also where there are more bands than are worked on at a time.
    """
    x, network = torch.rand(2, 70, 16, 16), trained()
    sr, order = network(x).sr, torch.randperm(70)
    assert torch.allclose(network(x[:, order]).sr, sr[:, order], atol=1e-5)
    bands = torch.tensor([66, 0, 31])
    assert torch.allclose(network(x, bands).sr, sr[:, bands], atol=1e-5)
    equal = network(x[:, :1].expand(-1, 8, -1, -1)).sr
    assert torch.allclose(equal, network(x[:, :1]).sr.expand_as(equal), atol=1e-5)


@torch.no_grad()
def test_what_is_far_away_does_not_count():
    """So a scene may be sharpened in overlapping parts.

    The start sees 6 pixels around it, a data step 4 + 6, the networks 1 + 2 x 6 and 2 + 1. All
    of that adds up, but the overlap of two windows is enough for a hundredth of a change.
    """
    x = 0.5 + 0.1 * torch.rand(1, 3, 16, 64)
    changed = x.clone()
    changed[..., 60] += 0.1
    network = trained()
    difference = (network(changed).sr - network(x).sr).abs().amax((0, 1, 2))
    reach = 6 + 10 + 13 + 3 + 10
    assert difference[: 4 * (60 - reach)].max() < 1e-5
    assert difference[: 4 * (60 - 18)].max() < 1e-3
    assert difference[4 * 60] > 1e-2


def test_known_blur_is_that_of_the_tiles():
    network, psf = build("bandwise"), gaussian_psf(width=0.7)
    before = network.data.spread.clone()
    network.take_psf(psf)
    assert torch.equal(network.data.known.psf, torch.from_numpy(psf))
    assert not torch.allclose(network.data.spread, before, atol=0.01)
