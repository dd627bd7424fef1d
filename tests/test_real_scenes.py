"""The main job: seven AVIRIS scenes to the results table, at preset smoke, through the CLI."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from asnlsr.tiles.store import open_tiles, read_split, tile_ids

MODELS = ["bicubic", "snlsr-frozen", "snlsr", "snlsr-unmix", "asnlsr"]


def run(*arguments, cwd):
    command = [sys.executable, "-m", "asnlsr.cli", *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def workspace(shared, tmp_path_factory):
    """Prepare and split the seven scenes, train and evaluate every model."""
    folder = tmp_path_factory.mktemp("real")
    headers = sorted((shared / "data/aviris").glob("*.hdr"))
    assert len(headers) == 7
    run("prepare", *headers, "--out", "tiles", "--tile", 64, cwd=folder)
    run("split", "tiles", "--by", "scene", "--out", "split.json", cwd=folder)
    files = ["--tiles", "tiles", "--split", "split.json"]
    for model in MODELS:
        run("train", model, *files, "--out", f"runs/{model}", "--preset", "smoke", cwd=folder)
    run(
        "evaluate",
        *(f"runs/{model}" for model in MODELS),
        *files,
        "--out",
        "metrics.csv",
        cwd=folder,
    )
    return folder


def test_tiles_hold_both_domains(workspace):
    for domain, low, high in [("swir1", 1000, 1700), ("swir2", 1700, 2500)]:
        store = open_tiles(workspace / "tiles", domain)
        # A scene of 100 pixels takes two tiles of 64 each way: 100 - 64 = 36 is over half.
        assert store["hr"].shape == (28, 30, 64, 64)
        assert store["lr"].shape == (28, 30, 16, 16)
        assert np.isfinite(store["hr"]).all()
        assert (store["hr"] >= 0).all()
        assert (np.diff(store["wavelength_nm"]) > 0).all()
        assert low < store["wavelength_nm"][0] < store["wavelength_nm"][-1] < high


def test_no_scene_has_two_roles(workspace):
    split = read_split(workspace / "split.json", workspace / "tiles")
    scenes = [{tile.split("/")[0] for tile in ids} for ids in split.values()]
    assert sum(map(len, scenes)) == len(set.union(*scenes)) == 7


def test_table_holds_the_controls_and_asnlsr_on_swir2(workspace):
    table = pd.read_csv(io.StringIO(run("table", "metrics.csv", "--format", "csv", cwd=workspace)))
    assert set(table["model"]) == set(MODELS)
    numbers = table.filter(regex="^(psnr|ssim|sam_deg)_mean$")
    assert numbers.shape == (5, 3)
    assert np.isfinite(numbers).all(axis=None)
    text = run("table", "metrics.csv", cwd=workspace)
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 2 + len(MODELS)


def test_bicubic_row_by_hand(workspace):
    store = open_tiles(workspace / "tiles", "swir2")
    tested = read_split(workspace / "split.json")["test"]
    rows = [tile_ids(store).index(tile) for tile in tested]

    def z(name):
        radiance = np.maximum(store[name].values[rows], 1e-4)
        return torch.from_numpy((np.log(radiance) - np.log(1e-4)) / (np.log(2) - np.log(1e-4)))

    hr = z("hr")
    sr = torch.nn.functional.interpolate(z("lr"), scale_factor=4, mode="bicubic")
    error = ((sr - hr) ** 2).mean(dim=(1, 2, 3))
    psnr = (10 * torch.log10((hr.max() - hr.min()) ** 2 / error)).mean().item()
    table = pd.read_csv(io.StringIO(run("table", "metrics.csv", "--format", "csv", cwd=workspace)))
    bicubic = table[table["model"] == "bicubic"]["psnr_mean"].item()
    assert bicubic == pytest.approx(psnr, abs=1e-3)
