"""Reference weights: small, loadable like a run, and used only where there is no run."""

import pandas as pd
import pytest
import torch

from asnlsr.notebook.workspace import Workspace
from asnlsr.results import evidence as reference
from asnlsr.results.evaluate import evaluate
from asnlsr.results.evidence import export, trained
from asnlsr.training.folder import load_run
from asnlsr.training.run import train


@pytest.fixture(scope="module")
def run(tiny_tiles, tiny_split, tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "run"
    overrides = {"steps": 2, "warmup_steps": 2, "log_every": 2}
    return train("asnlsr", tiny_tiles, tiny_split, out, preset="smoke", overrides=overrides)


@pytest.fixture(scope="module")
def exported(run, tiny_tiles, tiny_split):
    export(run, tiny_tiles, tiny_split, run.parent / "exported")
    return run.parent / "exported"


def test_weights_take_half_the_space_and_give_the_same_image(run, exported):
    whole, half = (folder / "weights.safetensors" for folder in (run, exported))
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    lr = torch.rand(1, 30, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, truth = (load_run(folder)[0](lr).sr for folder in (exported, run))
    assert found.dtype == torch.float32
    # float16 has 11 bits: a relative error of 2**-11 of every weight, some layers deep.
    assert torch.allclose(found, truth, atol=0.01)
    assert not torch.equal(found, truth)


def test_card_tells_the_numbers_that_the_weights_reach(exported, tiny_tiles, tiny_split):
    metrics = evaluate([exported], tiny_tiles, tiny_split, progress=False)
    psnr = metrics.query("domain == 'swir2' and metric == 'psnr'")["value"].mean()
    card = (exported / "README.md").read_text()
    assert f"PSNR {psnr:.2f} dB" in card
    assert "2 +\n  2 steps" in card
    assert "1174824 parameters" in card
    assert len(pd.read_csv(exported / "history.csv")) == 2


def test_reference_is_used_where_there_is_no_run_of_the_same_scenes(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "WEIGHTS", tmp_path / "weights")
    space = Workspace("demo", base=tmp_path / "data")
    assert trained(space, "asnlsr") == space.run("asnlsr")  # nothing is there
    kept = tmp_path / "weights/asnlsr-blind-warm-s0"
    kept.mkdir(parents=True)
    (kept / "run.json").touch()
    assert trained(space, "asnlsr") == kept
    assert trained(Workspace("smoke", base=tmp_path), "asnlsr").parent.name == "runs"
    space.run("asnlsr").mkdir(parents=True)
    (space.run("asnlsr") / "run.json").touch()
    assert trained(space, "asnlsr") == space.run("asnlsr")
