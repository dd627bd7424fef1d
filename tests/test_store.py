"""Roles of tiles: sizes by hand, no scene in two roles, files that are refused; pairs of tiles."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from asnlsr.physics import gaussian_psf, log_scale
from asnlsr.scenes.envi import write_scene
from asnlsr.tiles.prepare import prepare
from asnlsr.tiles.store import (
    ROLES,
    TileSet,
    make_split,
    open_tiles,
    read_split,
    scene_of,
    tile_ids,
    write_split,
)
from tests.conftest import make_scene, smooth_radiance


@pytest.fixture(scope="module")
def many_tiles(tmp_path_factory):
    """Write seven scenes with two tiles of 32 pixels each."""
    folder = tmp_path_factory.mktemp("many")
    scenes = [make_scene(folder / f"s{k}.hdr", rows=32, cols=64, seed=k) for k in range(7)]
    prepare(scenes, folder / "tiles", tile=32, progress=False)
    return folder / "tiles"


def scenes_of(ids):
    return set(map(scene_of, ids))


def toy_tiles(monkeypatch, count):
    """Stand in for the tiles of so many scenes, two of each: their names, the scenes' spectra."""
    names = [f"scene-{k}" for k in range(count)]
    ids = [f"{name}/{row}/0" for name in names for row in (0, 64)]
    spectra = pd.DataFrame(np.arange(2.0 * count).reshape(count, 2), index=names)
    monkeypatch.setattr("asnlsr.tiles.store.open_tiles", lambda tiles, domain: None)
    monkeypatch.setattr("asnlsr.tiles.store.tile_ids", lambda store: ids)
    monkeypatch.setattr("asnlsr.tiles.store._scene_spectra", lambda tiles: spectra)
    return ids, spectra


# (scenes, test, validation, target, source), the rule worked out by hand.
@pytest.mark.parametrize("counts", [(4, 1, 1, 1, 1), (5, 2, 1, 1, 1), (6, 2, 1, 1, 2),
                                    (7, 2, 1, 2, 2), (12, 4, 2, 3, 3)])  # fmt: skip
def test_scenes_per_role(tiny_scenes, tmp_path, monkeypatch, counts):
    n, test, val, target, source = counts
    ids, _ = toy_tiles(monkeypatch, n)
    split = make_split(tmp_path, by="scene")
    assert [len(scenes_of(split[role])) for role in ROLES] == [source, target, val, test]
    assert sorted(tile for tiles in split.values() for tile in tiles) == sorted(ids)


def test_roles_get_like_scenes(tmp_path):
    """Two kinds of four scenes each: bright and dark ones in every role that has two scenes."""
    wavelength_nm = np.linspace(1000, 2500, 151)
    for k in range(8):
        radiance = smooth_radiance(32, 32, 151, seed=k) * (10 if k < 4 else 1)
        write_scene(tmp_path / f"s{k}.hdr", [radiance], radiance.shape, wavelength_nm)
    prepare(sorted(tmp_path.glob("*.hdr")), tmp_path / "tiles", tile=32, progress=False)
    for seed in range(3):
        split = make_split(tmp_path / "tiles", by="scene", seed=seed)
        for role in ("source_train", "target_train", "test"):
            assert {int(name[1]) < 4 for name in scenes_of(split[role])} == {True, False}


def test_thirds_of_tiles(many_tiles):
    ids = tile_ids(open_tiles(many_tiles, "swir2"))
    split = make_split(many_tiles, by="tile")
    assert sorted(len(split[role]) for role in ROLES[:3]) == [4, 5, 5]
    assert sorted(tile for role in ROLES[:3] for tile in split[role]) == sorted(ids)
    assert split["test"] == split["val"]
    assert scenes_of(split["source_train"]) & scenes_of(split["target_train"])


@pytest.mark.parametrize("by", ["scene", "tile"])
def test_seed_decides(many_tiles, by):
    splits = [make_split(many_tiles, by, seed) for seed in (0, 0, 1, 2, 3)]
    assert splits[0] == splits[1]
    assert any(split != splits[0] for split in splits[2:])


