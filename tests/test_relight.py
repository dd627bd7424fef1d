"""Relighting: source tiles that get the statistics of the target."""

import numpy as np
import pytest
import torch

from asnlsr.training.relight import Relighting, contrast, transport


def tiles(seed, n=6, spread=(1.0, 0.5, 0.2), mean=0.0):
    """Tiles of three bands, correlated, (n, 3, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0] @ torch.diag(
        torch.tensor(spread)
    )
    noise = torch.randn(n, 3, 16, 16, generator=generator)
    return torch.einsum("cd,ndhw->nchw", mixing, noise) + mean


def test_contrast_is_the_covariance_within_tiles():
    cubes = tiles(0) + torch.arange(6.0)[:, None, None, None]  # tiles of other brightness
    within = [np.cov(cube.reshape(3, -1).numpy(), bias=True) for cube in cubes]
    np.testing.assert_allclose(contrast(cubes).numpy(), np.mean(within, axis=0), rtol=1e-4)


def test_transport_gives_the_wanted_covariance_by_a_symmetric_matrix():
    source, target = contrast(tiles(0)), contrast(tiles(1, spread=(0.3, 2.0, 0.1)))
    matrix = transport(source, target).double()
    assert torch.allclose(matrix, matrix.T, atol=1e-4)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()
    reached = matrix @ source @ matrix.T
    assert (reached - target).norm() / target.norm() < 0.01  # the ridge


def test_transport_of_equal_covariances_changes_nothing():
    covariance = contrast(tiles(0))
    assert torch.allclose(transport(covariance, covariance), torch.eye(3), atol=1e-4)


class FullShare(np.random.Generator):
    """Draws the largest share."""

    def random(self, size=None):
        return np.ones(size)


def test_full_share_gives_mean_and_contrast_of_the_target():
    source, target = tiles(0), tiles(1, spread=(0.3, 2.0, 0.1), mean=5.0)
    relighting = Relighting(source, target, share=1.0, light=0.0)
    mix, shift = relighting.draw(FullShare(np.random.PCG64(0)), [0], 2)
    assert torch.equal(mix[1:], torch.eye(3).expand(2, 3, 3))  # the two target tiles
    assert not shift[1:].any()
    moved = torch.einsum("cd,ndhw->nchw", mix[0], source) + shift[0][:, None, None]
    means = target.mean((2, 3))
    assert (moved[0].mean((1, 2)) - means).abs().sum(1).min() < 1e-4  # that of one of its tiles
    assert (contrast(moved) - contrast(target)).norm() / contrast(target).norm() < 0.01


def test_light_is_a_parabola_over_the_bands():
    cubes = torch.rand(2, 8, 4, 4)
    mix, shift = Relighting(cubes, None, 1.0, light=0.2).draw(np.random.default_rng(0), [0, 1], 1)
    assert torch.equal(mix, torch.eye(8).expand(3, 8, 8))
    assert shift.abs().max() > 0.05
    assert shift.diff(n=3).abs().max() < 1e-5


def test_spread_of_the_light():
    cubes = torch.rand(2, 8, 4, 4)
    _, shift = Relighting(cubes, None, 1.0, light=0.2).draw(np.random.default_rng(0), [], 4000)
    assert float(shift.mean(1).std()) == pytest.approx(0.2, rel=0.1)  # the constant dominates
