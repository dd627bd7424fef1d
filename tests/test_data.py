"""Batches: what a training step may see, and that it is a pure function of seed and step."""

import json

import pytest
import torch

from asnlsr.config import SINGLE_IMAGE, training_config
from asnlsr.data import TileDataModule, TrainingBatches, load_z, select
from asnlsr.models import MODELS
from asnlsr.splits import read_split
from asnlsr.tiles import open_tiles, tile_ids

CONFIG = training_config(
    "smoke", "asnlsr", "warm", {"crop": 16, "batch": 3, "relight": 0, "light": 0}
)


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


def test_relighting_adds_one_spectrum_to_both_resolutions():
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(5, 4, 16, 16, generator=generator)
    lr, target = hr[:, :, ::4, ::4].clone(), torch.rand(2, 4, 4, 4, generator=generator) + 3

    def batch(step=2, **settings):
        off = {"crop": 16, "batch": 3, "warmup_steps": 2, "relight": 0.0, "light": 0.0}
        config = training_config("smoke", "asnlsr", "warm", off | settings)
        return TrainingBatches(lr, hr, target, config, 0, False)[step]

    plain, lit = batch(), batch(relight=1.0)
    light = (lit["hr"] - plain["hr"]).mean((2, 3))
    assert torch.allclose(lit["hr"] - plain["hr"], light[:, :, None, None].expand(3, 4, 16, 16))
    assert torch.allclose(lit["lr"][:3], plain["lr"][:3] + light[:, :, None, None], atol=1e-5)
    assert torch.equal(lit["lr"][3:], plain["lr"][3:])  # target tiles keep their light
    assert (light > 0).all()  # towards the brighter target
    assert (light < 3.6).all()  # and not beyond it
    brighter = batch(light=1.0)["hr"] - plain["hr"]
    assert torch.allclose(brighter, brighter[:, :1, :1, :1].expand_as(brighter), atol=1e-5)
    assert len(brighter[:, 0, 0, 0].unique()) == 3  # every tile its own
    warming_up = batch(step=1, relight=1.0, light=1.0)
    assert torch.equal(warming_up["hr"], batch(step=1)["hr"])  # materials as they are


def test_half_resolution_crops_show_the_same_place_in_the_same_light():
    hr = batches(target=False).source_hr
    config = training_config("smoke", "asnlsr", "published", {"crop": 16, "batch": 3, "light": 1.0})
    for step in range(5):
        batch = TrainingBatches(
            hr[:, :, ::4, ::4], hr, hr[:2, :, ::4, ::4], config, 0, False, hr[:, :, ::2, ::2]
        )[step]
        assert torch.equal(batch["lr_x2"], batch["hr"][:, :, ::2, ::2])  # of source tiles only
    assert "lr_x2" not in batches()[0]


@pytest.mark.parametrize("protocol", ["blind", "as-released"])
def test_target_truth_is_opened_only_by_as_released(tiny_tiles, tiny_split, monkeypatch, protocol):
    opened = []

    def spy(store, field):
        opened.append((store.attrs["domain"], field, tuple(tile_ids(store))))
        return load_z(store, field)

    monkeypatch.setattr("asnlsr.data.load_z", spy)
    config = training_config("smoke", "asnlsr", "warm")
    TileDataModule(tiny_tiles, tiny_split, config, 0, protocol, target=True, mixed=False)
    target_truth = [ids for domain, field, ids in opened if (domain, field) == ("swir2", "hr")]
    roles = read_split(tiny_split)
    assert target_truth == ([] if protocol == "blind" else [tuple(roles["val"])])
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


def test_single_image_networks_have_neither_warm_up_nor_light():
    single = [name for name, entry in MODELS.items() if not entry.unmixes]
    assert sorted(SINGLE_IMAGE) == sorted(single)
    for name in single:
        config = training_config("demo", name, "warm")
        assert (config.warmup_steps, config.relight, config.light) == (0, 0, 0)
        assert config.steps == training_config("demo", "asnlsr", "warm").steps


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"stepz": 1}, "no setting 'stepz'"), ({"steps": 1.5}, "steps needs a value of type int")],
)
def test_wrong_settings_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        training_config("smoke", "asnlsr", "warm", overrides)
