"""Comparisons of two models on what both have, against values that follow from the input."""

import numpy as np
import pandas as pd
import pytest

from asnlsr.results.evidence import Results
from asnlsr.results.statistics import (
    compared,
    courses,
    fallen,
    late_gain,
    over_scenes,
    peak_of,
    seed_words,
    tile_gaps,
    verdict,
    with_settings,
)

TILES = [("park", "park/0/0", -0.5), ("park", "park/0/1", 0.5), ("street", "street/0/0", 0.0)]


def rows(model, seed, psnr, setting="", recipe="warm"):
    """Target rows of a run whose tiles lie around a mean, and a source row far off."""
    keys = {"model": model, "seed": seed, "recipe": recipe, "setting": setting, "metric": "psnr"}
    tiles = [
        keys | {"domain": "swir2", "scene": scene, "tile": tile, "value": psnr + offset}
        for scene, tile, offset in TILES
    ]
    return [*tiles, keys | {"domain": "swir1", "scene": "park", "tile": "park/0/0", "value": 99.0}]


def table(*runs):
    return pd.DataFrame([row for run in runs for row in run])


def test_a_difference_is_taken_on_common_seeds_only():
    metrics = table(*(rows("a", s, 30 + s) for s in range(6)), *(rows("b", s, 30) for s in (1, 3)))
    found = compared(metrics, "psnr", "a", "b")
    assert (found["mean"], found["pairs"]) == (pytest.approx(2), 2)  # (1 + 3) / 2
    more = table(*(rows("c", s, 30 + (9 if s == 2 else 0)) for s in range(3)))
    found_more = compared(pd.concat([metrics, more]), "psnr", "c", "a")
    assert (found_more["mean"], found_more["median"]) == pytest.approx((2, 0))  # 0, -1 and 7
    assert "p" not in found
    assert found["metric"] == "PSNR (dB)"
    assert compared(metrics, "psnr", "a", "absent") == {}
    assert compared(metrics, "psnr", "a", "b", recipe="published") == {}


def test_a_method_without_chance_is_compared_with_every_seed_and_recipe():
    metrics = table(
        rows("bicubic", 0, 30), *(rows("a", s, 31, recipe="published") for s in range(5))
    )
    found = compared(metrics, "psnr", "a", "bicubic", recipe="published")
    assert (found["mean"], found["pairs"]) == (pytest.approx(1), 5)
    assert (found["low"], found["high"]) == pytest.approx((1, 1))
    assert found["p"] == pytest.approx(2 / 2**5)


def test_settings_become_models_of_their_own():
    metrics = table(rows("a", 0, 30), rows("a", 0, 33, setting="skip=false"))
    found = compared(with_settings(metrics), "psnr", "a_skip=false", "a")
    assert found["mean"] == pytest.approx(3)


def test_gaps_of_tiles_are_of_common_seeds():
    metrics = table(rows("a", 0, 31), rows("a", 1, 33), rows("a", 2, 90), *(
        rows("b", s, 30) for s in (0, 1)
    ))  # fmt: skip
    gaps = tile_gaps(metrics, "psnr", "a", "b")
    assert gaps["tile"].tolist() == [tile for _, tile, _ in TILES for _ in range(2)]
    assert gaps["value"].tolist() == pytest.approx([1, 3, 1, 3, 1, 3])


def test_gaps_to_a_method_without_chance_are_those_of_every_seed():
    metrics = table(rows("bicubic", 0, 30), rows("a", 0, 31), rows("a", 1, 33))
    gaps = tile_gaps(metrics, "psnr", "a", "bicubic")
    assert gaps["value"].tolist() == pytest.approx([1, 3, 1, 3, 1, 3])


def test_few_scenes_have_a_count_and_no_interval():
    metrics = table(rows("a", 0, 31), rows("b", 0, 30))
    metrics.loc[(metrics["model"] == "a") & (metrics["scene"] == "street"), "value"] -= 5
    assert over_scenes(metrics, "psnr", "a", "b") == {"scenes +": "1 of 2"}
    third = metrics[metrics["scene"] == "park"].assign(scene="lake", tile="lake/0/0")
    found = over_scenes(pd.concat([metrics, third]), "psnr", "a", "b")
    assert found["scenes +"] == "2 of 3"
    # Of 27 draws of three scenes one is street alone (-4) and eight are without it (+1).
    assert (found["scenes low"], found["scenes high"]) == pytest.approx((-4, 1))


def test_peak_follows_from_error_and_psnr():
    """An error of a tenth of the peak is 20 dB."""
    keys = {"model": "a", "seed": 0, "domain": "swir2", "tile": "park/0/0"}
    values = {"psnr": 20.0, "rmse": 0.05}
    found = peak_of(pd.DataFrame([keys | {"metric": m, "value": v} for m, v in values.items()]))
    assert found == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("pairs", "low", "high", "p", "words"),
    [
        (4, None, None, None, "too few"),
        (5, 0.1, 0.3, 0.0625, "too few"),
        (10, 0.1, 0.3, 0.002, "a gain"),
        (10, -0.1, 0.3, 0.002, "nothing"),
        (10, 0.1, 0.3, 0.06, "nothing"),
    ],
)
def test_a_verdict_needs_pairs_an_interval_and_a_small_p(pairs, low, high, p, words):
    interval, judged = verdict({"mean": 0.2, "pairs": pairs, "low": low, "high": high, "p": p})
    assert judged.startswith(words)
    assert interval.startswith("95 %" if pairs >= 5 else "an interval needs 5")
    if words == "a gain":
        assert (
            verdict({"mean": -0.2, "pairs": 10, "low": -0.3, "high": -0.1, "p": p})[1] == "a loss"
        )


def test_seeds_in_words():
    assert seed_words([4, 0, 2, 1, 2]) == "0-2, 4"
    assert seed_words([7]) == "7"


def test_late_gain_of_a_ramp_that_stops():
    curve = pd.Series([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 8])
    assert late_gain(curve) == pytest.approx((8 + 8) / 2 - (6 + 7) / 2)
    assert np.isnan(late_gain(pd.Series([30.0])))


def test_courses_name_what_was_trained_and_leave_out_oracles():
    names = {"a-run": "asnlsr", "oracle-run": "bandwise-oracle", "setting-run": "asnlsr"}
    kept = {
        run: {"model": model, "protocol": "blind", "recipe": "warm", "seed": 3}
        for run, model in names.items()
    }
    history = pd.DataFrame({"run": list(names), "setting": ["", "", "by=tile"], "val_psnr": 30.0})
    found = courses(Results(metrics=pd.DataFrame(), history=history, runs=kept, missing=[]))
    assert found["run"].tolist() == ["a-run"]
    assert found["seed"].tolist() == [3]
    assert found["protocol"].tolist() == ["blind"]


def test_a_run_that_comes_back_has_fallen():
    """From 30 up to 33 and down by 1.5 dB or 0.5 dB, and up again; oracles look at the truth."""
    far, near = [30, 33, 31.5, 34], [30, 33, 32.5, 34]
    courses_of = {
        "far": ("asnlsr", "", far),
        "near": ("asnlsr", "", near),
        "oracle": ("bandwise-oracle", "", far),
        "setting": ("asnlsr", "skip=false", far),
    }
    history = pd.DataFrame(
        [(run, how, value) for run, (_, how, values) in courses_of.items() for value in values],
        columns=["run", "setting", "val_psnr"],
    )
    kept = {run: {"model": model} for run, (model, _, _) in courses_of.items()}
    results = Results(metrics=pd.DataFrame(), history=history, runs=kept, missing=[])
    assert fallen(results) == ["far", "setting"]
