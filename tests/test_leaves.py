"""Painted images: what they are seen as, that they differ, and edges among them."""

import numpy as np
import torch

from asnlsr.physics import degrade, gaussian_psf, unscale
from asnlsr.training.warm import BANDS, dead_leaves


def painted(seed=0, number=3, scale=4, psf=None):
    return dead_leaves(np.random.default_rng(seed), number, 64, scale, psf or gaussian_psf())


def test_low_resolution_is_the_blurred_image_with_at_most_a_hundredth_of_noise():
    lr, hr = painted()
    assert lr.shape == (3, BANDS, 16, 16)
    assert hr.shape == (3, BANDS, 64, 64)
    seen = degrade(unscale(hr), 4)
    noise = (unscale(lr) - seen).std((2, 3)) / seen.mean((2, 3))
    assert noise.max() < 0.013  # 256 draws estimate a deviation to 5 %
    assert noise.min() > 5e-5


def test_same_seed_same_images():
    (lr, hr), (again, _), (other, _) = painted(), painted(), painted(seed=1)
    assert torch.equal(lr, again)
    assert not torch.equal(lr, other)
    assert (hr[0] - hr[1]).std() > 0.005


def test_edges_make_differences_heavy_tailed():
    """Of neighbours in a noise the kurtosis is 3; where edges are rare and sharp, far more."""
    _, hr = painted(number=6)
    steps = (hr[..., 1:] - hr[..., :-1]).flatten(1)
    kurtosis = (steps**4).mean(1) / (steps**2).mean(1) ** 2
    assert kurtosis.median() > 5
