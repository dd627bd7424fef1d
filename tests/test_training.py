"""Training runs: reproducible, resumable, and honest about what they saw."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file

from asnlsr.config import AT_ONCE, PRECISIONS, training_config
from asnlsr.models.registry import build
from asnlsr.results.evaluate import KEYS, evaluate
from asnlsr.results.tables import render, results_table
from asnlsr.training.folder import load_run
from asnlsr.training.run import train
from asnlsr.training.warmup import (
    far_apart,
    start_contrast,
    start_stages,
    start_super_resolution,
    start_unmixing,
    whitening,
)

SHORT = {"steps": 4, "warmup_steps": 4, "log_every": 2, "batch": 2}


@pytest.fixture(scope="module")
def run(tiny_tiles, tiny_split, tmp_path_factory):
    """Train a network for a few steps in a folder of its own."""

    def make(model, name="", overrides=SHORT, tiles=tiny_tiles, **settings):
        out = tmp_path_factory.mktemp(f"{model}{name}") / "run"
        return train(
            model,
            tiles,
            tiny_split,
            out,
            preset="smoke",
            overrides=overrides,
            progress=False,
            **settings,
        )

    return make


@pytest.fixture(scope="module")
def finished(run):
    """One finished run of A-SNLSR."""
    return run("asnlsr")


def weights(folder):
    return load_file(folder / "weights.safetensors")


def assert_same_weights(a, b):
    assert set(a) == set(b)
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == []


def test_same_seed_same_weights(run, finished):
    assert_same_weights(weights(run("asnlsr")), weights(finished))


def test_another_seed_other_weights(run, finished):
    other = weights(run("asnlsr", seed=1))
    assert not torch.equal(other["sr.head.weight"], weights(finished)["sr.head.weight"])


def test_lambda_zero_equals_unmixing_step_for_step(run):
    """Without a gradient from the discriminator only the discriminator itself differs."""
    plain, adversarial = run("snlsr-unmix"), run("asnlsr", overrides=SHORT | {"reversal": 0.0})
    shared = weights(plain)
    reached = {k: v for k, v in weights(adversarial).items() if not k.startswith("discriminator")}
    assert_same_weights(shared, reached)
    columns = ["loss_sr", "loss_unmix", "abundance_std"]
    curves = [pd.read_csv(folder / "history.csv")[columns] for folder in (plain, adversarial)]
    pd.testing.assert_frame_equal(*curves, check_exact=True)


def test_lambda_reaches_the_training(run, finished):
    strong = run("asnlsr", overrides=SHORT | {"reversal": 50.0})
    name = "encoder.layers.0.weight"
    assert not torch.equal(weights(strong)[name], weights(finished)[name])


def test_frozen_control_keeps_encoder_and_endmembers(run):
    start = dict(build_like_run("snlsr-frozen").named_parameters())
    end = weights(run("snlsr-frozen", overrides=SHORT | {"warmup_steps": 0}))
    for name, value in end.items():
        same = torch.equal(start[name], value)
        assert same == name.startswith(("encoder", "decoder")), name


@pytest.mark.parametrize("model", ["rcam", "esrt", "srformer"])
def test_single_image_networks_train(run, model):
    """In recipe warm too they have no warm-up; RCAM learns from both sizes."""
    folder = run(model, overrides={"steps": 2, "log_every": 2, "batch": 2})
    history = pd.read_csv(folder / "history.csv")
    losses = {"loss_sr"} | ({"loss_half"} if model == "rcam" else set())
    assert {name for name in history if name.startswith("loss")} == losses
    assert history["step"].tolist() == [2]
    start = build_like_run(model)
    moved = [n for n, p in start.named_parameters() if not torch.equal(p, weights(folder)[n])]
    assert len(moved) > 0.9 * len(list(start.parameters()))
    assert load_run(folder)[1]["config"]["warmup_steps"] == 0


def test_bandwise_trains_on_few_bands_and_gives_all(run, tiny_tiles, tiny_split):
    overrides = {"steps": 4, "log_every": 2, "batch": 2}
    few, same, every = (
        run("bandwise", overrides=overrides | {"bands": bands}) for bands in (4, 4, 30)
    )
    assert_same_weights(weights(few), weights(same))
    assert not torch.equal(weights(few)["guide.weight"], weights(every)["guide.weight"])
    start = build_like_run("bandwise").named_parameters()
    still = [name for name, p in start if torch.equal(p, weights(few)[name])]
    assert still == []
    metrics = evaluate([few], tiny_tiles, tiny_split, progress=False)
    assert metrics["value"].notna().all()


@pytest.mark.parametrize("model", ["snlsr-coral", "snlsr-mmd"])
def test_alignment_controls_differ_from_unmixing_alone(run, model):
    """From the first step with super-resolution on; the warm-up is the same."""
    history, plain = (pd.read_csv(run(m) / "history.csv") for m in (model, "snlsr-unmix"))
    assert history["loss_align"].isna().tolist() == [True, True, False, False]
    unmix = "loss_unmix"
    assert (history[unmix] == plain[unmix]).tolist() == [True, True, False, False]


@pytest.mark.parametrize("model", ["asnlsr-dense", "asnlsr-conv1d"])
def test_pixel_discriminators_train(run, model):
    history = pd.read_csv(run(model) / "history.csv")
    assert np.isfinite(history["loss_domain"].iloc[-1])
    assert 0 <= history["domain_accuracy"].iloc[-1] <= 1


def build_like_run(model, seed=0):
    torch.manual_seed(seed)
    return build(model)


def test_killed_run_resumes_to_the_same_weights(tiny_tiles, tiny_split, tmp_path):
    """SIGKILL after the first checkpoint, then the same call again."""
    overrides = {"steps": 30, "warmup_steps": 4, "log_every": 2, "batch": 2}
    code = (
        "import sys, json; from asnlsr.training.run import train; tiles, split, out = sys.argv[1:4];"
        "train('asnlsr', tiles, split, out, preset='smoke', overrides=json.loads(sys.argv[4]),"
        " progress=False)"
    )

    def start(out):
        arguments = [str(tiny_tiles), str(tiny_split), str(out), json.dumps(overrides)]
        return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, *arguments])

    killed = tmp_path / "killed"
    process = start(killed)
    deadline = time.monotonic() + 120
    while not (killed / "last.ckpt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "run.json").exists()
    assert start(killed).wait() == 0
    assert start(tmp_path / "unbroken").wait() == 0
    assert_same_weights(weights(killed), weights(tmp_path / "unbroken"))
    histories = [pd.read_csv(folder / "history.csv") for folder in (killed, tmp_path / "unbroken")]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_finished_run_returns_at_once_and_is_made_again_by_other_code_alone(
    run, finished, tiny_tiles, tiny_split, monkeypatch
):
    written = (finished / "run.json").stat().st_mtime_ns

    def again(seed):
        train(
            "asnlsr", tiny_tiles, tiny_split, finished, preset="smoke", overrides=SHORT, seed=seed,
            progress=False,
        )  # fmt: skip
        return (finished / "run.json").stat().st_mtime_ns

    assert again(0) == written
    with pytest.raises(ValueError, match=r"another seed \(asnlsr, seed 0\); remove it"):
        again(1)
    with monkeypatch.context() as patch:
        patch.setattr("asnlsr.training.folder._code_hash", lambda: "0" * 64)
        assert again(0) > written
    again(0)


def test_run_folder_tells_what_it_is(finished):
    record = json.loads((finished / "run.json").read_text())
    assert record["model"] == "asnlsr"
    assert record["parameters"] == 1_174_824
    assert record["config"]["steps"] == 4
    assert record["minutes"] > 0
    assert {"torch", "asnlsr"} <= set(record["versions"])
    assert len(record["tiles_sha256"]) == len(record["split_sha256"]) == 64
    history = pd.read_csv(finished / "history.csv")
    assert history["step"].tolist() == [2, 4, 6, 8]
    assert history["loss_sr"].isna().tolist() == [True, True, False, False]


@pytest.fixture(scope="module")
def poisoned(tiny_tiles, tmp_path_factory):
    """Return the tiny tiles with NaN in place of every target high-resolution value."""
    folder = tmp_path_factory.mktemp("poisoned")
    for domain in ("swir1", "swir2"):
        store = xr.open_zarr(tiny_tiles / f"{domain}.zarr", consolidated=False).load()
        if domain == "swir2":
            store["hr"][:] = np.nan
        store.to_zarr(folder / f"{domain}.zarr", zarr_format=2, consolidated=False)
    return folder


@pytest.mark.parametrize("protocol", ["blind", "as-released"])
@pytest.mark.parametrize("model", AT_ONCE[1:])  # bicubic has nothing to choose
def test_methods_without_steps_never_look_at_target_truth(run, poisoned, model, protocol):
    clean, dirty = (run(model, protocol=protocol, **tiles) for tiles in ({}, {"tiles": poisoned}))
    assert_same_weights(weights(clean), weights(dirty))


@pytest.mark.parametrize("settings", [{}, {"internal": 1.0}, {"halved": 1.0}, {"deblur": 1}])
def test_bandwise_reads_no_target_truth_and_its_oracle_nothing_else(run, poisoned, settings):
    overrides = {"steps": 2, "log_every": 2, "batch": 2} | settings
    clean, dirty = (run("bandwise", overrides=overrides, **t) for t in ({}, {"tiles": poisoned}))
    assert_same_weights(weights(clean), weights(dirty))
    oracle = run("bandwise-oracle", overrides=overrides, tiles=poisoned)
    for folder, poison in ((dirty, False), (oracle, "internal" not in settings)):
        assert pd.read_csv(folder / "history.csv")["loss_sr"].isna().all() == poison


@pytest.mark.parametrize("protocol", ["blind", "as-released"])
def test_only_as_released_looks_at_target_truth(run, poisoned, protocol):
    """Blind runs end with the same weights whatever the target truth is."""
    clean, dirty = (
        run("asnlsr", protocol=protocol),
        run("asnlsr", tiles=poisoned, protocol=protocol),
    )
    val = pd.read_csv(dirty / "history.csv")["val_ssim"].dropna()
    if protocol == "blind":
        assert_same_weights(weights(clean), weights(dirty))
        assert len(val) == 2
    else:
        assert val.empty  # its validation is the target truth, all NaN here


def test_evaluation_measures_both_domains_and_makes_a_table(run, finished, tiny_tiles, tiny_split):
    bicubic = run("bicubic")
    metrics = evaluate([bicubic, finished], tiny_tiles, tiny_split, progress=False)
    assert list(metrics.columns) == [*KEYS, "metric", "value"]
    tiles = metrics[metrics["metric"] == "psnr"]
    assert len(tiles) == 2 * 2 * 2  # models, domains, tiles of the one test scene
    assert metrics["value"].notna().all()
    table = results_table(metrics)
    expected = tiles[(tiles["model"] == "bicubic") & (tiles["domain"] == "swir2")]["value"].mean()
    assert table.loc[("bicubic", "warm"), ("psnr", "mean")] == pytest.approx(expected)
    text = render(table)
    assert text.index("bicubic") < text.index("A-SNLSR")  # order of the registry
    assert f"{expected:.2f}" in text
    assert "\\begin{tabular}" in render(table, "latex")


def test_evaluation_warns_of_a_split_that_is_not_the_run_s(
    finished, tiny_tiles, tiny_split, tmp_path
):
    (tmp_path / "other.json").write_text(tiny_split.read_text() + "\n")
    with pytest.warns(UserWarning, match=r"another split than .*other\.json"):
        evaluate([finished], tiny_tiles, tmp_path / "other.json", progress=False)


def test_history_and_evaluation_say_how_far_the_domains_are_apart(run, finished):
    """Only where a network unmixes target tiles; the last row belongs to the last weights."""
    history = pd.read_csv(finished / "history.csv")
    assert history["pad_pixels"].dropna().between(-2, 2).all()
    assert history["mmd_tiles"].notna().any()
    assert "pad_pixels" not in pd.read_csv(run("snlsr") / "history.csv")


def test_table_takes_means_over_tiles_then_spread_over_seeds():
    rows = [
        dict(zip(KEYS, ["asnlsr", seed, "demo", "blind", "warm", "swir2", "a", tile], strict=True))
        | {"metric": "psnr", "value": value}
        for seed, tile, value in [(0, "x", 30), (0, "y", 32), (1, "x", 33), (1, "y", 33)]
    ]
    cell = results_table(pd.DataFrame(rows)).loc[("asnlsr", "warm"), "psnr"]
    assert cell["mean"] == 32  # of 31 and 33
    assert cell["std"] == pytest.approx(2**0.5)
    assert cell["seeds"] == 2


def test_loaded_run_is_the_trained_network(finished):
    network, record = load_run(finished)
    assert not network.training
    assert record["seed"] == 0
    assert_same_weights(dict(network.state_dict()), weights(finished))


def test_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run"):
        load_run(tmp_path)


def test_start_of_the_unmixing_separates_and_does_not_collapse(tiny_tiles):
    torch.manual_seed(0)
    network = build("snlsr", bands=6)
    mixture = torch.rand(3, 2, 16, 16)
    spectra = torch.rand(6, 2) + 0.2
    lr = torch.einsum("cm,bmhw->bchw", spectra, mixture)
    start_unmixing(network, lr)
    with torch.no_grad():
        logits = network.encoder.layers(lr)
    assert (logits.mean((0, 2, 3)) - 5).abs().max() < 1e-3  # the ReLU is open
    assert torch.allclose(logits.std((0, 2, 3)), torch.ones(16), atol=1e-3)


def test_start_of_super_resolution_is_the_bicubic_skip_blind_to_the_level():
    torch.manual_seed(0)
    network = build("snlsr", bands=6)
    lr = torch.rand(3, 6, 16, 16)
    start_unmixing(network, lr)
    start_super_resolution(network, lr)
    with torch.no_grad():
        assert torch.equal(network(lr).sr, build("bicubic", bands=6)(lr).sr)
        level = torch.rand(1, 16, 1, 1).expand(1, 16, 5, 5)  # abundances of a flat area
        flat = torch.nn.functional.conv2d(level, network.sr.head.weight)
        contrast = torch.nn.functional.conv2d(network.encoder(lr), network.sr.head.weight)
    assert flat.abs().max() < 1e-3
    assert 0.1 < contrast.std() < 1


def test_start_of_contrast_is_the_bicubic_skip_blind_to_the_level():
    torch.manual_seed(0)
    network = build("srformer", bands=6).eval()
    lr = torch.rand(3, 6, 24, 24)
    start_contrast(network, lr)
    with torch.no_grad():
        assert torch.equal(network(lr).sr, build("bicubic", bands=6)(lr).sr)
        level = torch.rand(1, 6, 1, 1).expand(1, 6, 5, 5)
        flat = torch.nn.functional.conv2d(level, network.head.weight)
        contrast = network.head(lr)
    assert flat.abs().max() < 1e-4
    assert torch.allclose(contrast.std((0, 2, 3)), torch.ones(96), atol=1e-3)


def test_start_of_the_stages_is_the_bicubic_skip_in_layers_of_unit_variance():
    torch.manual_seed(0)
    network = build("rcam", bands=6)
    level = torch.rand(3, 6, 1, 1)
    lr = level + 0.02 * torch.rand(3, 6, 16, 16)  # far more level than detail, as in tiles
    start_stages(network, lr)
    seen = {}
    for name, layer in network.stages[1].named_modules():
        if isinstance(layer, torch.nn.Conv2d) and "gate" not in name:
            layer.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y.clone()}))
    with torch.no_grad():
        output = network(lr)
        assert torch.equal(output.sr, build("bicubic", bands=6)(lr).sr)
        end = seen.pop("blocks.3.fuse.0")
        assert torch.allclose(end.std((0, 2, 3)), torch.full((6,), 0.1), atol=1e-3)
        assert len(seen) == 1 + 4 * 4 * 2 + 3
        for y in seen.values():
            assert torch.allclose(y.std((0, 2, 3)), torch.ones(64), atol=1e-2)
            assert y.mean((0, 2, 3)).abs().max() < 1e-2
    for block in network.stages[0].blocks[:3]:  # a flat area gives nothing but its bias
        assert block.fuse[0].weight.sum((2, 3)).abs().max() < 1e-4


def test_endmembers_are_extremes_and_whitening_whitens():
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    inside = 0.1 * torch.rand(200, 2, generator=generator) + 1
    chosen = far_apart(torch.cat([inside, corners]), 3)
    assert {tuple(row) for row in chosen.tolist()} == {tuple(row) for row in corners.tolist()}
    pixels = torch.randn(5000, 3, generator=generator) @ torch.rand(3, 3, generator=generator)
    covariance = torch.cov((pixels @ whitening(pixels).T).T)
    assert torch.allclose(covariance, torch.eye(3), atol=0.01)


def test_schedule_restarts_only_in_the_published_recipe():
    assert training_config("paper", "asnlsr", "published").restarts == 4
    assert training_config("paper", "asnlsr", "published").warmup_steps == 0
    assert training_config("demo", "asnlsr", "warm").warmup_steps > 0


def test_published_recipe_is_the_same_for_all_networks():
    recipes = [training_config("paper", model, "published") for model in ("rcam", "esrt", "asnlsr")]
    assert recipes[0] == recipes[1] == recipes[2]


@pytest.mark.parametrize("model", ["rcam", "esrt", "srformer", "asnlsr"])
def test_bfloat16_trains_and_differs_little(run, model):
    """Products rounded to 8 bits: not the same curve, but close to it."""
    overrides = SHORT | ({} if model == "asnlsr" else {"warmup_steps": 0})
    folders = [run(model, overrides=overrides | {"precision": p}) for p in PRECISIONS]
    single, half = (pd.read_csv(folder / "history.csv").iloc[-1] for folder in folders)
    assert 0 < abs(half["loss_sr"] / single["loss_sr"] - 1) < 0.05
    assert abs(half["val_psnr"] - single["val_psnr"]) < 0.5
    assert {value.dtype for value in weights(folders[1]).values()} <= {torch.float32, torch.int64}


def train_in_processes(devices, model, tiles, split, out, recipe, overrides):
    """Train from the command line, because Lightning starts it again for every process."""
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-W", "ignore", "-m", "asnlsr.cli", "train", model]
    paths = ["--tiles", tiles, "--split", split, "--out", out, "--preset", "smoke"]
    options = ["--recipe", recipe, "--devices", devices, *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, [*paths, *options])],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return weights(out), pd.read_csv(out / "history.csv"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "recipe"), [("snlsr-unmix", "warm"), ("snlsr-unmix", "published"), ("esrt", "warm")]
)
def test_two_processes_train_as_one(tiny_tiles, tiny_split, tmp_path, model, recipe):
    """Same weights and curves, with a warm-up, and with source tiles in one process alone."""
    warmup = 2 if (model, recipe) == ("snlsr-unmix", "warm") else 0
    overrides = {"steps": 4, "warmup_steps": warmup, "log_every": 2, "batch": 2}
    (one, curve, _), (two, shared_curve, shown) = (
        train_in_processes(n, model, tiny_tiles, tiny_split, tmp_path / str(n), recipe, overrides)
        for n in (1, 2)
    )
    assert "MEMBER: 2/2" in shown
    pd.testing.assert_frame_equal(curve, shared_curve, rtol=1e-4)
    for name, value in one.items():
        # Adam turns gradients that are zero but for rounding into steps of up to 1e-3
        close = (two[name] - value).abs() < 1e-5
        assert close.float().mean() > 0.99, name


def test_batch_that_does_not_divide_is_refused(run):
    with pytest.raises(ValueError, match="devices=3 must divide the batch of 2"):
        run("esrt", overrides={"batch": 2}, devices=3)
