"""Methods without training: their algebra, and truths that they must find."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from asnlsr.metrics import psnr
from asnlsr.models.classical import LIMIT, enlarge_centred
from asnlsr.models.registry import build
from asnlsr.physics import ForwardOperator, degrade, gaussian_psf, halo, log_scale, unscale
from tests.conftest import Example, smooth_radiance

ITERATIVE = ["back-projection", "richardson-lucy"]


def scene(seed=0, side=160):
    """Radiance (1, 5, side, side), with texture."""
    cube = smooth_radiance(side, side, 5, seed)
    return torch.from_numpy(np.moveaxis(cube, -1, 0).copy())[None]


def tile_of(radiance, r=4):
    """Return z of the middle 64 x 64 pixels and of their low resolution, blurred with the rest."""
    inner, low = slice(48, 112), slice(48 // r, 112 // r)
    return log_scale(radiance[..., inner, inner]), log_scale(degrade(radiance, r)[..., low, low])


def example(seed=0, border="scene"):
    """Return a source tile to learn from, or one to validate on."""
    hr, lr = tile_of(scene(seed))
    return Example(lr=lr, hr=hr, psf=gaussian_psf(), border=border)


def test_centred_bicubic_puts_a_ramp_where_it_belongs():
    """On the mean over the four places in a pixel, whose errors are odd for any a (Keys 1981)."""
    ramp = 0.3 + 0.002 * torch.arange(160.0, dtype=torch.float64)
    low = degrade(ramp.expand(1, 1, 160, 160))[..., 12:28, 12:28]
    for name, expected in (("bicubic", 0.5), ("bicubic-centred", 0)):
        z = build(name)(low).sr[..., 16:48]
        offset = (z - ramp[64:96]).unflatten(-1, (8, 4)).mean(-1) / 0.002
        # `bicubic-centred` is told its input's logarithm, and takes it back: rounding only
        assert torch.allclose(offset, torch.full_like(offset, expected), atol=2e-3)


def test_centred_bicubic_brightens_a_border_of_zeros():
    flat = torch.full((1, 2, 64, 64), 0.02)
    low = log_scale(degrade(flat, 4, "zero"))
    network = build("bicubic-centred")
    network.fit(example(border="zero"), example(1))
    assert (unscale(network(low).sr) / 0.02 - 1).abs().max() < 1e-4
    assert (unscale(build("bicubic")(low).sr) / 0.02 - 1).abs().max() > 0.4  # as chapter 2 says


@pytest.mark.parametrize("border", ["zero", "open"])
def test_richardson_lucy_keeps_flux_and_sign(border):
    """The sum of A L is that of Y after every update, whatever the start: Lucy 1974."""
    before, after = halo(4) if border == "open" else (0, 0)
    blur = ForwardOperator((64 + before + after,) * 2, 4, border)
    start = log_scale(0.05 * torch.rand(1, 3, *[64 + before + after] * 2) + 1e-3)
    seen = 0.02 * torch.rand(1, 3, 16, 16) + 1e-3
    updates = build("richardson-lucy").iterate(blur, log_scale(seen), start)
    for z in islice(updates, 5):
        radiance = unscale(z)
        assert (radiance > 0).all()
        flux = blur(radiance).sum((2, 3)) / seen.sum((2, 3))
        assert torch.allclose(flux, torch.ones(()), atol=1e-4)


@pytest.mark.parametrize("model", ITERATIVE)
def test_truth_is_a_fixed_point(model):
    """An estimate that explains what was seen is not changed."""
    before, after = halo(4)
    truth = scene()[..., : 64 + before + after, : 64 + before + after]
    blur = ForwardOperator((64 + before + after,) * 2, 4, "open")
    z = log_scale(truth)
    first = next(build(model).iterate(blur, log_scale(blur(truth)), z))
    assert (first - z).abs().max() < 1e-5


@pytest.mark.parametrize("model", ITERATIVE)
def test_iterations_explain_what_was_seen(model):
    """Each brings the degraded estimate closer to the input, and the estimate to the truth."""
    hr, lr = tile_of(scene())
    network = build(model)
    estimates = list(islice(network.estimates(lr), 11))
    quality = [float(psnr(z, hr, 1).mean()) for z in estimates]
    assert quality[10] > quality[0] + 0.5
    inner = slice(4, -4)  # where the cut tile can be degraded without its surroundings

    def misfit(z):
        return float((log_scale(degrade(unscale(z))) - lr)[..., inner, inner].abs().mean())

    assert misfit(estimates[10]) < 0.3 * misfit(estimates[0])


def test_unknown_surroundings_are_better_than_mirrored_ones():
    """Light from outside fell on the border of a tile that was cut out of a degraded scene."""
    hr, lr = tile_of(scene())
    network = build("richardson-lucy")
    blur = ForwardOperator((64, 64), 4, "scene")
    estimates = (
        next(islice(network.estimates(lr), 30, None)),
        next(islice(network.iterate(blur, lr, enlarge_centred(lr, 4)), 29, None)),
    )
    rim = torch.ones(64, 64, dtype=torch.bool)
    rim[8:-8, 8:-8] = False
    open_, mirrored = (float((z - hr)[..., rim].square().mean()) for z in estimates)
    assert open_ < mirrored


@pytest.mark.parametrize("model", ["bicubic-centred", *ITERATIVE, "linear"])
def test_brighter_in_brighter_out(model):
    """A factor on the radiance passes through: the same method for bright and dark bands."""
    _, lr = tile_of(scene())
    network = build(model)
    network.fit(example(), example(1))
    assert torch.allclose(network(lr + 0.1).sr, network(lr).sr + 0.1, atol=1e-5)


def test_number_of_iterations_is_the_least_that_does_on_validation():
    """No more than 0.02 dB below the best of those tried, and one fewer would be."""
    network, val = build("richardson-lucy"), example(1)
    network.fit(example(), val)
    lr, hr = val.lr[:, ::5], val.hr[:, ::5]
    curve = [float(psnr(z, hr, 1)) for z in islice(network.estimates(lr), LIMIT + 1)]
    chosen = int(network.iterations)
    assert chosen > 1
    assert curve[chosen] >= max(curve) - 0.02
    assert max(curve[:chosen]) < max(curve) - 0.02
    assert float(psnr(network(lr).sr, hr, 1)) == pytest.approx(curve[chosen], abs=1e-4)


def test_linear_filter_finds_a_filter_that_is_there():
    """Where high resolution is an exact linear function of low resolution, so is the answer."""
    random = torch.Generator().manual_seed(0)
    taps = torch.rand(16, 1, 3, 3, generator=random)
    taps /= taps.sum((2, 3), keepdim=True)
    lr = torch.rand(40, 1, 16, 16, generator=random)
    hr = F.pixel_shuffle(F.conv2d(F.pad(lr, [1] * 4, "replicate"), taps), 4)
    network = build("linear", bands=1)
    network.fit(Example(lr=lr[:30], hr=hr[:30]), Example(lr=lr[30:], hr=hr[30:]))
    assert (network(lr[30:]).sr - hr[30:]).abs().max() < 1e-3
    assert torch.allclose(network.taps[:, :, 2:5, 2:5], taps, atol=1e-3)


def test_momentum_saves_half_of_the_updates(monkeypatch):
    """Against the plain updates of Richardson 1972, in PSNR."""
    network, val, steps = build("richardson-lucy"), example(1), 16
    lr, hr = val.lr[:, ::5], val.hr[:, ::5]
    fast = psnr(next(islice(network.estimates(lr), steps, None)), hr, 1)
    monkeypatch.setattr("asnlsr.models.classical._further", lambda z, before, k: z)
    slow = psnr(next(islice(network.estimates(lr), 2 * steps, None)), hr, 1)
    assert (fast > slow).all()
