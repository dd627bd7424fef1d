"""Training runs: reproducible, resumable, and honest about what they saw."""

import json
import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import asnlsr.models
from asnlsr.models.registry import MODELS, ModelSpec, build
from asnlsr.results.evaluate import CEILING, KEYS, evaluate, predict
from asnlsr.results.tables import AT_ONCE, render, results_table
from asnlsr.tiles.store import Pairs, TileSet, open_tiles
from asnlsr.training.folder import load_run
from asnlsr.training.module import SuperResolutionTraining
from asnlsr.training.run import train
from tests import smoke_weights
from tests.smoke_weights import short_experiment, short_training


@pytest.fixture(scope="module")
def run(tiny_set, tmp_path_factory):
    """Train for a few steps; the same run of the same tiles only once, so leave it as it is."""
    made = {}

    def make(model, tiles=tiny_set, *, anew=False, **others):
        key = (short_experiment(model, **others).name, tiles.folder)
        if anew or key not in made:
            folder = tmp_path_factory.mktemp(model) / "run"
            made[key] = short_training(model, tiles, folder, **others)
        return made[key]

    return make


@pytest.fixture
def mine(run, tmp_path):
    """Return a finished run of A-SNLSR to change."""
    return shutil.copytree(run("asnlsr"), tmp_path / "mine")


def weights(folder):
    return load_file(folder / "weights.safetensors")


def history(folder):
    return pd.read_csv(folder / "history.csv")


def no_step(*_):
    raise RuntimeError("a training step")


def assert_same_weights(a, b):
    a, b = (weights(part) if isinstance(part, Path) else part for part in (a, b))
    assert set(a) == set(b)
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("model", smoke_weights.NETWORKS)
def test_weights_are_those_of_this_training_version(run, model):
    """Another machine rounds otherwise, which Adam makes a step of where a gradient is zero."""
    expected = np.load(smoke_weights.FILE)[model]
    found = smoke_weights.some_weights(run(model))
    assert found.shape == expected.shape
    apart = np.abs(found - expected)
    assert (apart <= 1e-5).mean() >= 0.99, smoke_weights.__doc__
    assert apart.max() <= 5e-3, smoke_weights.__doc__


def test_same_seed_same_weights_and_nothing_else_is_touched(run):
    """Generators, threads and loggers of the caller are as they were."""

    def state():
        loggers = map(logging.getLogger, logging.root.manager.loggerDict)
        generators = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
        return [*generators, torch.get_num_threads(), {one.name: one.level for one in loggers}]

    first, before = run("asnlsr"), state()
    assert_same_weights(run("asnlsr", anew=True), first)
    assert state() == before
    other = weights(run("asnlsr", seed=1))
    assert not torch.equal(other["sr.head.weight"], weights(first)["sr.head.weight"])


def test_lambda_zero_equals_unmixing_step_for_step(run):
    """Without a gradient from the discriminator only the discriminator itself differs."""
    plain, adversarial = run("snlsr-unmix"), run("asnlsr", settings={"reversal": 0.0})
    reached = {k: v for k, v in weights(adversarial).items() if not k.startswith("discriminator")}
    assert_same_weights(plain, reached)
    columns = ["loss_sr", "loss_unmix", "abundance_std", "overlap"]
    curves = [history(folder)[columns] for folder in (plain, adversarial)]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    name = "encoder.layers.0.weight"
    assert not torch.equal(weights(run("asnlsr"))[name], weights(plain)[name])


def test_bandwise_trains_on_few_bands(run):
    few, every = (weights(run("bandwise", settings={"bands": bands})) for bands in (4, 30))
    assert_same_weights(few, run("bandwise"))
    assert not torch.equal(few["guide.weight"], every["guide.weight"])


def test_frozen_control_keeps_encoder_and_endmembers(run):
    torch.manual_seed(0)
    start = build("snlsr-frozen").state_dict()
    for name, value in weights(run("snlsr-frozen")).items():
        assert torch.equal(start[name], value) == name.startswith(("encoder", "decoder")), name


@pytest.mark.parametrize("model", ["snlsr-coral", "snlsr-mmd"])
def test_alignment_controls_differ_from_unmixing_alone(run, model):
    """From the first step with super-resolution on; the warm-up is the same."""
    aligned, plain = history(run(model)), history(run("snlsr-unmix"))
    assert aligned["loss_align"].isna().tolist() == [True, True, False, False]
    assert aligned["loss_unmix"].eq(plain["loss_unmix"]).tolist() == [True, True, False, False]


