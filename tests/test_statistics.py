"""Statistics on cases whose answer is known: by hand, by combinatorics, by a normal sample."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from asnlsr.results.statistics import compare_all, friedman, holm, paired_difference, scene_interval


def test_five_seeds_cannot_get_below_one_in_sixteen():
    """Of 2^5 flips only all plus and all minus are as extreme as five equal signs."""
    found = paired_difference([2.0, 3, 4, 5, 6], [1.0, 1, 1, 1, 1])
    assert found.p == pytest.approx(2 / 32)
    assert found.mean == 3
    assert found.pairs == 5


def test_ten_seeds_can():
    found = paired_difference(np.arange(10) + 1.0, np.zeros(10))
    assert found.p == pytest.approx(2 / 1024)


def test_sign_flips_by_hand():
    """Differences 3, 1, -1: their sum 3 is reached by six of eight flips."""
    # 3+1-1 = 3, 3+1+1 = 5, 3-1+1 = 3 and their negatives reach it; 3-1-1 = 1 and -1 do not.
    assert paired_difference([3.0, 1, -1], [0.0, 0, 0]).p == pytest.approx(6 / 8)


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


def test_scenes_and_not_tiles_are_the_unit():
    """Tiles alike within each of 40 scenes: as if there were one tile per scene."""
    of_scene = np.random.default_rng(1).standard_normal(40)
    tiles = pd.DataFrame(
        [(scene, tile, value) for scene, value in enumerate(of_scene) for tile in range(25)],
        columns=["scene", "tile", "value"],
    )
    low, high = scene_interval(tiles)
    half = 1.96 * of_scene.std(ddof=1) / np.sqrt(40)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    # As if all 1000 tiles were independent it would be five times narrower.
    assert (high - low) / 2 > 4 * 1.96 * of_scene.std() / np.sqrt(1000)


def test_tiles_add_their_own_spread():
    """One scene: the interval is that of its tiles."""
    values = np.random.default_rng(2).standard_normal(400)
    low, high = scene_interval(pd.DataFrame({"scene": "a", "tile": range(400), "value": values}))
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_seeds_add_their_own_spread():
    """A value of the seed alone: the interval is that of the seeds, whatever the tiles."""
    of_seed = np.random.default_rng(4).standard_normal(50)
    places = [(scene, tile) for scene in range(3) for tile in range(8)]
    tiles = pd.DataFrame(
        [(*place, seed, value) for place in places for seed, value in enumerate(of_seed)],
        columns=["scene", "tile", "seed", "value"],
    )
    low, high = scene_interval(tiles)
    assert (high - low) / 2 == pytest.approx(1.96 * of_seed.std() / np.sqrt(50), rel=0.1)


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.04 times 3, 2, 1, never falling: 0.03, 0.04, 0.04."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_friedman_by_hand():
    """Three models in the same order for four seeds: chi2 = 12/(4*3*4) (4²+8²+12²) - 3*4*4 = 8."""
    table = pd.DataFrame([[1, 2, 3], [2, 4, 6], [0, 1, 9], [5, 6, 7]])
    assert friedman(table) == pytest.approx(stats.chi2.sf(8, 2))


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
