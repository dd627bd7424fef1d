"""Formats of the original release: tiles, splits and weights, and what is refused."""

import csv
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.io import loadmat, savemat

from asnlsr.config import training_config
from asnlsr.models.registry import build
from asnlsr.results.evaluate import evaluate
from asnlsr.tiles.store import open_tiles, read_split, tile_ids, write_split
from asnlsr.training.batches import TileDataModule
from asnlsr.training.folder import load_run
from asnlsr.training.official import ORIGINALS, export_weights, import_weights
from tests.test_cli import assert_refused

TILES = ["abu-airport-1/0/0", "abu-airport-1/36/36", "abu-urban-4/0/0", "abu-urban-4/36/36"]


@pytest.fixture
def official(shared):
    return shared / "data/official-format"


# --- weights -----------------------------------------------------------------------------------


@pytest.fixture
def random_weights(official):
    """Return weights of a class with the names and shapes of the list, drawn at random."""
    with (official / "state_dict_keys.csv").open() as file:
        rows = list(csv.DictReader(file))

    def draw(name):
        generator = torch.Generator().manual_seed(0)
        weights = {}
        for row in (row for row in rows if row["model_class"] == name):
            shape = [] if row["shape"] == "scalar" else list(map(int, row["shape"].split("x")))
            weights[row["key"]] = (
                torch.randint(0, 25, shape, generator=generator)
                if row["dtype"] == "int64"
                else 0.1 * torch.randn(shape, generator=generator)
            )
        return weights

    return draw


def save(path, name, weights, **h_params):
    torch.save({"model_state_dict": weights, "h_params": h_params, "model_class": name}, path)
    return path


@pytest.mark.parametrize("name", ORIGINALS)
def test_import_and_export_lose_nothing(random_weights, tmp_path, name):
    weights = random_weights(name)
    record = import_weights(save(tmp_path / "o.pth", name, weights), tmp_path / "run")
    assert (record["bands"], record["scale"], record["config"]["skip"]) == (30, 4, True)
    network, read = load_run(tmp_path / "run")
    assert read == record
    back = export_weights(network, name)
    assert set(back) == set(weights)
    assert all(torch.equal(back[key], weights[key]) for key in weights)
    assert all(back[key].dtype == weights[key].dtype for key in weights)


def test_names_go_to_the_right_places(random_weights, tmp_path):
    """Where two weights have one shape only the name tells them apart: some of the list."""
    weights = random_weights("SNLSR")
    import_weights(save(tmp_path / "o.pth", "SNLSR", weights), tmp_path / "run")
    ours = load_file(tmp_path / "run/weights.safetensors")
    for here, there in {
        "sr.stages.1.blocks.2.esa.stride.weight": "block6.ESA.conv2.weight",
        "sr.stages.0.blocks.0.esa.refine.0.weight": "block1.ESA.conv_max.weight",
        "sr.stages.0.blocks.1.sanl.key.weight": "block2.NL.convk.0.weight",
        "sr.stages.1.up.weight": "Up2.1.0.weight",
        "encoder.layers.4.mlp.0.weight": "SPDN.layers.4.mpl.0.weight",
    }.items():
        assert torch.equal(ours[here], weights[there])
    weights = random_weights("ESRTNetwork")
    import_weights(save(tmp_path / "o.pth", "ESRTNetwork", weights), tmp_path / "run")
    ours = load_file(tmp_path / "run/weights.safetensors")
    for here, there in {
        "body.s2": "body.0.weight2.scale",
        "body.blocks.1.low.s3": "body.0.encoder2.decoder_low.weight3.scale",
        "body.blocks.2.high.unit2.s1": "body.0.encoder3.decoder_high.layer2.weight1.scale",
        "body.blocks.0.last.mix.weight": "body.0.encoder1.alise.layer4.conv.weight",
        "branch.0.2.weight": "up.0.2.weight",
        "neck.bias": "reduce.bias",
    }.items():
        assert torch.equal(ours[here], weights[f"esrt.{there}"])


@pytest.mark.parametrize("name", ORIGINALS)
@pytest.mark.parametrize(("bands", "scale"), [(5, 4), (4, 2), (4, 8)])
def test_bands_and_scale_follow_from_the_weights(tmp_path, name, bands, scale):
    """And a skip that was off stays off."""
    network = build(ORIGINALS[name].model, bands=bands, scale=scale, skip=False).eval()
    path = save(tmp_path / "o.pth", name, export_weights(network, name), use_skip=False)
    record = import_weights(path, tmp_path / "run")
    assert (record["bands"], record["scale"]) == (bands, scale)
    x = torch.rand(1, bands, 16, 18)
    with torch.no_grad():
        assert torch.equal(load_run(tmp_path / "run")[0](x).sr, network(x).sr)