# What a run is, and when it is made again


def again(folder, tiles, **others):
    """Ask for a run that is there; return whether it was written anew."""
    written = (folder / "run.json").stat().st_mtime_ns
    short_training("asnlsr", tiles, folder, **others)
    return (folder / "run.json").stat().st_mtime_ns > written


def test_run_folder_tells_what_it_is(run, tiny_set):
    folder = run("asnlsr")
    record = json.loads((folder / "run.json").read_text())
    assert record["name"] == short_experiment("asnlsr").name
    assert record["config"]["steps"] == 4
    assert record["minutes"] > 0
    assert {"torch", "asnlsr"} <= set(record["versions"])
    assert record["pixels_sha256"] == tiny_set.pixels_sha256
    table = history(folder)
    assert table["step"].tolist() == [2, 4, 6, 8]
    assert table["loss_sr"].isna().tolist() == [True, True, False, False]
    assert set(table["run"]) == {record["name"]}
    assert set(table["setting"]) == {record["setting"]}
    assert table["overlap"].dropna().between(0, 1).tolist() == [True, True]
    assert "overlap" not in history(run("snlsr"))
    network, _ = load_run(folder)
    assert not network.training
    assert_same_weights(dict(network.state_dict()), folder)


def test_finished_run_returns_at_once_unless_the_version_is_raised(mine, tiny_set, monkeypatch):
    assert not again(mine, tiny_set)
    with pytest.raises(ValueError, match=r"holds the run asnlsr_.*-s0 of preset smoke; remove it"):
        again(mine, tiny_set, seed=1)
    monkeypatch.setattr("asnlsr.training.folder.TRAINING_VERSION", 10_000)
    assert again(mine, tiny_set)
    assert json.loads((mine / "run.json").read_text())["training_version"] == 10_000


def test_moved_run_and_tiles_retrain_nothing(mine, tiny_set, tmp_path):
    tiles = shutil.copytree(tiny_set.folder, tmp_path / "elsewhere/tiles")
    split = shutil.copy(tiny_set.split, tmp_path / "elsewhere/roles.json")
    moved = shutil.move(mine, tmp_path / "elsewhere/run")
    assert not again(moved, TileSet(tiles, Path(split)))


def changed_tiles(tiles, out, domain, change):
    """Write tiles of which `change` has changed one domain."""
    for name in ("swir1", "swir2"):
        store = open_tiles(tiles, name).load()
        if name == domain:
            change(store)
        store.drop_encoding().to_zarr(out / f"{name}.zarr", zarr_format=2, consolidated=False)
    return out


def test_one_changed_pixel_retrains_what_used_it(mine, run, tiny_set, tmp_path):
    def change(store):
        store["lr"][{"tile": 0, "band": 3, "y_lr": 5, "x_lr": 6}] *= 1.5

    tiles = TileSet(
        changed_tiles(tiny_set.folder, tmp_path / "tiles", "swir1", change), tiny_set.split
    )
    assert again(mine, tiles)
    assert_same_weights(mine, run("asnlsr", tiles))  # as made from nothing, without a checkpoint
    assert not again(mine, tiles)


def test_complete_checkpoint_is_finished_without_a_step(mine, run, tiny_set, monkeypatch):
    """As Snakemake does, which removes what a rule makes before it makes it again."""
    for name in ("run.json", "weights.safetensors", "history.csv"):
        (mine / name).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(SuperResolutionTraining, "training_step", no_step)
        short_training("asnlsr", tiny_set, mine)
    assert_same_weights(mine, run("asnlsr"))
    pd.testing.assert_frame_equal(history(mine), history(run("asnlsr")), check_exact=True)
    assert (mine / "run.json").exists()


def test_broken_run_resumes_to_the_same_weights(run, tiny_set, tmp_path, monkeypatch):
    """Broken off in the step after the second checkpoint; then the same call again."""
    broken, step, taken = tmp_path / "broken", SuperResolutionTraining.training_step, []
    told = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    monkeypatch.setattr(told, "level", logging.INFO)

    def breaks_off(*arguments):
        taken.append((broken / "last.ckpt").exists())
        return (step if len(taken) < 6 else no_step)(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SuperResolutionTraining, "training_step", breaks_off)
        with pytest.raises(RuntimeError, match="a training step"):
            short_training("asnlsr", tiny_set, broken)
    assert taken[-1]
    assert told.level == logging.INFO  # as it was
    assert not (broken / "run.json").exists()
    short_training("asnlsr", tiny_set, broken)
    assert_same_weights(broken, run("asnlsr"))
    pd.testing.assert_frame_equal(history(broken), history(run("asnlsr")), check_exact=True)


