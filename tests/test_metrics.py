"""Metrics against hand computation and their defining properties."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from asnlsr.metrics import METRICS, mean_psnr, psnr, tile_metrics
from asnlsr.physics import log_scale, unscale


def test_psnr_by_hand():
    """An error of a tenth of the peak is 20 dB; the peak is an argument, not the tile's."""
    truth = torch.zeros(2, 3, 16, 16)
    assert psnr(truth + 0.1, truth, peak=1.0).tolist() == pytest.approx([20, 20])
    assert psnr(truth + 0.1, truth, peak=2.0)[0].item() == pytest.approx(20 + 20 * math.log10(2))


def test_mean_psnr_averages_bands():
    truth = torch.ones(1, 2, 4, 4)
    truth[:, 1] = 10
    estimate = truth.clone()
    estimate[:, 0] += 0.1  # 20 dB of a peak of 1
    estimate[:, 1] += 0.1  # 40 dB of a peak of 10
    assert mean_psnr(estimate, truth).item() == pytest.approx(30, abs=1e-4)


def test_ergas_by_hand():
    """Relative errors 0.1 and 0.3 per band: 100/4 sqrt((0.01 + 0.09)/2)."""
    truth = torch.ones(1, 2, 16, 16) * torch.tensor([0.5, 0.2])[None, :, None, None]
    estimate = truth * torch.tensor([1.1, 0.7])[None, :, None, None]
    values = tile_metrics(log_scale(estimate), log_scale(truth), peak=1.0)
    assert values["ergas"].item() == pytest.approx(25 * math.sqrt(0.05), rel=1e-4)


def test_ergas_as_released_is_blind_above_half():
    """z + 0.5 is clamped to 1: no error above z = 0.5 counts."""
    truth = torch.full((1, 3, 16, 16), 0.6)
    values = tile_metrics(truth + 0.3, truth, peak=1.0)
    assert values["ergas_released"].item() == 0
    assert values["ergas"].item() > 0


def test_angles_by_hand():
    """In z, (1, 0) and (1, 1) are 45 degrees apart; scaling radiance changes no angle there."""
    a = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 16, 16)
    b = torch.tensor([1.0, 1.0])[None, :, None, None].expand(1, 2, 16, 16)
    assert tile_metrics(a, b, peak=1.0)["sam_deg"].item() == pytest.approx(45, abs=1e-3)
    radiance = torch.rand(1, 5, 16, 16) + 0.1
    values = tile_metrics(log_scale(1.5 * radiance), log_scale(radiance), peak=1.0)
    assert values["sam_rad_deg"].item() < 0.01
    assert values["sam_deg"].item() > 0.1


def gaussian_filter_11(image):
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps /= taps.sum()
    return correlate1d(
        correlate1d(image, taps, axis=-1, mode="mirror"), taps, axis=-2, mode="mirror"
    )


def test_ssim_agrees_with_its_formula():
    """Wang et al. 2004, equation 13, with an 11 x 11 Gaussian, reflected at the edge."""
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 1, 1, 48, 48))
    y = 0.7 * x + 0.3 * y
    mx, my = gaussian_filter_11(x), gaussian_filter_11(y)
    vx, vy = gaussian_filter_11(x * x) - mx**2, gaussian_filter_11(y * y) - my**2
    cov = gaussian_filter_11(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    expected = index.mean()
    ours = tile_metrics(torch.tensor(x).float(), torch.tensor(y).float(), peak=1.0)["ssim"].item()
    assert ours == pytest.approx(expected, abs=1e-4)


def test_values_do_not_depend_on_the_batch():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 3, 4, 24, 24, generator=generator)
    together = tile_metrics(a, b, peak=0.9)
    assert set(together) <= set(METRICS)
    for n in range(3):
        alone = tile_metrics(a[n : n + 1], b[n : n + 1], peak=0.9)
        for name, value in alone.items():
            assert value.shape == (1,)
            assert value.item() == pytest.approx(together[name][n].item(), rel=1e-4), name


def test_scaling_has_its_constants_and_an_inverse():
    x = torch.tensor([1e-4, 0.01, 2.0])
    z = log_scale(x)
    assert z.tolist() == pytest.approx([0, math.log(100) / math.log(2e4), 1])
    assert torch.allclose(unscale(z), x, rtol=1e-4)
    assert log_scale(torch.tensor([0.0, -1.0])).tolist() == [0, 0]
    assert np.allclose(log_scale(x.numpy()), z.numpy(), atol=1e-6)
