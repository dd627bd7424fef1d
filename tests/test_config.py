"""Experiments: their names, and configurations as recorded before this code was written."""

import json
from pathlib import Path

import pytest

from asnlsr.config import PRESETS, PROTOCOLS, RECIPES, Experiment
from asnlsr.models.registry import MODELS
from asnlsr.training.folder import TRAINING_VERSION

RECORDED = {
    name: (run, file.parent.name.split("-")[1])
    for file in Path(__file__).parents[1].glob("data/results/*/runs.json")
    for name, run in json.loads(file.read_text())["runs"].items()
}


def test_recorded_runs_have_the_names_and_numbers_of_their_experiments():
    assert RECORDED
    for name, (run, preset) in RECORDED.items():
        found = Experiment.parse(name, preset)
        assert found.name == name
        keys = ("model", "preset", "protocol", "recipe", "seed", "setting")
        assert {key: getattr(found, key) for key in keys} == {key: run[key] for key in keys}
        if run.get("training_version") == TRAINING_VERSION:
            config = found.config.model_dump()
            assert {key: run["config"][key] for key in config} == config, name


@pytest.mark.parametrize("model", MODELS)
def test_presets_differ_in_sizes_alone(model):
    sizes = {"steps", "warmup_steps", "crop", "batch", "log_every"}
    for recipe in RECIPES:
        configs = [Experiment(model, p, "blind", recipe).config.model_dump() for p in PRESETS]
        assert all({k for k in c if c[k] != configs[0][k]} <= sizes for c in configs)
        steps = [preset.steps for preset in PRESETS.values()]
        assert [config["steps"] for config in configs] == steps
        warm = recipe == "warm" and MODELS[model].unmixes and not MODELS[model].frozen
        expected = [size.warmup_steps if warm else 0 for size in PRESETS.values()]
        assert [config["warmup_steps"] for config in configs] == expected


def test_recipes():
    """As published all networks of the paper are trained alike, with restarts."""
    models = ("rcam", "esrt", "srformer", "snlsr", "asnlsr")
    configs = [Experiment(model, recipe="published").config for model in models]
    assert all(config == configs[0] for config in configs)
    assert configs[0].restarts == 4
    assert Experiment("asnlsr").config.restarts == 1
    assert [Experiment(model).config.lr for model in models] == [1e-4, 1e-3, 2.5e-4, 1e-3, 1e-3]


def test_names_round_trip():
    settings = {"skip": False, "lr": 1e-4, "precision": "bf16-mixed", "by": "tile", "lr_min": 0.0}
    for protocol, (by, border) in PROTOCOLS.items():
        for recipe in RECIPES:
            plain = Experiment("asnlsr", "paper", protocol, recipe, 12)
            assert (plain.by, plain.border) == (by, border)
            for one in (plain, Experiment("asnlsr", "paper", protocol, recipe, 3, settings)):
                assert Experiment.parse(one.name, "paper") == one
                assert hash(Experiment.parse(one.name, "paper")) == hash(one)
    assert one.by == "tile"


@pytest.mark.parametrize(
    "name", ["asnlsr", "asnlsr-blind-warm", "asnlsr_skip-blind-warm-s0", "nothing-blind-warm-s0"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"is not the name of a run|unknown model 'nothing'"):
        Experiment.parse(name)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("asnlsr", {"stepz": 1}, "no setting 'stepz': choose one of steps, "),
        ("asnlsr", {"neighbours": 3}, "no setting 'neighbours'"),
        ("asnlsr", {"steps": 1.5}, "setting steps = 1.5: Input should be a valid integer"),
        ("asnlsr", {"steps": True}, "setting steps = True"),
        *(
            ("asnlsr", {key: 0}, f"setting {key} = 0: Input should be greater than 0")
            for key in ("steps", "batch", "crop", "log_every", "restarts")
        ),
        ("asnlsr", {"lr": 0.0}, "setting lr = 0.0: Input should be greater than 0"),
        ("asnlsr", {"lr": float("inf")}, "setting lr = inf"),
        ("asnlsr", {"reversal": -1.0}, "setting reversal = -1.0"),
        ("asnlsr", {"skip": 1}, "setting skip = 1"),
        ("asnlsr", {"relight": 1.5}, "setting relight = 1.5"),
        ("asnlsr", {"precision": "16-true"}, "precision = 16-true: .*'32-true', 'tf32' or"),
        ("bandwise", {"bands": -1}, "setting bands = -1"),
        ("esrt", {"warmup_steps": 4}, "esrt has no unmixing to warm up"),
        ("esrt", {"start": True}, "esrt has no start of its own"),
        ("asnlsr", {"by": "pixel"}, "setting by=pixel: a split is by scene, tile or without-SCENE"),
    ],
)
def test_wrong_settings_are_told_in_one_line(model, settings, message):
    with pytest.raises(ValueError, match=message) as told:
        Experiment(model, settings=settings)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("key", ["model", "preset", "protocol", "recipe"])
def test_unknown_choices_are_named(key):
    with pytest.raises(ValueError, match=f"unknown {key} 'other': choose one of "):
        Experiment(**{"model": "asnlsr"} | {key: "other"})
