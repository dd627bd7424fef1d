"""Formats of the original release: tiles, splits and weights, and what is refused."""

import os
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.io import loadmat, savemat

from asnlsr.models.registry import build
from asnlsr.scenes.bands import DOMAINS
from asnlsr.tiles.official import import_tiles, read_npz_split
from asnlsr.tiles.store import open_tiles, read_split, tile_ids
from asnlsr.training.folder import load_run
from asnlsr.training.official import ORIGINALS, export_weights, import_weights

STEMS = [f"abu-{scene}_N{n}_SUBTILE" for scene in ("airport-1", "urban-4") for n in (0, 1)]
TILES = ["abu-airport-1/0/0", "abu-airport-1/36/36", "abu-urban-4/0/0", "abu-urban-4/36/36"]


@pytest.fixture
def official(shared):
    return shared / "data/official-format"


# --- weights -----------------------------------------------------------------------------------


@pytest.fixture
def random_weights(official):
    """Return weights of a class with the names and shapes of the list, drawn at random."""
    rows = pd.read_csv(official / "state_dict_keys.csv").groupby("model_class")

    def draw(name):
        torch.manual_seed(0)
        weights = {}
        for row in rows.get_group(name).itertuples():
            shape = [] if row.shape == "scalar" else list(map(int, row.shape.split("x")))
            whole = row.dtype == "int64"
            weights[row.key] = torch.randint(25, shape) if whole else 0.1 * torch.randn(shape)
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


PLACES = {
    "SNLSR": {
        "sr.stages.1.blocks.2.esa.stride.weight": "block6.ESA.conv2.weight",
        "sr.stages.0.blocks.0.esa.refine.0.weight": "block1.ESA.conv_max.weight",
        "sr.stages.0.blocks.1.sanl.key.weight": "block2.NL.convk.0.weight",
        "sr.stages.1.up.weight": "Up2.1.0.weight",
        "encoder.layers.4.mlp.0.weight": "SPDN.layers.4.mpl.0.weight",
    },
    "ESRTNetwork": {
        "body.s2": "esrt.body.0.weight2.scale",
        "body.blocks.1.low.s3": "esrt.body.0.encoder2.decoder_low.weight3.scale",
        "body.blocks.2.high.unit2.s1": "esrt.body.0.encoder3.decoder_high.layer2.weight1.scale",
        "body.blocks.0.last.mix.weight": "esrt.body.0.encoder1.alise.layer4.conv.weight",
        "branch.0.2.weight": "esrt.up.0.2.weight",
        "neck.bias": "esrt.reduce.bias",
    },
}


@pytest.mark.parametrize("name", PLACES)
def test_names_go_to_the_right_places(random_weights, tmp_path, name):
    """Where two weights have one shape only the name tells them apart: some of the list."""
    weights = random_weights(name)
    import_weights(save(tmp_path / "o.pth", name, weights), tmp_path / "run")
    ours = load_file(tmp_path / "run/weights.safetensors")
    for here, there in PLACES[name].items():
        assert torch.equal(ours[here], weights[there])


@pytest.mark.parametrize(
    ("name", "bands", "scale"),
    [*((name, 5, 2) for name in ORIGINALS), ("RCAMSRNetwork", 4, 8), ("SNLSR", 4, 8)],
)
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
    assert (code, out, err) == (0, "", "rcam, 3 bands, x2, skip=True\n")
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {"run.json", "weights.safetensors"}


STEM = "upsample_subnets.0.pre_db.0.bias"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop(STEM), ["missing", STEM]),
        (lambda w: w.update(more=torch.zeros(1)), ["not known", "more"]),
        (lambda w: w.update({STEM: torch.zeros(65)}), ["of another shape", STEM]),
        (lambda w: w.update({STEM: 1.0}), ["of another shape", STEM]),
        (lambda w: w.update({STEM: w[STEM] / 0}), ["not finite", STEM]),
        (lambda w: w.clear(), ["missing", "upsample_subnets.0"]),
    ],
)
def test_weights_that_do_not_fit_are_named(refused, checkpoint, change, words):
    path = checkpoint(change)
    refused(f"import-weights {path} --out run", path, *words)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_other_checkpoints_are_refused(refused, checkpoint, tmp_path):
    line, path = "import-weights o.pth --out run", tmp_path / "o.pth"
    refused(line, "o.pth", "no such checkpoint")
    checkpoint(name="UNet")
    refused(line, "o.pth", "unknown class 'UNet'", "ESRTNetwork")
    checkpoint(evil=Hostile(tmp_path / "hacked"))
    refused(line, "o.pth", "safe to read")
    path.write_bytes(path.read_bytes()[:1000])
    refused(line, "o.pth", "not a checkpoint")
    torch.save({"weights": 1}, path)
    refused(line, "o.pth", "model_class, model_state_dict and h_params")


# --- tiles and splits --------------------------------------------------------------------------

SISR, ADVERSARIAL = (f"swir1_{middle}_swir2_val" for middle in ("sisr", "swir2_adversarial"))


@pytest.fixture(scope="module")
def imported(shared, tmp_path_factory):
    """Import the official tiles and both splits: the folder."""
    folder, out = shared / "data/official-format", tmp_path_factory.mktemp("imported") / "tiles"
    import_tiles(folder, out, [folder / f"{name}.npz" for name in (SISR, ADVERSARIAL)])
    return out


