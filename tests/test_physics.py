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


@pytest.mark.parametrize("width", [0.9, 1, 1.1])
def test_moments_of_the_kernel(width):
    psf = gaussian_psf(width)
    row, col = np.mgrid[:32, :32] - 16
    assert psf.sum() == pytest.approx(1, abs=1e-12)
    assert (psf * row).sum() == pytest.approx(0, abs=1e-5)
    assert (psf * col).sum() == pytest.approx(0, abs=1e-5)
    # Covariance of an ellipse with variances 6.306, 3.340 turned by t = 3.082 rad.
    cos, sin = width * np.cos(3.082), width * np.sin(3.082)
    assert (psf * col**2).sum() == pytest.approx(6.306 * cos**2 + 3.340 * sin**2, rel=1e-3)
    assert (psf * row**2).sum() == pytest.approx(6.306 * sin**2 + 3.340 * cos**2, rel=1e-3)
    assert (psf * row * col).sum() == pytest.approx((6.306 - 3.340) * cos * sin, rel=1e-3)


def test_kernel_is_the_published_one_without_its_noise(shared):
    published = np.loadtxt(shared / "data/official-format/psf_kernel_32x32.csv", delimiter=",")
    ours = gaussian_psf()
    assert np.corrcoef(ours.ravel(), published.ravel())[0, 1] > 0.99
    # A turn or a shift of the kernel would fit worse.
    for other in (ours.T, ours[:, ::-1], np.roll(ours, 1, axis=0), np.roll(ours, 1, axis=1)):
        assert np.abs(ours - published).sum() < np.abs(other - published).sum()


@pytest.mark.parametrize("border", ["scene", "zero", "open"])
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjoint(dtype, scale, border):
    """Against the gradient of the loop-tested direction; several chunks of outputs at r = 2."""
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.random((3, 40, 136))).to(dtype).requires_grad_()
    blur = ForwardOperator((40, 136), scale, border, random.random((32, 32)), like=x)
    ax = blur(x)
    y = torch.from_numpy(random.random(ax.shape)).to(dtype)
    (transposed,) = torch.autograd.grad(ax, x, y)
    close = 1e-5 if dtype is torch.float32 else 1e-12
    np.testing.assert_allclose(blur.adjoint(y), transposed, rtol=close, atol=close)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_open_border_is_a_cut_out_of_a_scene(scale):
    """What becomes of a tile with its halo is the tile of the degraded scene."""
    scene = torch.rand(96, 128, dtype=torch.float64)
    before, after = halo(scale)
    window = scene[32 - before : 64 + after, 40 - before : 88 + after]
    low = degrade(scene, scale)[32 // scale : 64 // scale, 40 // scale : 88 // scale]
    assert torch.allclose(degrade(window, scale, "open"), low, rtol=1e-9)
