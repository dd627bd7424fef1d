"""The forward operator against a plain loop and its own algebra."""

import numpy as np
import pytest
import torch

from asnlsr.physics import ForwardOperator, degrade, gaussian_psf, halo
from benchmarks.reference.psf import plain_loop


@pytest.mark.parametrize("border", ["scene", "zero"])
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("kernel", ["gaussian", "random"])
def test_equals_the_plain_loop(kernel, scale, border):
    random = np.random.default_rng(0)
    # The random kernel has full rank and no symmetry: a flip or a lost row would show.
    psf = random.random((32, 32)) if kernel == "random" else gaussian_psf()
    image = random.random((168, 50))  # more rows than one chunk of outputs at r = 2
    low = degrade(torch.from_numpy(image), scale, border, psf).numpy()
    expected = plain_loop(image, psf, scale, border)
    np.testing.assert_allclose(low, expected, rtol=1e-6)


def test_single_precision_of_the_default_kernel():
    image = np.random.default_rng(0).random((3, 64, 96))
    low = degrade(torch.from_numpy(image).float()).numpy()
    expected = plain_loop(image, gaussian_psf(), 4, "scene")
    np.testing.assert_allclose(low, expected, rtol=2e-6)


def test_moments_of_the_kernel():
    psf = gaussian_psf()
    row, col = np.mgrid[:32, :32] - 16
    assert psf.sum() == pytest.approx(1, abs=1e-12)
    assert (psf * row).sum() == pytest.approx(0, abs=1e-5)
    assert (psf * col).sum() == pytest.approx(0, abs=1e-5)
    # Covariance of an ellipse with variances 6.306, 3.340 turned by t = 3.082 rad.
    cos, sin = np.cos(3.082), np.sin(3.082)
    assert (psf * col**2).sum() == pytest.approx(6.306 * cos**2 + 3.340 * sin**2, rel=1e-4)
    assert (psf * row**2).sum() == pytest.approx(6.306 * sin**2 + 3.340 * cos**2, rel=1e-4)
    assert (psf * row * col).sum() == pytest.approx((6.306 - 3.340) * cos * sin, rel=1e-3)


def test_wider_kernel_has_the_squared_variance():
    row, col = np.mgrid[:32, :32] - 16
    narrow, wide = gaussian_psf(0.9), gaussian_psf(1.1)
    for axis in (row, col):
        ratio = (wide * axis**2).sum() / (narrow * axis**2).sum()
        assert ratio == pytest.approx((1.1 / 0.9) ** 2, rel=1e-3)
    assert wide.sum() == pytest.approx(1)


def test_kernel_is_the_published_one_without_its_noise(shared):
    published = np.loadtxt(shared / "data/official-format/psf_kernel_32x32.csv", delimiter=",")
    ours = gaussian_psf()
    assert np.corrcoef(ours.ravel(), published.ravel())[0, 1] > 0.99
    # A turn or a shift of the kernel would fit worse.
    for other in (ours.T, ours[:, ::-1], np.roll(ours, 1, axis=0), np.roll(ours, 1, axis=1)):
        assert np.abs(ours - published).sum() < np.abs(other - published).sum()


def test_constant_stays_constant():
    low = degrade(torch.full((2, 40, 56), 0.3, dtype=torch.float64), 4, "scene")
    np.testing.assert_allclose(low, 0.3, rtol=1e-5)


def test_zero_border_loses_the_published_share_of_energy():
    low = degrade(torch.ones(1, 128, 128), 4, "zero")[0]
    assert low[8:24, 8:24].min() > 0.9999
    edge = torch.cat([low[0], low[-1], low[:, 0], low[:, -1]])
    assert 1 - edge.max().item() == pytest.approx(0.08, abs=0.01)
    assert 1 - edge.min().item() == pytest.approx(0.42, abs=0.01)


def test_grid_is_shifted_by_half_a_pixel():
    ramp = torch.arange(128.0).expand(128, 128)
    centre_of_cell = torch.arange(32) * 4 + 1.5
    shift = degrade(ramp)[16] - centre_of_cell
    np.testing.assert_allclose(shift[6:26], 0.5, atol=1e-3)


@pytest.mark.parametrize("border", ["scene", "zero"])
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("kernel", ["gaussian", "random"])
def test_operator_is_the_degradation_and_has_its_adjoint(kernel, scale, border):
    """Both directions against the loop-tested function and its gradient; size not square."""
    random = np.random.default_rng(0)
    psf = random.random((32, 32)) if kernel == "random" else gaussian_psf()
    x = torch.from_numpy(random.random((3, 40, 72))).requires_grad_()
    blur = ForwardOperator((40, 72), scale, border, psf, like=x)
    ax = degrade(x, scale, border, psf)
    np.testing.assert_allclose(blur(x).detach(), ax.detach(), rtol=1e-6)
    y = torch.from_numpy(random.random(ax.shape))
    (transposed,) = torch.autograd.grad(ax, x, y)
    np.testing.assert_allclose(blur.adjoint(y), transposed, rtol=1e-6)
    left, right = (blur(x) * y).sum().item(), (x * blur.adjoint(y)).sum().item()
    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("border", ["scene", "zero"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_adjoint_in_single_precision(scale, border):
    random = torch.Generator().manual_seed(0)
    blur = ForwardOperator((64, 96), scale, border)
    x = torch.rand(2, 64, 96, generator=random)
    y = torch.rand(2, 64 // scale, 96 // scale, generator=random)
    left, right = (blur(x).double() * y).sum(), (x * blur.adjoint(y).double()).sum()
    assert abs(left / right - 1) < 1e-6


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_open_border_is_a_cut_out_of_a_scene(scale):
    """What the operator sees of a tile with its halo is the tile of the degraded scene."""
    scene = torch.rand(96, 128, dtype=torch.float64)
    before, after = halo(scale)
    blur = ForwardOperator((32 + before + after, 48 + before + after), scale, "open", like=scene)
    window = scene[32 - before : 64 + after, 40 - before : 88 + after]
    low = degrade(scene, scale)[32 // scale : 64 // scale, 40 // scale : 88 // scale]
    assert torch.allclose(blur(window), low, rtol=1e-9)


def test_unknown_border_is_refused():
    with pytest.raises(ValueError, match="border 'none'"):
        degrade(torch.ones(32, 32), border="none")
    with pytest.raises(ValueError, match="border 'none'"):
        ForwardOperator((32, 32), border="none")