@pytest.mark.parametrize(("domain", "dom"), [("swir1", "dom1"), ("swir2", "dom2")])
def test_imported_store_is_as_prepare_makes_it(official, imported, tiny_tiles, domain, dom):
    store, ours = open_tiles(imported, domain), open_tiles(tiny_tiles, domain)
    assert tile_ids(store) == TILES
    for name in ("hr", "lr", "lr_x2"):
        assert store[name].dims == ours[name].dims
        assert store[name].encoding["chunks"] == ours[name].encoding["chunks"]
    assert set(store.coords) == set(ours.coords)
    assert set(store.attrs) == set(ours.attrs) - {"scenes"}
    assert [store.attrs[key] for key in ("domain", "border", "scale")] == [domain, "zero", 4]
    assert np.allclose(store["wavelength_nm"], ours["wavelength_nm"], atol=5)
    for n, stem in enumerate(STEMS):
        mat = loadmat(official / f"swir_park_{dom}_x4/{stem}.mat")
        for name, variable in {"hr": "hr_hsi", "lr": "lr_hsi", "lr_x2": "lr_hsi_div2"}.items():
            stored = mat[variable].transpose(2, 0, 1).astype(np.float32)
            assert np.array_equal(store[name][n], stored)


def test_splits_are_converted(imported):
    """The roles as the readme of the files describes them; `test` repeats `val`."""
    assert read_split(imported / f"{ADVERSARIAL}.json", imported) == {
        "source_train": TILES[:2],
        "target_train": TILES[2:3],
        "val": TILES[3:],
        "test": TILES[3:],
    }
    alone = read_split(imported / f"{SISR}.json")
    assert (alone["source_train"], alone["target_train"]) == (TILES[:2], [])


def test_earlier_tiles_are_kept_unless_forced(official, imported, tmp_path):
    out = tmp_path / "tiles"
    import_tiles(official, out, progress=False)
    for domain in DOMAINS:
        assert open_tiles(out, domain).load().identical(open_tiles(imported, domain).load())
    split = official / f"{SISR}.npz"
    with pytest.raises(FileExistsError, match=r"swir1\.zarr"):
        import_tiles(official, out, [split], progress=False)
    import_tiles(official, out, [split], force=True, progress=False)
    assert {path.name for path in out.iterdir()} == {f"{SISR}.json", "swir1.zarr", "swir2.zarr"}


def test_damaged_tiles_are_named(official, tmp_path):
    copy = shutil.copytree(official, tmp_path / "official", copy_function=shutil.copyfile)
    file = copy / "swir_park_dom2_x4/abu-urban-4_N1_SUBTILE.mat"
    file.parent.chmod(0o755)
    whole, mat = file.read_bytes(), loadmat(file)
    mat = {key: value for key, value in mat.items() if not key.startswith("__")}

    def refused(match, error=ValueError):
        with pytest.raises(error, match=match):
            import_tiles(copy, tmp_path / "tiles", progress=False)
        assert not (tmp_path / "tiles").exists()

    file.write_bytes(whole[:5000])
    refused(r"N1_SUBTILE\.mat: not a tile")
    for content in ({"picture": np.zeros(3)}, {"metadata": {"scene": "s"}}):
        savemat(file, content)
        refused(r"N1_SUBTILE\.mat: not a tile")
    savemat(file, mat | {"lr_hsi": mat["lr_hsi"][1:]})
    refused(r"N1_SUBTILE\.mat: .*lr_hsi is .* must be \(30, 16, 16\)")
    mat["hr_hsi"][3, 4, 5] = np.nan
    savemat(file, mat)
    refused(r"N1_SUBTILE\.mat: .*hr_hsi .* not finite")
    (copy / "swir_roof_dom2_x4").mkdir()
    (copy / "swir_roof_dom2_x4" / file.name).write_bytes(whole)
    refused("a second tile of this name")
    shutil.rmtree(copy / "swir_roof_dom2_x4")
    file.unlink()
    refused("abu-urban-4_N1_SUBTILE is in one domain only")
    shutil.rmtree(file.parent)
    refused("lacks .mat tiles", FileNotFoundError)


def test_split_of_other_tiles_is_refused(official, tmp_path):
    path = save_split(tmp_path / "s.npz", {"SWIR_1": [STEMS[0]], "SWIR_2": ["elsewhere"]})
    with pytest.raises(ValueError, match=r"s\.npz: 2 of its tiles, such as b, are not here"):
        import_tiles(official, tmp_path / "tiles", [path], progress=False)
    assert not (tmp_path / "tiles").exists()


def save_split(path, train):
    val = {"SWIR_1": [], "SWIR_2": ["b"]}
    objects = {"train": train, "val": val}
    np.savez(path, **{k: np.array(v, dtype=object) for k, v in objects.items()})
    return path


def test_split_with_numpy_strings_is_read(tmp_path):
    names = np.array(["a_N0", "a_N1"])
    split = read_npz_split(save_split(tmp_path / "s.npz", {"SWIR_1": names, "SWIR_2": names}))
    assert split["source_train"] == split["target_train"] == list(names)


def test_hostile_pickle_is_refused_and_does_not_run(official, tmp_path):
    for part in ({"SWIR_1": Hostile(tmp_path / "hacked"), "SWIR_2": []}, {"SWIR_1": [eval]}):
        path = save_split(tmp_path / "s.npz", part)
        with pytest.raises(ValueError, match=r"s\.npz: .* could run code"):
            import_tiles(official, tmp_path / "tiles", [path], progress=False)
    assert not (tmp_path / "hacked").exists()
    np.load(path, allow_pickle=True)["val"]  # the file is whole: only its content is refused
    pickle.loads(pickle.dumps(Hostile(tmp_path / "hacked")))
    assert (tmp_path / "hacked").exists()  # and it would have run


@pytest.mark.parametrize("train", [3, {"SWIR_1": ["a"]}, {"SWIR_1": 1, "SWIR_2": []}])
def test_other_npz_files_are_refused(tmp_path, train):
    path = save_split(tmp_path / "s.npz", train)
    for content in (path.read_bytes(), path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"s\.npz: not a split that is safe to read"):
            read_npz_split(path)