# What a run may look at


@pytest.fixture(scope="module")
def poisoned(tiny_set, tmp_path_factory):
    """Return the tiny tiles with NaN for all target truth, with noise or without."""

    def poison(store):
        store["hr"][:] = np.nan
        store["clean"] = store["hr"]

    folder = tmp_path_factory.mktemp("poisoned")
    return TileSet(changed_tiles(tiny_set.folder, folder, "swir2", poison), tiny_set.split)


@pytest.mark.parametrize("protocol", ["blind", "as-released"])
@pytest.mark.parametrize("model", AT_ONCE[1:])  # bicubic has nothing to choose
def test_methods_without_steps_never_look_at_target_truth(run, poisoned, model, protocol):
    assert_same_weights(run(model, protocol=protocol), run(model, poisoned, protocol=protocol))


def test_bandwise_reads_no_target_truth_and_its_oracle_nothing_else(run, poisoned):
    clean, dirty = run("bandwise"), run("bandwise", poisoned)
    assert_same_weights(clean, dirty)
    assert history(dirty)["loss_sr"].notna().all()
    with pytest.raises(ValueError, match="loss_sr is nan"):
        run("bandwise-oracle", poisoned)


@pytest.mark.parametrize("protocol", ["blind", "as-released"])
def test_only_as_released_looks_at_target_truth(run, poisoned, protocol, monkeypatch):
    """That of its validation tiles. Blind runs end the same whatever the target truth is."""
    read, seen = Pairs._z, set()

    def spy(pairs, field):
        seen.update((pairs._store.attrs["domain"], field, tile) for tile in pairs.ids)
        return read(pairs, field)

    clean = run("asnlsr", protocol=protocol)
    monkeypatch.setattr(Pairs, "_z", spy)
    dirty = run("asnlsr", poisoned, protocol=protocol, anew=True)
    val = history(dirty)["val_ssim"].dropna()
    truth = {tile for domain, field, tile in seen if (domain, field) == ("swir2", "hr")}
    if protocol == "blind":
        assert_same_weights(clean, dirty)
        assert len(val) == 2
        assert truth == set()
    else:
        assert val.empty  # its validation is the target truth, all NaN here
        assert truth == set(poisoned.roles["val"])
    assert not {tile for _, _, tile in seen} & set(poisoned.roles["test"])
    assert "clean" not in {field for _, field, _ in seen}


# From runs to a table


def test_evaluation_measures_both_domains(run, tiny_set):
    runs = [run(model) for model in ("bicubic", "bandwise", "asnlsr")]
    metrics = evaluate(runs, tiny_set, progress=False)
    assert list(metrics.columns) == [*KEYS, "metric", "value"]
    assert metrics["run"].unique().tolist() == [load_run(folder)[1]["name"] for folder in runs]
    tiles = metrics[metrics["metric"] == "psnr"]
    assert len(tiles) == 3 * 2 * 2  # models, domains, tiles of the one test scene
    assert metrics["value"].notna().all()
    both = metrics[metrics["domain"] == "both"].set_index("metric")["value"]
    assert set(metrics.loc[metrics["domain"] == "both", "model"]) == {"asnlsr"}
    assert both[["pad_pixels", "pad_tiles"]].between(-2, 2).all()
    assert 0 <= both["overlap"] <= 1


def test_evaluation_also_measures_against_truth_without_noise(run, tiny_set, tmp_path):
    """Where tiles have it, in their domain, with the peak of the other truth."""

    def know(store):
        store["clean"] = (1.2 * store["hr"]).astype("float16")

    known = TileSet(changed_tiles(tiny_set.folder, tmp_path, "swir2", know), tiny_set.split)
    metrics = evaluate([run("bicubic")], known, progress=False)
    found = metrics[metrics["metric"] == "psnr_clean"]
    assert set(found["domain"]) == {"swir2"}
    pairs = known.pairs("test", "swir2")
    sr = predict(load_run(run("bicubic"))[0], pairs.lr).numpy()
    hr = pairs.hr.numpy()
    clean = hr + np.log(1.2) / np.log(2e4)  # a factor in radiance is a constant in z
    mse = ((sr - clean) ** 2).mean((1, 2, 3))
    assert found["value"].tolist() == pytest.approx(10 * np.log10(np.ptp(hr) ** 2 / mse), abs=0.01)
    ceiling = metrics[metrics["model"] == CEILING]
    assert set(ceiling["domain"]) == {"swir2"}
    expected = 10 * np.log10(np.ptp(hr) ** 2 / ((clean - hr) ** 2).mean((1, 2, 3)))
    found = ceiling[ceiling["metric"] == "psnr"]["value"].tolist()
    assert found == pytest.approx(expected, abs=0.01)
    last = render(results_table(metrics)).splitlines()[-1]
    assert last.startswith(f"| {CEILING}")
    assert f"{expected.mean():.2f}" in last


