"""Statistics and comparisons whose answer is known: by hand, combinatorics, a normal sample."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from asnlsr.results.statistics import (
    compare_all,
    compared,
    holm,
    over_scenes,
    paired_difference,
    peak_of,
    scene_interval,
    tile_gaps,
    with_settings,
)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2, 3, 4, 5], 2 / 32),  # of 2^5 flips all plus and all minus are as extreme
        (np.arange(10) + 1.0, 2 / 1024),
        # 3+1-1 = 3, 3+1+1 = 5, 3-1+1 = 3 and their negatives reach it; 3-1-1 = 1 and -1 do not.
        ([3.0, 1, -1], 6 / 8),
    ],
)
def test_sign_flips_by_hand(differences, p):
    found = paired_difference(np.add(differences, 1), np.ones(len(differences)))
    assert (found.p, found.mean) == pytest.approx((p, np.mean(differences)))
    assert found.pairs == len(differences)


def test_constant_difference_has_an_interval_of_no_width():
    found = paired_difference([1.5, 2.5, 3.5], [1.0, 2, 3])
    assert (found.low, found.high) == (0.5, 0.5)


def test_interval_of_normal_differences_is_close_to_students():
    d = np.random.default_rng(3).standard_normal(60) + 1
    student = stats.t.interval(0.95, 59, d.mean(), d.std(ddof=1) / np.sqrt(60))
    found = paired_difference(d, np.zeros(60))
    assert (found.low, found.high) == pytest.approx(student, abs=0.05)


def test_interval_covers_the_truth_as_often_as_theory_says():
    """Of 12 normal values: normal quantiles and no ddof, so 1.96 √(11/12) in units of Student's."""
    rng = np.random.default_rng(0)
    found = [paired_difference(rng.standard_normal(12), np.zeros(12)) for _ in range(200)]
    expected = 1 - 2 * stats.t.sf(1.96 * np.sqrt(11 / 12), 11)  # 0.913
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(expected, abs=0.06)


def half_interval(value_of, scenes, tiles, seeds=1):
    """Half of the interval of a mean over tiles whose values are a function of the three."""
    places = [(s, t, k) for s in range(scenes) for t in range(tiles) for k in range(seeds)]
    rows = pd.DataFrame(places, columns=["scene", "tile", "seed"])
    low, high = scene_interval(rows.assign(value=[value_of(*place) for place in places]))
    return (high - low) / 2


def test_scenes_tiles_and_seeds_add_their_own_spread():
    """As many independent values as there are scenes, tiles of one scene, or seeds."""
    values = np.random.default_rng(1).standard_normal(400)

    def normal(n):
        return pytest.approx(1.96 * values[:n].std() / np.sqrt(n), rel=0.1)

    # If all 1000 tiles were independent, the first would be five times narrower.
    assert half_interval(lambda scene, tile, seed: values[scene], 40, 25) == normal(40)
    assert half_interval(lambda scene, tile, seed: values[tile], 1, 400) == normal(400)
    assert half_interval(lambda scene, tile, seed: values[seed], 3, 8, 50) == normal(50)


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.04 times 3, 2, 1, never falling: 0.03, 0.04, 0.04."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_all_pairs_are_compared_on_the_seeds_that_both_have():
    nan = np.nan
    table = pd.DataFrame(
        {"a": [1.0, 2, 3, 9], "b": [0.0, 1, 2, nan], "c": [1.0, 2, 4, 0], "d": [5.0, nan, nan, nan]}
    )
    found = compare_all(table).set_index(["a", "b"])
    assert list(found.index) == [("a", "b"), ("a", "c"), ("b", "c")]  # one seed of d is no pair
    assert found.loc[("a", "b"), "mean"] == 1  # without the seed that b lacks
    assert found["pairs"].to_list() == [3, 4, 3]
    assert found.loc[("a", "c"), "mean"] == 2
    assert (found["p_holm"] >= found["p"]).all()


def test_a_family_of_pairs_is_corrected_for_its_own_number():
    """Six differences of one sign: p = 2 / 64 each, in a family of three one not answered yet."""
    table = pd.DataFrame({"a": np.arange(6.0), "b": np.arange(6.0) - 1, "c": np.arange(6.0) + 2})
    found = compare_all(table, [("a", "b"), ("c", "a"), ("a", "nowhere")])
    assert found[["a", "b"]].to_numpy().tolist() == [["a", "b"], ["c", "a"]]
    assert found["mean"].to_list() == [1, 2]
    assert found["p"].to_list() == pytest.approx([2 / 64] * 2)
    assert found["p_holm"].to_list() == pytest.approx([6 / 64] * 2)


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
    trained = [rows("a", s, 31, recipe="published") for s in range(5)]
    metrics = table(rows("bicubic", 0, 30), *trained)
    found = compared(metrics, "psnr", "a", "bicubic", recipe="published")
    assert (found["mean"], found["pairs"]) == (pytest.approx(1), 5)
    assert (found["low"], found["high"]) == pytest.approx((1, 1))
    assert found["p"] == pytest.approx(2 / 2**5)


def test_settings_become_models_of_their_own():
    metrics = table(rows("a", 0, 30), rows("a", 0, 33, setting="skip=false"))
    found = compared(with_settings(metrics), "psnr", "a_skip=false", "a")
    assert found["mean"] == pytest.approx(3)


def test_gaps_of_tiles_are_of_common_seeds():
    """Those of every seed, to a method without chance."""
    runs = [rows("a", 0, 31), rows("a", 1, 33), rows("bicubic", 0, 30)]
    metrics = table(*runs, rows("b", 0, 30), rows("b", 1, 30), rows("b", 2, 90))
    for other in ("b", "bicubic"):
        gaps = tile_gaps(metrics, "psnr", "a", other)
        assert gaps["tile"].tolist() == [tile for _, tile, _ in TILES for _ in range(2)]
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