@pytest.fixture
def checkpoint(tmp_path):
    """Write a checkpoint of RCAM at scale 2 after a change: the path."""

    def write(change=lambda weights: None, name="RCAMSRNetwork", **h_params):
        weights = export_weights(build("rcam", bands=3, scale=2), "RCAMSRNetwork")
        change(weights)
        return save(tmp_path / "o.pth", name, weights, **h_params)

    return write


def test_command_imports(asnlsr, checkpoint, tmp_path):
    code, out, err = asnlsr("import-weights", checkpoint(), "--out", tmp_path / "run")
    assert (code, out, err) == (0, "", "rcam, 3 bands, x2, skip on\n")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "run.json",
        "weights.safetensors",
    ]


STEM = "upsample_subnets.0.pre_db.0.bias"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop(STEM), ["1 missing", STEM]),
        (lambda w: w.update(more=torch.zeros(1)), ["1 not known", "more"]),
        (lambda w: w.update({STEM: torch.zeros(65)}), ["1 of another shape", STEM]),
        (lambda w: w.update({STEM: 1.0}), ["1 of another shape", STEM]),
        (lambda w: w.clear(), ["missing", "upsample_subnets.0.pre_db.0.weight"]),
    ],
)
def test_weights_that_do_not_fit_are_named(asnlsr, checkpoint, tmp_path, change, words):
    path = checkpoint(change)
    assert_refused(asnlsr("import-weights", path, "--out", tmp_path / "run"), path, *words)
    assert not (tmp_path / "run").exists()


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_other_checkpoints_are_refused(asnlsr, checkpoint, tmp_path):
    def refused(path, *words):
        assert_refused(asnlsr("import-weights", path, "--out", tmp_path / "run"), path, *words)
        assert not (tmp_path / "run").exists()

    refused(tmp_path / "absent.pth", "no such checkpoint")
    refused(checkpoint(name="UNet"), "unknown class 'UNet'", "ESRTNetwork")
    refused(checkpoint(evil=Hostile(tmp_path / "hacked")), "safe to read")
    assert not (tmp_path / "hacked").exists()
    path = tmp_path / "o.pth"
    path.write_bytes(path.read_bytes()[:1000])
    refused(path, "not a checkpoint")
    torch.save({"weights": 1}, path)
    refused(path, "model_class, model_state_dict and h_params")


# --- tiles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [".", "swir_park_dom1_x4", "swir_park_dom2_x4"])
@pytest.mark.parametrize(("domain", "dom"), [("swir1", "dom1"), ("swir2", "dom2")])
def test_mat_folder_opens_as_tiles(official, tiny_tiles, folder, domain, dom):
    store, ours = open_tiles(official / folder, domain), open_tiles(tiny_tiles, domain)
    assert tile_ids(store) == TILES
    for name in ("hr", "lr", "lr_x2"):
        assert store[name].dims == ours[name].dims
        assert store[name].dtype == ours[name].dtype
    assert set(ours.coords) <= set(store.coords)
    assert {"tile", "scale", "border", "psf"} <= set(store.attrs)
    assert np.allclose(store["wavelength_nm"], ours["wavelength_nm"], atol=5)
    mat = loadmat(official / f"swir_park_{dom}_x4/abu-urban-4_N1_SUBTILE.mat")
    for name, variable in {"hr": "hr_hsi", "lr": "lr_hsi", "lr_x2": "lr_hsi_div2"}.items():
        stored = mat[variable].transpose(2, 0, 1).astype(np.float32)
        assert np.array_equal(store[name].isel(tile=[3, 0]).values[0], stored)
        assert np.array_equal(store[name][3, 4:8, 2, ::3].values, stored[4:8, 2, ::3])


def test_tiles_are_read_when_they_are_used(official, monkeypatch):
    import asnlsr.tiles.official

    read = []
    monkeypatch.setattr(
        asnlsr.tiles.official, "loadmat", lambda f, **k: read.append(f.stem) or loadmat(f, **k)
    )
    store = open_tiles(official, "swir1")
    read.clear()
    store["lr"].isel(tile=[2]).load()
    assert read == ["abu-urban-4_N0_SUBTILE"]


@pytest.fixture
def copied(official, tmp_path):
    """Copy the official tiles to where they can be damaged."""
    return shutil.copytree(official, tmp_path / "tiles", copy_function=shutil.copyfile)


