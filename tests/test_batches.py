"""Batches: what a training step may see, in what light, as a pure function of seed and step."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from asnlsr.config import Experiment
from asnlsr.physics import degrade, log_scale, unscale
from asnlsr.training.batches import Tiles, TrainingBatches, part_of, turned
from asnlsr.training.warm import Relighting, contrast
from tests.conftest import Example

SMALL = {"crop": 16, "batch": 3, "turns": False, "relight": 0.0, "light": 0.0}


def batches(target=True, model="asnlsr", recipe="warm", seed=0, **settings):
    """Five source tiles, 24 wide; pixel values tell tile, row and column."""
    place = torch.arange(24 * 24.0).view(24, 24) / 1000
    hr = torch.stack([(place + tile)[None] for tile in range(5)])
    lr = hr[:, :, ::4, ::4].clone()
    source = Example(lr=lr, hr=hr, lr_x2=hr[:, :, ::2, ::2], scale=4)
    experiment = Experiment(model, "smoke", "blind", recipe, seed, SMALL | settings)
    return TrainingBatches(source, lr + 100 if target else None, experiment)


def test_batch_is_a_function_of_seed_and_step():
    first, again, other = batches()[7], batches()[7], batches(seed=1)[7]
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["lr"], other["lr"])
    assert not torch.equal(first["lr"], batches()[8]["lr"])


def test_every_tile_is_seen_once_in_a_pass():
    """Fifteen draws of five tiles: three passes."""
    drawn = [i for step in range(5) for i in batches()._choose(step)[0]]
    for start in (0, 5, 10):
        assert sorted(drawn[start : start + 5]) == [0, 1, 2, 3, 4]


def test_target_tiles_come_last_without_truth_and_leave_source_tiles_as_they_were():
    batch, without = batches()[4], batches(target=False)[4]
    assert torch.equal(batch["hr"], without["hr"])
    assert torch.equal(batch["lr"][:3], without["lr"])
    assert batch["domain"].tolist() == [0, 0, 0, 1, 1, 1]
    assert (batch["lr"][3:] > 99).all()
    assert (batch["hr"] < 99).all()


def test_published_batches_mix_at_random():
    sizes = {len(batches(recipe="published")[step]["hr"]) for step in range(20)}
    assert len(sizes) > 1
    assert all(len(batches(recipe="published")[step]["lr"]) == 3 for step in range(20))


def relit(step, source, target, **settings):
    experiment = Experiment("asnlsr", "smoke", settings=SMALL | {"warmup_steps": 2} | settings)
    return TrainingBatches(source, target, experiment)[step]


def test_relighting_changes_spectra_alike_at_both_resolutions():
    generator = torch.Generator().manual_seed(0)
    hr, target = torch.rand(5, 4, 16, 16, generator=generator), torch.rand(2, 4, 4, 4) + 3
    tiles = Example(lr=hr[:, :, ::4, ::4].clone(), hr=hr, scale=4), target
    batch = relit(2, *tiles, relight=1.0, light=0.1)
    assert torch.allclose(batch["hr"][:, :, ::4, ::4], batch["lr"][:3], atol=1e-5)
    plain = relit(2, *tiles)
    assert not torch.allclose(batch["hr"], plain["hr"])
    light = batch["lr"][3:] - plain["lr"][3:]  # target tiles change by a light alone
    assert torch.allclose(light, light[:, :, :1, :1].expand_as(light), atol=1e-5)
    warming_up = relit(1, *tiles, relight=1.0, light=1.0)
    assert torch.equal(warming_up["lr"], relit(1, *tiles)["lr"])  # materials as they are


def test_turned_tiles_are_degraded_again():
    """Turning the low-resolution tile would be wrong: the point spread function is not round."""
    field = gaussian_filter(np.random.default_rng(0).standard_normal((1, 2, 64, 64)), (0, 0, 2, 2))
    hr = torch.from_numpy(field / 10).float() + 0.5
    lr = log_scale(degrade(unscale(hr), 4))
    settings = {"light": 0.0, "warmup_steps": 0, "batch": 1}
    experiment = Experiment("snlsr", "smoke", settings=settings)
    sets = TrainingBatches(Example(lr=lr, hr=hr, scale=4), None, experiment)
    seen = set()
    for step in range(40):
        batch = sets[step]
        k = next(k for k in range(8) if torch.equal(turned(hr, k), batch["hr"]))
        seen.add(k)
        assert torch.allclose(log_scale(degrade(unscale(batch["hr"]), 4)), batch["lr"], atol=1e-5)
        if k:
            assert not torch.allclose(turned(lr, k), batch["lr"], atol=1e-3)
    assert seen == set(range(8))


def test_half_resolution_crops_show_the_same_place_in_the_same_light():
    for step in range(5):
        batch = batches(target=False, model="rcam", light=1.0)[step]
        # of source tiles only
        assert torch.allclose(batch["lr_x2"], batch["hr"][:, :, ::2, ::2], atol=1e-5)
    assert "lr_x2" not in batches()[0]


def test_parts_of_processes_make_the_batch():
    """Every second tile; source tiles stay first, and their truth goes with them."""
    whole = batches()[0]
    parts = [part_of(whole, rank, 2) for rank in (0, 1)]
    for key, value in whole.items():
        assert torch.equal(value[::2], parts[0][key])
        assert torch.equal(value[1::2], parts[1][key])
    for part in parts:
        assert torch.equal(part["hr"][:, :, ::4, ::4], part["lr"][: len(part["hr"])])


def test_crop_larger_than_a_tile_is_named(tiny_set):
    with pytest.raises(ValueError, match=r"crop=256: asnlsr needs 60 pixels .* have 64"):
        Tiles(Experiment("asnlsr", "smoke", settings={"crop": 256}), tiny_set)


def tiles(seed, n=6, spread=(1.0, 0.5, 0.2), mean=0.0):
    """Tiles of three bands, correlated, (n, 3, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0] * torch.tensor(spread)
    noise = torch.randn(n, 3, 16, 16, generator=generator)
    return torch.einsum("cd,ndhw->nchw", mixing, noise) + mean


class FullShare(np.random.Generator):
    """Draws the largest share."""

    def random(self, size=None):
        return np.ones(size)


def test_full_share_gives_mean_and_contrast_of_the_target():
    source, target = tiles(0), tiles(1, spread=(0.3, 2.0, 0.1), mean=5.0)
    relighting = Relighting(source, target, share=1.0, light=0.0)
    mix, shift = relighting.draw(FullShare(np.random.PCG64(0)), [0], 2)
    assert torch.allclose(mix[0], mix[0].T, atol=1e-4)  # of all such matrices the nearest to none
    assert torch.equal(mix[1:], torch.eye(3).expand(2, 3, 3))  # the two target tiles
    assert not shift[1:].any()
    moved = torch.einsum("cd,ndhw->nchw", mix[0], source) + shift[0][:, None, None]
    means = target.mean((2, 3))
    assert (moved[0].mean((1, 2)) - means).abs().sum(1).min() < 1e-4  # that of one of its tiles
    assert (contrast(moved) - contrast(target)).norm() / contrast(target).norm() < 0.01


def test_light_is_a_parabola_over_the_bands():
    cubes = torch.rand(2, 8, 4, 4)
    mix, shift = Relighting(cubes, None, 1.0, light=0.2).draw(np.random.default_rng(0), [0], 4000)
    assert torch.equal(mix, torch.eye(8).expand(4001, 8, 8))
    assert shift.diff(n=3).abs().max() < 1e-5
    assert float(shift.mean(1).std()) == pytest.approx(0.2, rel=0.1)  # the constant dominates
