"""Metrics and distances of domains: by hand, by algebra, on known distributions."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel

from asnlsr.metrics import (
    METRICS,
    domain_distances,
    mean_psnr,
    mmd,
    pixels,
    proxy_a_distance,
    psnr,
    spectral_angle,
    tile_metrics,
)
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


def test_ssim_agrees_with_its_formula():
    """Wang et al. 2004, equation 13, with an 11 x 11 Gaussian, reflected at the edge."""
    mean = partial(gaussian_filter, sigma=1.5, radius=5, axes=(2, 3), mode="mirror")
    x, y = np.random.default_rng(0).random((2, 1, 1, 48, 48))
    y = 0.7 * x + 0.3 * y
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    ours = tile_metrics(torch.tensor(x).float(), torch.tensor(y).float(), peak=1.0)["ssim"].item()
    assert ours == pytest.approx(index.mean(), abs=1e-4)


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


def cube(*spectrum):
    """One pixel with this spectrum."""
    return torch.tensor(spectrum, dtype=torch.float32)[None, :, None, None]


@pytest.mark.parametrize(
    ("a", "b", "degrees"),
    [((1, 0), (0, 2), 90), ((1, 0), (3, 3), 45), ((1, 2), (-1, -2), 180), ((1, 2), (2, 4), 0)],
)
def test_angle_by_hand(a, b, degrees):
    wide = [cube(*spectrum).expand(1, 2, 16, 16) for spectrum in (a, b)]
    assert tile_metrics(*wide, peak=1.0)["sam_deg"].item() == pytest.approx(degrees, abs=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_metric_of_nan_is_nan(bad):
    """Of the tile that holds it, in any one value, and whatever the other tile is."""
    truth = 0.1 + 0.8 * torch.rand(3, 4, 32, 32)
    truth[1, :, 4, 5] = 0  # a zero spectrum is no excuse
    estimate = truth.clone() + 0.01
    estimate[:2, 2, 4, 5] = bad
    for name, values in tile_metrics(estimate, truth, peak=1.0).items():
        assert not (values[:2].isfinite().any() and math.isnan(bad)), name
        assert values[2].isfinite(), name
        if name == "sam_deg":
            assert values[:2].isnan().all()


def test_small_angles_are_exact_where_arccos_is_not():
    angle = spectral_angle(cube(1, 0), cube(1, 1e-5)).item()
    assert angle == pytest.approx(1e-5, rel=1e-4)  # arccos in float32 gives 0
    x = torch.rand(2, 30, 5, 5)
    assert spectral_angle(x, x).max() == 0


@pytest.mark.parametrize("b", [cube(1, 2), cube(0, 0)])
def test_gradient_is_finite_at_identical_and_zero_spectra(b):
    for start in (b.clone(), torch.zeros_like(b)):
        a = start.requires_grad_()
        spectral_angle(a, b).sum().backward()
        assert torch.isfinite(a.grad).all()


def normal(n, *mean, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, len(mean))) + mean
    return torch.from_numpy(rows)


def test_mmd_is_that_of_the_kernels_means():
    """Equation 3 of Gretton et al. 2012: no pixel is compared with itself."""
    source, target = normal(15, 0, 0, 0), normal(12, 1, 0, 0, seed=1)
    gamma = 1 / (2 * np.median(pdist(torch.cat([source, target]))) ** 2)
    within = sum(
        rbf_kernel(part, gamma=gamma)[~np.eye(len(part), dtype=bool)].mean()
        for part in (source, target)
    )
    across = rbf_kernel(source, target, gamma=gamma).mean()
    assert float(mmd(source, target)) == pytest.approx(within - 2 * across, rel=1e-9)


@pytest.mark.parametrize(
    ("apart", "sizes", "tolerance"),
    [
        (100, (50, 50, 50), 0),
        (0, (4000, 4000, 4000), 0.1),  # 8,000 coin flips: a standard deviation of 0.022
        (1, (4000, 4000, 4000), 0.06),
        (1, (5000, 100, 2000), 0.15),  # always "source" would be right in 98 %, and tells nothing
    ],
)
def test_proxy_a_distance_is_that_of_the_best_classifier(apart, sizes, tolerance):
    """Unit normals at distance d: error Φ(-d/2) = erfc(d/√8)/2."""
    source, target, test = sizes
    train = normal(source, 0, 0), normal(target, apart, 0, seed=1)
    held_out = normal(source, 0, 0, seed=2), normal(test, apart, 0, seed=3)
    expected = 2 - 2 * math.erfc(apart / math.sqrt(8))
    assert proxy_a_distance(train, held_out) == pytest.approx(expected, abs=tolerance)


def test_pixels_keep_their_spectra_and_are_drawn_without_replacement():
    maps = torch.arange(2 * 3 * 10 * 10.0).view(2, 3, 10, 10)
    rows = pixels(maps)
    assert rows.shape == (200, 3)
    assert torch.equal(rows[100 + 2 * 10 + 3], maps[1, :, 2, 3])
    drawn = pixels(maps, 150, seed=0)
    assert len(set(map(tuple, drawn.tolist())) & set(map(tuple, rows.tolist()))) == 150
    assert torch.equal(drawn, pixels(maps, 150, seed=0))
    assert not torch.equal(drawn, pixels(maps, 150, seed=1))
    assert len(pixels(maps, 1000)) == 200  # all there are


def random_maps(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_distances_of_domains_that_share_nothing_all_and_their_means():
    """In two domains the same pixels are drawn: of equal ones each is taken for either as often."""
    maps = random_maps(1, 40, 4, 8, 8)
    nothing = domain_distances(maps, maps + 10)
    assert nothing["pad_pixels"] == nothing["pad_tiles"] == 2
    # Half of the pairs of pixels are 20 apart, so that the median distance and kernel know it.
    assert nothing["mmd_pixels"] > 0.5
    same = domain_distances(maps, maps.clone())
    assert [same["pad_pixels"], same["pad_tiles"]] == pytest.approx([0, 0], abs=1e-9)
    assert abs(same["mmd_pixels"]) < 0.01
    spread = domain_distances(maps, 0.5 + 3 * (maps - 0.5))  # the same means within noise
    assert spread["mmd_pixels"] > max(0.05, 5 * abs(same["mmd_pixels"]))


def test_equal_features_have_no_discrepancy():
    """As abundances are that collapsed; there is no distance to take the kernel's width from."""
    same = torch.full((6, 4), 0.25, requires_grad=True)
    loss = mmd(same, same)
    loss.backward()
    assert loss.item() == 0
    assert not same.grad.any()


def test_overlap_by_hand():
    """The smaller of the mean abundances: 0.2 and 0.4 of (0.2, 0.8) and (0.6, 0.4)."""
    noise = 1e-3 * random_maps(0, 2, 4, 2, 8, 8)  # nothing to classify otherwise
    source, target = torch.tensor([[0.2, 0.8], [0.6, 0.4]])[:, None, :, None, None] + noise
    assert domain_distances(source, target)["overlap"] == pytest.approx(0.6, abs=2e-3)
    assert domain_distances(source, source)["overlap"] == pytest.approx(1, abs=2e-3)
