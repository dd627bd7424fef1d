"""The network of every band: counted by hand, blind to light, local, and any number of bands."""

import pytest
import torch

from asnlsr.models.bandwise import spectral_means
from asnlsr.models.layers import enlarge
from asnlsr.models.registry import build
from asnlsr.physics import gaussian_psf
from tests.conftest import Example
from tests.test_models import count


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


@pytest.mark.parametrize("deblur", [0, 1, 4])
@torch.no_grad()
def test_starts_as_bicubic_or_as_richardson_lucy_if_told_to(deblur):
    x = 0.5 + 0.1 * torch.rand(1, 5, 16, 20)
    reference = build("richardson-lucy" if deblur else "bicubic")
    if deblur:
        reference.iterations.fill_(deblur)
    assert torch.allclose(build("bandwise", deblur=deblur)(x).sr, reference(x).sr, atol=1e-5)


@torch.no_grad()
def test_neighbours_that_a_band_sees():
    """Three to each side: what two bands exchange leaves the mean of all as it is."""
    x = torch.rand(1, 20, 16, 16)
    changed, exchanged = x.clone(), 0.3 * torch.rand(16, 16)
    changed[:, 4] += exchanged
    changed[:, 15] -= exchanged
    network = trained()
    moved = (network(changed).sr - network(x).sr).abs().amax((0, 2, 3)) > 1e-4
    near = [band for band in range(20) if min(abs(band - 4), abs(band - 15)) <= 3]
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
def test_no_band_is_known_by_its_number():
    """Equal bands stay equal, reversed ones come out reversed, some are those of all.

    Also where there are more bands than are worked on at a time.
    """
    x, network = torch.rand(2, 70, 16, 16), trained()
    sr = network(x).sr
    assert torch.allclose(network(x.flip(1)).sr, sr.flip(1), atol=1e-5)
    bands = torch.tensor([66, 0, 31])
    assert torch.allclose(network(x, bands).sr, sr[:, bands], atol=1e-6)
    equal = network(x[:, :1].expand(-1, 8, -1, -1)).sr
    assert (equal - equal[:, :1]).abs().max() < 1e-6


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
    network.fit(None, Example(lr=lr, hr=hr))
    assert float(network.strength) == pytest.approx(strength, abs=1e-4)


def test_known_blur_is_that_of_the_tiles():
    network, psf = build("bandwise", deblur=1), gaussian_psf(width=0.7)
    network.take_psf(psf)
    assert torch.equal(network.deblurring.psf, torch.from_numpy(psf))


def test_spectral_means_by_hand():
    x = torch.arange(5.0)[None, :, None, None] ** 2  # 0 1 4 9 16
    means = spectral_means(x, torch.tensor([0, 2]))[0, :, :, 0, 0]
    assert torch.allclose(means, torch.tensor([[0, 1 / 2, 14 / 4, 6], [4, 14 / 3, 6, 6]]))