def test_evaluation_names_a_tile_whose_metric_is_nan(run, poisoned):
    with pytest.raises(ValueError, match="psnr of swir2 tile scene-3/0/0 is NaN"):
        evaluate([run("bicubic")], poisoned, progress=False)


TOY = '''
"""Two convolutions."""

from torch import nn
from asnlsr.models.layers import SuperResolution, enlarge


class Toy(nn.Sequential):
    def __init__(self, bands=30, scale=4, skip=True):
        super().__init__(nn.Conv2d(bands, 8, 3, padding=1), nn.Conv2d(8, bands, 3, padding=1))
        self.scale, self.skip = scale, skip

    def forward(self, x):
        large = enlarge(x, self.scale)
        return SuperResolution(sr=super().forward(large) + (large if self.skip else 0))
'''


def test_network_that_is_added_is_a_row_of_the_table(run, tiny_set, tmp_path, monkeypatch):
    """By a file in `asnlsr/models` and one line in the registry, as CONTRIBUTING says."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(asnlsr.models, "__path__", [*asnlsr.models.__path__, str(tmp_path)])
    monkeypatch.setitem(MODELS, "toy", ModelSpec("toy.Toy", "two layers"))
    trained = run("toy", settings={"skip": False})
    assert len(weights(trained)) == 4
    assert history(trained)["loss_sr"].notna().all()
    metrics = evaluate([trained, run("bicubic")], tiny_set, progress=False)
    rows = [line.split("|")[1].strip() for line in render(results_table(metrics)).splitlines()]
    assert rows[2] == "bicubic"
    assert rows[3].startswith("two layers, steps=4")


# Precision and processes


@pytest.mark.parametrize("model", ["srformer", "asnlsr"])
def test_bfloat16_trains_and_differs_little(run, model):
    """Products rounded to 8 bits: not the same curve, but close to it."""
    rounded = run(model, settings={"precision": "bf16-mixed"})
    single, half = (history(folder).iloc[-1] for folder in (run(model), rounded))
    assert 0 < abs(half["loss_sr"] / single["loss_sr"] - 1) < 0.05
    assert abs(half["val_psnr"] - single["val_psnr"]) < 0.5
    assert {value.dtype for value in weights(rounded).values()} <= {torch.float32, torch.int64}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["warm", "published"])
def test_two_processes_train_as_one(run, tiny_set, tmp_path, recipe):
    """Same weights and curves, with a warm-up, and with source tiles in one process alone."""
    others = {"recipe": recipe, "settings": {"warmup_steps": 2 if recipe == "warm" else 0}}
    alone, two = run("snlsr-unmix", **others), tmp_path / "two"
    # From the command line, because Lightning starts it again for every process.
    command = [sys.executable, "-W", "ignore", "-m", "asnlsr.cli", "train", "snlsr-unmix"]
    command += ["--tiles", tiny_set.folder, "--split", tiny_set.split, "--out", two]
    command += ["--preset", "smoke", "--recipe", recipe, "--devices", "2"]
    for key, value in short_experiment("snlsr-unmix", **others).settings.items():
        command += ["--set", f"{key}={value}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr
    pd.testing.assert_frame_equal(history(alone), history(two), rtol=1e-4)
    end = weights(two)
    for name, value in weights(alone).items():
        # Adam turns gradients that are zero but for rounding into steps of up to 1e-3
        close = (end[name] - value).abs() < 1e-5
        assert close.float().mean() > 0.99, name


def test_devices_that_do_not_divide_the_batch_are_refused(tiny_set, tmp_path):
    with pytest.raises(ValueError, match="devices=3 must divide the batch of 2"):
        train(short_experiment("esrt"), tiny_set, tmp_path / "run", progress=False, devices=3)
