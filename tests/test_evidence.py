"""The evidence: which runs, in what order, and records that grow piece by piece."""

import json
import shutil
from collections import Counter

import pandas as pd
import pytest
import torch

from asnlsr.config import Experiment
from asnlsr.results.evaluate import evaluate
from asnlsr.results.evidence import Results, blind, in_full, read_results
from asnlsr.training.folder import load_run
from asnlsr.training.run import train
from workflow.plan import BUDGETS, plan
from workflow.record_results import check_scenes, record
from workflow.record_weights import export

MODELS = ["bicubic", "esrt", "bandwise", "snlsr-frozen", "snlsr", "snlsr-unmix", "asnlsr"]


def test_plan_asks_of_the_adversary_first_and_pays_for_each_network_what_it_needs():
    runs = plan(MODELS)
    assert len({run.name for run in runs}) == len(runs)
    pairs = [(model, seed) for seed in range(5) for model in ("asnlsr", "snlsr-unmix")]
    assert [(run.model, run.seed) for run in runs[:10]] == pairs
    assert {(run.protocol, run.recipe, run.setting) for run in runs[:10]} == {
        ("blind", "warm", f"steps={BUDGETS['asnlsr']}")
    }
    seeds = Counter((run.model, run.recipe, run.setting) for run in runs)
    assert seeds["bicubic", "warm", ""] == 1  # nothing in it is random
    assert seeds["snlsr-mmd", "warm", f"steps={BUDGETS['snlsr-mmd']}"] == 3
    assert seeds["esrt", "warm", f"steps={2 * BUDGETS['esrt']}"] == 1
    for model in ("asnlsr", "snlsr-unmix"):
        assert (
            seeds[model, "published", "steps=8000"] == 3 * seeds[model, "published", "steps=22500"]
        )
        assert seeds[model, "warm", f"steps={BUDGETS[model]}_endmembers=apart"] == 5
    assert {run.seed for run in plan(MODELS, seeds=2)} == {0, 1}
    # The steps of a short preset are its own.
    assert {run.setting for run in plan(MODELS, "smoke") if run.model == "esrt"} == {""}


def test_plan_leaves_out_real_scenes_one_after_the_other():
    runs = plan(MODELS, scenes=("park", "shore"))
    folds = Counter((run.model, run.by) for run in runs)
    assert {by for _, by in folds} == {"without-park", "without-shore"}
    assert folds["bicubic", "without-park"] == folds["esrt", "without-shore"] == 1
    assert folds["asnlsr", "without-park"] == folds["bandwise", "without-shore"] == 3


def recorded(*names):
    """Results of runs of which nothing but the configuration is told, a row each."""
    runs = {}
    for name in names:
        run = Experiment.parse(name)
        kept = {
            key: getattr(run, key) for key in ("model", "protocol", "recipe", "seed", "setting")
        }
        runs[name] = kept | {"config": run.config.model_dump()}
    settings = [run["setting"] for run in runs.values()]
    rows = pd.DataFrame({"run": list(runs), "setting": settings}, dtype=str)
    return Results(metrics=rows, history=rows, runs=runs, missing=[])


def test_rows_know_the_steps_of_their_run_and_no_fold():
    found = blind(
        recorded(
            "asnlsr_steps=4000-blind-warm-s1",
            "asnlsr_steps=2000_reversal=0.1-blind-warm-s0",
            "bandwise_steps=1000_by=without-jasper_ridge-blind-warm-s2",
            "esrt-as-released-warm-s0",
        )
    )
    columns = ["model", "seed", "steps", "setting"]
    assert found[columns].to_numpy().tolist() == [
        ["asnlsr", 1, 4000, ""],
        ["asnlsr", 0, 2000, "reversal=0.1"],
        ["bandwise", 2, 1000, ""],
    ]
    assert blind(recorded()).empty


def test_rows_in_full_are_the_longest_with_all_seeds():
    """Else the longest: real scenes have one seed a fold."""
    names = [f"asnlsr_steps=2000-blind-warm-s{seed}" for seed in range(5)]
    names += [f"esrt_steps=2000-blind-warm-s{seed}" for seed in range(3)]
    others = ["asnlsr_steps=8000-blind-warm-s0", "asnlsr_steps=4000-blind-published-s0"]
    found = in_full(blind(recorded(*names, *others, "bicubic-blind-warm-s0")))
    assert found["run"].tolist() == [*names, "bicubic-blind-warm-s0"]
    names = [f"asnlsr_steps={n}_by=without-park-blind-warm-s0" for n in (500, 1000)]
    assert in_full(blind(recorded(*names)))["run"].tolist() == names[1:]


