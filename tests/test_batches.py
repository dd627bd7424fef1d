"""Batches: what a training step may see, and that it is a pure function of seed and step."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from asnlsr.config import SINGLE_IMAGE, training_config
from asnlsr.models.registry import MODELS
from asnlsr.physics import degrade, log_scale, unscale
from asnlsr.tiles.store import load_z, open_tiles, read_split, select, tile_ids
from asnlsr.training.batches import TileDataModule, TrainingBatches, turned

CONFIG = training_config("smoke", "asnlsr", "published", {"crop": 16, "batch": 3})


def batches(target=True, mixed=False, seed=0):
    """Five source tiles, 24 wide; pixel values tell tile, row and column."""
    place = torch.arange(24 * 24.0).view(24, 24) / 1000
    hr = torch.stack([(place + tile)[None] for tile in range(5)])
    lr = hr[:, :, ::4, ::4].clone()
    return TrainingBatches(lr, hr, lr + 100 if target else None, CONFIG, seed, mixed)


def test_batch_is_a_function_of_seed_and_step():
    first, again, other = batches()[7], batches()[7], batches(seed=1)[7]
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["lr"], other["lr"])
    assert not torch.equal(first["lr"], batches()[8]["lr"])


def test_low_and_high_resolution_crops_show_the_same_place():
    for step in range(5):
        batch = batches()[step]
        assert batch["hr"].shape == (3, 1, 16, 16)
        assert torch.equal(batch["hr"][:, :, ::4, ::4], batch["lr"][:3])


def test_every_tile_is_seen_once_in_a_pass():
    """Fifteen draws of five tiles: three passes."""
    drawn = [i for step in range(5) for i in batches()._choose(step)[0]]
    for start in (0, 5, 10):
        assert sorted(drawn[start : start + 5]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("shares", "expected"), [((1, 0), "A"), ((0, 1), "B"), ((0.5, 0.5), "AB")])
def test_whole_steps_learn_from_smaller_images(shares, expected):
    """Truth is such an image, turned; the input is what the known blur makes of it."""
    images = {
        name: place + torch.rand(2, 1, 32, 32) / 9 for name, place in (("A", 0.2), ("B", 0.6))
    }
    args = batches(target=False)
    made = TrainingBatches(
        args.source_lr, args.source_hr, None, CONFIG, 0, False,
        smaller=list(zip(shares, images.values(), strict=True)),
    )  # fmt: skip
    seen = set()
    for step in range(12):
        batch = made[step]
        assert batch["hr"].shape == (3, 1, 32, 32)
        for lr, hr in zip(batch["lr"], batch["hr"], strict=True):
            assert torch.allclose(lr, log_scale(degrade(unscale(hr))), atol=1e-6)
            name = "A" if hr.mean() < 0.5 else "B"
            seen.add(name)
            assert any(
                torch.equal(turned(image, k), hr) for image in images[name] for k in range(8)
            )
    assert "".join(sorted(seen)) == expected


def test_share_of_steps_on_smaller_images():
    args = batches(target=False)
    made = TrainingBatches(
        args.source_lr, args.source_hr, None, CONFIG, 0, False,
        smaller=[(0.25, torch.rand(2, 1, 32, 32))],
    )  # fmt: skip
    usual = batches(target=False)
    small = 0
    for step in range(400):
        batch = made[step]
        if batch["hr"].shape[-1] == 32:
            small += 1
        else:  # the other steps are what they were
            assert torch.equal(batch["hr"], usual[step]["hr"])
    assert abs(small - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5


def test_target_tiles_come_last_and_without_truth():
    batch = batches()[0]
    assert batch["domain"].tolist() == [0, 0, 0, 1, 1, 1]
    assert (batch["lr"][3:] > 99).all()
    assert (batch["hr"] < 99).all()


def test_published_batches_mix_at_random():
    sizes = {len(batches(mixed=True)[step]["hr"]) for step in range(20)}
    assert len(sizes) > 1
    assert all(len(batches(mixed=True)[step]["lr"]) == 3 for step in range(20))


def test_source_tiles_are_the_same_with_and_without_target():
    with_target, without = batches()[4], batches(target=False)[4]
    assert torch.equal(with_target["hr"], without["hr"])
    assert len(without["lr"]) == 3


def relit(step, lr, hr, target, **settings):
    off = {"crop": 16, "batch": 3, "warmup_steps": 2, "turns": False, "relight": 0, "light": 0}
    config = training_config("smoke", "asnlsr", "warm", off | settings)
    return TrainingBatches(lr, hr, target, config, 0, False)[step]


def test_relighting_changes_spectra_alike_at_both_resolutions():
    generator = torch.Generator().manual_seed(0)
    hr, target = torch.rand(5, 4, 16, 16, generator=generator), torch.rand(2, 4, 4, 4) + 3
    tiles = hr[:, :, ::4, ::4].clone(), hr, target
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
    config = training_config("smoke", "snlsr", "warm", {"light": 0, "warmup_steps": 0, "batch": 1})
    sets = TrainingBatches(lr, hr, None, config, 0, False)
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
    hr = batches(target=False).source_hr
    config = training_config("smoke", "asnlsr", "published", {"crop": 16, "batch": 3, "light": 1.0})
    for step in range(5):
        batch = TrainingBatches(
            hr[:, :, ::4, ::4], hr, hr[:2, :, ::4, ::4], config, 0, False, hr[:, :, ::2, ::2]
        )[step]
        # of source tiles only
        assert torch.allclose(batch["lr_x2"], batch["hr"][:, :, ::2, ::2], atol=1e-6)
    assert "lr_x2" not in batches()[0]


@pytest.mark.parametrize("protocol", ["blind", "as-released"])
def test_target_truth_is_opened_only_by_as_released(tiny_tiles, tiny_split, monkeypatch, protocol):
    opened = []

    def spy(store, field):
        opened.append((store.attrs["domain"], field, tuple(tile_ids(store))))
        return load_z(store, field)

    monkeypatch.setattr("asnlsr.training.batches.load_z", spy)
    config = training_config("smoke", "asnlsr", "warm")
    TileDataModule(tiny_tiles, tiny_split, config, 0, protocol, target=True, mixed=False)
    target_truth = [ids for domain, field, ids in opened if (domain, field) == ("swir2", "hr")]
    roles = read_split(tiny_split)
    assert target_truth == ([] if protocol == "blind" else [tuple(roles["val"])])
    assert opened
    assert not any(set(ids) & set(roles["test"]) for _, _, ids in opened)


def test_select_keeps_the_order_asked_for(tiny_tiles):
    ids = tile_ids(open_tiles(tiny_tiles, "swir1"))[::-1]
    assert tile_ids(select(tiny_tiles, "swir1", ids)) == ids


def test_crop_larger_than_a_tile_is_named(tiny_tiles, tiny_split):
    config = training_config("smoke", "asnlsr", "warm", {"crop": 256})
    with pytest.raises(ValueError, match="crop 256 is larger than the tiles"):
        TileDataModule(tiny_tiles, tiny_split, config, 0, "blind", target=True, mixed=False)


def test_split_with_absent_tiles_is_named(tiny_tiles, tiny_split, tmp_path):
    roles = json.loads(tiny_split.read_text())
    roles["test"].append("nowhere/0/0")
    wrong = tmp_path / "split.json"
    wrong.write_text(json.dumps(roles))
    config = training_config("smoke", "asnlsr", "warm")
    with pytest.raises(ValueError, match="nowhere/0/0"):
        TileDataModule(tiny_tiles, wrong, config, 0, "blind", target=True, mixed=False)


def test_single_image_networks_have_nothing_to_warm_up():
    single = [name for name, entry in MODELS.items() if not entry.unmixes]
    assert sorted(SINGLE_IMAGE) == sorted(single)
    for name in single:
        config = training_config("demo", name, "warm")
        assert config.warmup_steps == 0
        steps = training_config("demo", "asnlsr", "warm").steps
        assert config.steps == steps


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"stepz": 1}, "no setting 'stepz'"),
        ({"steps": 1.5}, "steps needs a value of type int"),
        ({"precision": 16}, "precision needs a value of type str"),
        ({"precision": "16-true"}, "precision '16-true': choose 32-true or bf16-mixed"),
    ],
)
def test_wrong_settings_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        training_config("smoke", "asnlsr", "warm", overrides)
