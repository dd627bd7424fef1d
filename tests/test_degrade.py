"""The forward operator against a plain loop and its own algebra."""

import numpy as np
import pytest
import torch

from asnlsr.degrade import degrade, gaussian_psf
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
def test_is_linear_with_a_gradient(border):
    # <A x, y> = <x, A' y> with A' from autograd.
    x = torch.randn(2, 32, 40, dtype=torch.float64, requires_grad=True)
    ax = degrade(x, 4, border)
    y = torch.randn_like(ax)
    (adjoint,) = torch.autograd.grad(ax, x, y)
    assert (ax * y).sum().item() == pytest.approx((x * adjoint).sum().item(), rel=1e-9)


def test_unknown_border_is_refused():
    with pytest.raises(ValueError, match="border 'none'"):
        degrade(torch.ones(32, 32), border="none")