@pytest.fixture
def measured(tiny_set, tmp_path):
    """Make a finished, measured run of bicubic with a seed; return the folder and a function."""

    def make(seed):
        experiment = Experiment("bicubic", "smoke", seed=seed)
        run = train(experiment, tiny_set, tmp_path / "made/runs" / experiment.name)
        evaluate([run], tiny_set, progress=False).to_csv(run / "metrics.csv", index=False)
        return run

    return tmp_path / "made", make


def test_record_holds_what_is_there_and_names_what_is_missing(measured, tmp_path):
    (made, make), results = measured, tmp_path / "results"
    wanted = [f"bicubic-blind-warm-s{seed}" for seed in range(3)]
    run = make(0)
    assert record(made, wanted, results, "make evidence").missing == wanted[1:]
    # The next piece, in a clone that no longer has the first run.
    shutil.rmtree(run)
    make(1)
    assert record(made, wanted, results, "x").missing == wanted[2:]
    assert list(read_results(results).runs) == wanted[:2]
    metrics = pd.read_csv(results / "metrics.csv.gz")
    expected = pd.read_csv(made / "runs/bicubic-blind-warm-s1/metrics.csv")
    for seed in (0, 1):
        found = metrics[(metrics["seed"] == seed) & (metrics["metric"] == "psnr")]["value"]
        truth = expected[expected["metric"] == "psnr"]["value"]
        assert found.tolist() == pytest.approx(truth.tolist(), rel=1e-5)  # bicubic has no seed
    document = json.loads((results / "runs.json").read_text())
    assert document["missing"] == wanted[2:]
    assert document["runs"][wanted[1]]["seed"] == 1
    assert "cores" in document["runs"][wanted[1]]["machine"]


def test_record_of_unchanged_results_is_the_same_bytes(measured, tmp_path):
    made, make = measured
    make(0)

    def recorded_bytes():
        missing = record(made, ["bicubic-blind-warm-s0"], tmp_path / "results", "x").missing
        return missing, [path.read_bytes() for path in sorted((tmp_path / "results").iterdir())]

    assert recorded_bytes() == recorded_bytes()


def test_unfinished_run_is_missing(measured, tmp_path):
    made, make = measured
    (make(0) / "metrics.csv").unlink()
    wanted = ["bicubic-blind-warm-s0"]
    assert record(made, wanted, tmp_path / "results", "x").missing == ["bicubic-blind-warm-s0"]


def test_results_on_other_scenes_are_not_mixed(measured, tmp_path):
    made, make = measured
    metrics = make(0) / "metrics.csv"
    folder, wanted = tmp_path / "results", ["bicubic-blind-warm-s0"]
    results = record(made, wanted, folder, "x")
    tested = set(pd.read_csv(metrics)["scene"].dropna())
    check_scenes(folder, results, [*tested, "else"])
    with pytest.raises(ValueError, match=f"holds results on other scenes .*{min(tested)}"):
        check_scenes(folder, results, ["else"])
    before = (folder / "metrics.csv.gz").read_bytes()
    # A scene more, and the same ones in the test.
    identity, other = (metrics.parent / "run.json").read_text(), "0" * 64
    tiles = json.loads(identity)["pixels_sha256"]
    (metrics.parent / "run.json").write_text(identity.replace(tiles, other))
    with pytest.raises(ValueError, match=r"hold runs on different tiles"):
        record(made, wanted, folder, "x")
    (metrics.parent / "run.json").write_text(identity)
    metrics.write_text(metrics.read_text().replace(min(tested), "elsewhere"))
    with pytest.raises(ValueError, match=f"holds results on other scenes .*{min(tested)}"):
        record(made, wanted, folder, "x")
    assert (folder / "metrics.csv.gz").read_bytes() == before


@pytest.fixture(scope="module")
def run(tiny_set, tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "run"
    short = {"steps": 2, "warmup_steps": 2, "log_every": 2}
    experiment = Experiment("asnlsr", "smoke", settings=short)
    return train(experiment, tiny_set, out)


@pytest.fixture(scope="module")
def exported(run, tiny_set):
    export(run, tiny_set, run.parent / "exported")
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


def test_card_tells_the_numbers_that_the_weights_reach(exported, tiny_set):
    metrics = evaluate([exported], tiny_set, progress=False)
    psnr = metrics.query("domain == 'swir2' and metric == 'psnr'")["value"].mean()
    card = (exported / "README.md").read_text()
    assert f"PSNR {psnr:.2f} dB" in card
    assert "2 + 2 steps" in card
    assert "1174824 parameters" in card
    assert len(pd.read_csv(exported / "history.csv")) == 2
