"""The network of every band: counted by hand, blind to light, local, and any number of bands."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from asnlsr.models.bandwise import abundance_maps, spectral_means
from asnlsr.models.classical import RichardsonLucy
from asnlsr.models.layers import enlarge
from asnlsr.models.registry import build
from asnlsr.physics import gaussian_psf
from tests.test_models import count, silent_weights


def trained(scale=4, seed=0, **settings):
    """Return a network whose last layers are not zero, as after training."""
    torch.manual_seed(seed)
    network = build("bandwise", scale=scale, **settings).eval()
    for layers in (network.shared_detail, network.own_detail):
        torch.nn.init.normal_(layers[-2].weight, std=0.01)
    return network


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_parameter_count(scale):
    """Of convolutions: inputs x outputs x taps + outputs."""

    def conv(inputs, outputs, side=3):
        return inputs * outputs * side**2 + outputs

    shared = conv(1, 48) + 6 * 2 * conv(48, 48) + conv(48, scale**2)
    own = conv(4, 24) + 2 * conv(24, 24) + conv(24, scale**2)
    assert count(build("bandwise", scale=scale)) == shared + conv(48, 24, side=1) + own


@pytest.mark.parametrize(
    ("bands", "h", "w", "scale"), [(1, 16, 16, 4), (7, 17, 30, 2), (150, 16, 21, 8)]
)
def test_any_number_of_bands_and_any_size(bands, h, w, scale):
    network = trained(scale)
    with torch.no_grad():
        sr = network(torch.rand(2, bands, h, w)).sr
    assert sr.shape == (2, bands, scale * h, scale * w)


def test_unsupported_scale_is_named():
    with pytest.raises(ValueError, match="scale 3"):
        build("bandwise", scale=3)


def test_starts_as_bicubic():
    x = torch.rand(1, 5, 16, 20)
    assert torch.equal(build("bandwise")(x).sr, enlarge(x, 4))


@pytest.mark.parametrize("deblur", [1, 4])
@torch.no_grad()
def test_starts_as_richardson_lucy_if_told_to(deblur):
    x = 0.5 + 0.1 * torch.rand(1, 5, 16, 20)
    reference = RichardsonLucy()
    reference.iterations.fill_(deblur)
    assert torch.allclose(build("bandwise", deblur=deblur)(x).sr, reference(x).sr, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"neighbours": 2}, {"neighbours": 9}, {"deblur": -1}, {"materials": -1}]
)
def test_settings_that_do_not_exist_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        build("bandwise", **settings)


@pytest.mark.parametrize(("neighbours", "reach"), [(1, 0), (3, 1), (7, 3)])
@torch.no_grad()
def test_neighbours_that_a_band_sees(neighbours, reach):
    """What two bands exchange leaves the mean of all as it is, and others see their own means."""
    x = torch.rand(1, 20, 16, 16)
    changed, exchanged = x.clone(), 0.3 * torch.rand(16, 16)
    changed[:, 4] += exchanged
    changed[:, 15] -= exchanged
    network = trained(neighbours=neighbours)
    moved = (network(changed).sr - network(x).sr).abs().amax((0, 2, 3)) > 1e-4
    near = [band for band in range(20) if min(abs(band - 4), abs(band - 15)) <= reach]
    assert moved.nonzero()[:, 0].tolist() == near


@pytest.mark.parametrize("deblur", [0, 3])
@torch.no_grad()
def test_light_passes_through(deblur):
    """A factor on the radiance of each band, which is a sum in z, comes out as it went in."""
    x, light = torch.rand(2, 6, 16, 18), torch.rand(2, 6, 1, 1) - 0.5
    network = trained(deblur=deblur)
    detail = network(x).sr - enlarge(x, 4)
    assert detail.std() > 0.01
    assert (network(x + light).sr - network(x).sr - light).abs().max() < 1e-4 * detail.std()


@torch.no_grad()
def test_bands_in_reverse_come_out_in_reverse():
    x = torch.rand(1, 9, 16, 16)
    network = trained()
    assert torch.allclose(network(x.flip(1)).sr, network(x).sr.flip(1), atol=1e-5)


@torch.no_grad()
def test_some_bands_are_those_of_all():
    """Also where there are more bands than are worked on at a time."""
    x = torch.rand(2, 70, 16, 16)
    network = trained()
    bands = torch.tensor([66, 0, 31])
    assert torch.allclose(network(x, bands).sr, network(x).sr[:, bands], atol=1e-6)


@torch.no_grad()
def test_equal_bands_stay_equal():
    """A network that knew which band it sees could tell them apart."""
    x = torch.rand(1, 1, 16, 16).expand(1, 8, 16, 16)
    sr = trained()(x).sr
    assert (sr - sr[:, :1]).abs().max() < 1e-6


@torch.no_grad()
def test_what_is_far_away_does_not_count():
    """So a scene may be sharpened in overlapping parts.

    The guide sees 1 + 2 x 6 pixels around it, and 2 + 1 convolutions follow; bicubic sees 2.
    """
    x = torch.rand(1, 3, 16, 48)
    changed = x.clone()
    changed[..., 40] += 1
    network = trained()
    difference = (network(changed).sr - network(x).sr).abs().amax((0, 1, 2))
    reach = 13 + 2 + 1
    assert difference[: 4 * (40 - reach)].max() < 1e-6
    assert difference[4 * 40] > 1e-3


@pytest.mark.parametrize(("truth", "strength"), [(0.3, 0.3), (1.0, 1.0), (-0.4, 0.0), (1.7, 1.0)])
@torch.no_grad()
def test_strength_is_the_share_of_the_learned_detail_that_is_in_the_truth(truth, strength):
    """Least squares has the answer where the truth is the start and a share of the detail."""
    network = trained(deblur=2)
    lr = 0.5 + 0.1 * torch.rand(3, 4, 16, 16)
    start = build("bandwise", deblur=2)(lr).sr  # has no learned detail yet
    hr = start + truth * (network(lr).sr - start)
    network.fit_strength(SimpleNamespace(val_lr=lr, val_hr=hr))
    assert float(network.strength) == pytest.approx(strength, abs=1e-4)


def test_known_blur_is_that_of_the_tiles():
    network, psf = build("bandwise", deblur=1), gaussian_psf(width=0.7)
    network.take_psf(SimpleNamespace(psf=psf.tolist()))
    assert torch.equal(network.deblurring.psf, torch.from_numpy(psf))


def test_spectral_means_by_hand():
    x = torch.arange(5.0)[None, :, None, None] ** 2  # 0 1 4 9 16
    means = spectral_means(x, torch.tensor([0, 2]))[0, :, :, 0, 0]
    assert torch.allclose(means, torch.tensor([[0, 1 / 2, 14 / 4, 6], [4, 14 / 3, 6, 6]]))


def test_abundance_maps_of_three_materials():
    """Three flat regions: three maps that are 1 in one region and 0 elsewhere, whatever the light.

    Half shade on one pixel and another light on every band change nothing.
    """
    region = torch.arange(6).repeat(4, 1) // 2  # 4 x 6 pixels, two columns of each material
    x = torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.1, 0.3], [0.1, 0.1, 0.9]])[:, region][None]
    maps = abundance_maps(x, 3)
    assert torch.allclose(maps.sum(1), torch.ones(1, 4, 6))
    pure = F.one_hot(region).permute(2, 0, 1).float()
    order = maps[0, :, 0, ::2].argmax(0)  # which map is of which region
    assert sorted(order.tolist()) == [0, 1, 2]
    assert torch.allclose(maps[0, order], pure, atol=1e-6)
    lit = x + torch.tensor([0.3, -0.2, 0.1])[:, None, None]
    lit[..., 2, 3] -= 0.2
    assert torch.allclose(abundance_maps(lit, 3), maps, atol=1e-6)


@torch.no_grad()
def test_a_network_with_abundance_maps_is_blind_to_light():
    x = torch.rand(2, 5, 16, 16, dtype=torch.float64)
    network = trained(materials=4).double()
    light = torch.linspace(-0.2, 0.3, 5)[:, None, None]
    sr = network(x).sr
    assert torch.allclose(network(x + light).sr, sr + light, atol=1e-9)
    network.edges.weight.zero_()
    assert not torch.allclose(network(x).sr, sr, atol=1e-6)  # the maps do something


@pytest.mark.parametrize("settings", [{}, {"materials": 4}])
def test_gradient_reaches_every_weight(settings):
    network = trained(**settings)
    network(torch.rand(2, 6, 16, 16)).sr.square().mean().backward()
    assert silent_weights(network) == []


def test_overfits_one_batch():
    torch.manual_seed(0)
    network = build("bandwise")
    x, hr = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 64, 64)
    hr = F.avg_pool2d(hr, 5, 1, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = F.mse_loss(network(x).sr, hr)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