@pytest.mark.parametrize(
    "text",
    [
        '{"val": ["a/0/0"', "\x80\x02cnumpy", "[" * 100_000, "[]", '{"val": []}',
        '{"source_train": [], "target_train": [], "val": [], "test": [1]}',
        '{"source_train": [], "target_train": [], "val": [], "test": "a/0/0"}',
    ],
)  # fmt: skip
def test_damaged_split_is_refused(tmp_path, text):
    path = tmp_path / "split.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"split\.json: not a split"):
        read_split(path)


def test_too_few_scenes_or_tiles_are_refused(tiny_scenes, tmp_path):
    prepare(tiny_scenes[:1], tmp_path / "tiles", tile=64, progress=False)
    with pytest.raises(ValueError, match="1 scenes, a split by scene needs at least 4"):
        make_split(tmp_path / "tiles", by="scene")
    with pytest.raises(ValueError, match="2 tiles, a split by tile needs at least 3"):
        make_split(tmp_path / "tiles", by="tile")


def test_pairs_are_the_tiles_of_a_role_in_the_order_of_the_split(many_tiles, tmp_path):
    split = make_split(many_tiles, by="tile")
    split["val"] = split["val"][::-1]
    write_split(split, tmp_path / "split.json")
    tiles = TileSet(many_tiles, tmp_path / "split.json")
    pairs = tiles.pairs("val", "swir2")
    assert pairs.ids == split["val"]
    assert (len(pairs), pairs.scale, pairs.border) == (len(split["val"]), 4, "scene")
    assert pairs.scenes == [tile.split("/")[0] for tile in split["val"]]
    store = open_tiles(many_tiles, "swir2")
    places = [tile_ids(store).index(tile) for tile in split["val"]]
    for field in ("lr", "hr", "lr_x2"):
        expected = log_scale(store[field].to_numpy()[places])
        assert torch.equal(getattr(pairs, field), torch.from_numpy(expected))
    assert pairs.peak == pytest.approx(float(pairs.hr.max() - pairs.hr.min()))
    np.testing.assert_allclose(pairs.psf, gaussian_psf())
    np.testing.assert_array_equal(pairs.wavelength_nm, store["wavelength_nm"])
    with pytest.raises(ValueError, match="no tile has the role train"):
        tiles.pairs("train", "swir2")
    write_split(split | {"val": []}, tmp_path / "split.json")
    with pytest.raises(ValueError, match="no tile has the role val"):
        TileSet(many_tiles, tmp_path / "split.json").pairs("val", "swir2")


def test_hash_is_of_pixels_names_and_wavelengths(tiny_tiles, tmp_path):
    """Not of the place, the chunks or the attributes."""
    stores = {name: open_tiles(tiny_tiles, name).load() for name in ("swir1", "swir2")}

    def hashed(**swir2):
        for name, store in (stores | swir2).items():
            kept = store.drop_encoding().assign_attrs(version="other")
            kept.to_zarr(tmp_path / f"{name}.zarr", mode="w", zarr_format=2, consolidated=False)
        return TileSet(tmp_path, tmp_path).pixels_sha256

    store = stores["swir2"]
    brighter = xr.where(np.arange(store.sizes["x"]) == 3, 1.0, store["hr"]).astype("float32")
    others = (
        store.assign(hr=brighter.transpose(*store["hr"].dims)),
        store.assign_coords(row0=store["row0"] + 1),
        store.assign_coords(wavelength_nm=store["wavelength_nm"] + 1),
    )
    expected = TileSet(tiny_tiles, tmp_path).pixels_sha256
    assert hashed() == expected
    assert len({expected, *(hashed(swir2=other) for other in others)}) == 4


def test_one_scene_is_left_out_and_no_other_role_depends_on_it(tmp_path, monkeypatch):
    """Seven scenes: one tested, three source, two target, one validation, whatever its spectrum."""
    _, spectra = toy_tiles(monkeypatch, 7)
    split = make_split(tmp_path, by="without-scene-2")
    assert split["test"] == ["scene-2/0/0", "scene-2/64/0"]
    assert [len(scenes_of(split[role])) for role in ROLES] == [3, 2, 1, 1]
    spectra.loc["scene-2"] = 1e6
    assert make_split(tmp_path, by="without-scene-2") == split
    with pytest.raises(ValueError, match="no scene park: scene-0, "):
        make_split(tmp_path, by="without-park")