def test_damaged_tiles_are_named(asnlsr, copied, tmp_path):
    (copied / "swir_park_dom1_x4").chmod(0o755)
    file = copied / "swir_park_dom1_x4/abu-urban-4_N1_SUBTILE.mat"
    whole, mat = file.read_bytes(), loadmat(file)
    split = ("split", copied, "--by", "tile", "--out", tmp_path / "s.json")
    file.write_bytes(whole[:5000])
    assert_refused(asnlsr(*split), file, "not a tile")
    savemat(file, {"picture": np.zeros(3)})
    assert_refused(asnlsr(*split), file, "not a tile")
    savemat(file, {"metadata": {"scene": "s"}})
    assert_refused(asnlsr(*split), file, "not a tile")
    mat["hr_hsi"][3, 4, 5] = np.nan
    savemat(file, {k: v for k, v in mat.items() if not k.startswith("__")})
    with pytest.raises(ValueError, match=r"N1_SUBTILE\.mat: hr_hsi .* not finite"):
        open_tiles(copied, "swir1")["hr"].load()


# --- splits ------------------------------------------------------------------------------------


def test_splits_are_read(official):
    """The roles as the readme of the files describes them; `test` repeats `val`."""
    split = read_split(official / "swir1_swir2_adversarial_swir2_val.npz", official)
    assert split == {
        "source_train": TILES[:2],
        "target_train": TILES[2:3],
        "val": TILES[3:],
        "test": TILES[3:],
    }
    alone = read_split(official / "swir1_sisr_swir2_val.npz")
    assert alone["source_train"] == ["abu-airport-1_N0_SUBTILE", "abu-airport-1_N1_SUBTILE"]
    assert alone["target_train"] == []


def test_split_of_other_tiles_is_refused(official, tiny_tiles):
    with pytest.raises(ValueError, match="3 of its tiles, such as abu-airport-1_N0_SUBTILE"):
        read_split(official / "swir1_sisr_swir2_val.npz", tiny_tiles)


def save_split(path, train):
    val = {"SWIR_1": [], "SWIR_2": ["b"]}
    objects = {"train": train, "val": val}
    np.savez(path, **{k: np.array(v, dtype=object) for k, v in objects.items()})
    return path


def test_split_with_numpy_strings_is_read(tmp_path):
    names = np.array(["a_N0", "a_N1"])
    path = save_split(tmp_path / "s.npz", {"SWIR_1": names, "SWIR_2": list(names)})
    assert read_split(path)["source_train"] == read_split(path)["target_train"] == list(names)


def test_hostile_pickle_is_refused_and_does_not_run(asnlsr, official, tmp_path):
    for train in ({"SWIR_1": Hostile(tmp_path / "hacked"), "SWIR_2": []}, {"SWIR_1": [eval]}):
        path = save_split(tmp_path / "s.npz", train)
        result = asnlsr("evaluate", "run", "--tiles", official, "--split", path, "--out", "m.csv")
        assert_refused(result, path, "could run code")
    assert not (tmp_path / "hacked").exists()
    np.load(path, allow_pickle=True)["val"]  # the file is whole: only its content is refused
    pickle.loads(pickle.dumps(Hostile(tmp_path / "hacked")))
    assert (tmp_path / "hacked").exists()  # and it would have run


@pytest.mark.parametrize(
    "train", [3, {"SWIR_1": ["a"]}, {"SWIR_1": [1], "SWIR_2": []}, {"SWIR_1": 1, "SWIR_2": []}]
)
def test_other_npz_files_are_refused(tmp_path, train):
    path = save_split(tmp_path / "s.npz", train)
    with pytest.raises(ValueError, match=r"s\.npz: not a split of the original release"):
        read_split(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"s\.npz: not a split of the original release"):
        read_split(path)


# --- together ----------------------------------------------------------------------------------


def test_official_files_train_and_evaluate(official, random_weights, tmp_path):
    split = official / "swir1_swir2_adversarial_swir2_val.npz"
    config = training_config("smoke", "rcam", "published")
    batch = TileDataModule(
        official, split, config, 0, "as-released", target=False, mixed=True, half=True
    ).batches[0]
    assert batch["lr_x2"].shape == (2, 30, 32, 32)
    name = "ESRTNetwork"
    import_weights(save(tmp_path / "o.pth", name, random_weights(name)), tmp_path / "run")
    write_split(read_split(split, official), tmp_path / "split.json")
    tables = [
        evaluate([tmp_path / "run"], official, path, progress=False)
        for path in (split, tmp_path / "split.json")
    ]
    psnr = [table[table["metric"] == "psnr"]["value"].tolist() for table in tables]
    assert len(psnr[0]) == 2  # one tile in two domains
    assert psnr[0] == psnr[1]
