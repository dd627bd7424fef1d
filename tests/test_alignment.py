"""Distances between domains against a second computation, algebra and known distributions."""

import itertools
import math
import statistics

import numpy as np
import pytest

from asnlsr.models.registry import build
from asnlsr.results.alignment import (
    abundances,
    domain_distances,
    mmd,
    pixels,
    proxy_a_distance,
)
from asnlsr.tiles.store import open_tiles, tile_ids


def normal(n, *mean, seed=0):
    return np.random.default_rng(seed).standard_normal((n, len(mean))) + mean


# Maximum mean discrepancy


def plain_mmd(source, target):
    """Equation 3 of Gretton et al. 2012, term by term."""
    joint = [*map(tuple, source), *map(tuple, target)]
    width = statistics.median(math.dist(x, y) for x, y in itertools.combinations(joint, 2))

    def kernel(x, y):
        return math.exp(-(math.dist(x, y) ** 2) / (2 * width**2))

    within = sum(
        statistics.fmean(kernel(x, y) for x, y in itertools.permutations(map(tuple, part), 2))
        for part in (source, target)
    )
    across = statistics.fmean(kernel(x, y) for x in map(tuple, source) for y in map(tuple, target))
    return within - 2 * across


def test_mmd_equals_the_double_loop():
    source, target = normal(17, 0, 0, 0), normal(12, 1, 0, 0, seed=1)
    assert mmd(source, target) == pytest.approx(plain_mmd(source, target), rel=1e-9)


def test_mmd_of_two_normal_distributions_has_its_closed_form():
    """For N(0, 1) and N(d, 1), kernel width s: 2 s/√(s²+2) (1 - exp(-d²/(2 (s²+2))))."""
    d = 1.5
    source, target = normal(1500, 0), normal(1500, d, seed=1)
    joint = np.concatenate([source, target])[:, 0]
    differences = np.abs(joint[:, None] - joint)[np.triu_indices(len(joint), 1)]
    s2 = np.median(differences) ** 2
    expected = 2 * math.sqrt(s2 / (s2 + 2)) * (1 - math.exp(-(d**2) / (2 * (s2 + 2))))
    assert mmd(source, target) == pytest.approx(expected, rel=0.1)


def test_mmd_does_not_depend_on_scale_and_order():
    source, target = normal(40, 0, 0), normal(30, 1, 0, seed=1)
    assert mmd(7 * source, 7 * target) == pytest.approx(mmd(source, target))
    assert mmd(target, source) == pytest.approx(mmd(source, target))


def test_mmd_of_equal_distributions_averages_to_zero():
    """It is unbiased: the mean over many draws lies within three of its standard errors of 0."""
    draws = [mmd(normal(20, 0, seed=n), normal(20, 0, seed=n + 1000)) for n in range(200)]
    assert abs(statistics.fmean(draws)) < 3 * statistics.stdev(draws) / math.sqrt(len(draws))


def test_mmd_of_collapsed_abundances_is_zero():
    collapsed = np.full((10, 16), 1 / 16, np.float32)
    assert mmd(collapsed, collapsed) == 0


# Proxy A-distance


def test_separable_domains_are_two_apart():
    train = normal(50, 0, 0), normal(50, 100, 0, seed=1)
    test = normal(50, 0, 0, seed=2), normal(50, 100, 0, seed=3)
    assert proxy_a_distance(train, test) == 2


def test_equal_domains_are_about_zero_apart():
    """8,000 coin flips: the standard deviation of 2 (1 - 2 error) is 4 x 0.5/√8000 = 0.022."""
    train = normal(4000, 0, 0), normal(4000, 0, 0, seed=1)
    test = normal(4000, 0, 0, seed=2), normal(4000, 0, 0, seed=3)
    assert abs(proxy_a_distance(train, test)) < 0.1


def test_overlapping_domains_are_apart_by_the_best_possible_error():
    """Unit normals at distance d: error Φ(-d/2) = erfc(d/√8)/2."""
    train = normal(4000, 0), normal(4000, 1, seed=1)
    test = normal(4000, 0, seed=2), normal(4000, 1, seed=3)
    error = math.erfc(1 / math.sqrt(8)) / 2
    assert proxy_a_distance(train, test) == pytest.approx(2 * (1 - 2 * error), abs=0.06)


def test_a_larger_domain_does_not_count_more():
    """With 50 : 1 rows, always answering "source" would be right in 98 %, and tells nothing."""
    train = normal(5000, 0), normal(100, 1, seed=1)
    test = normal(5000, 0, seed=2), normal(2000, 1, seed=3)
    error = math.erfc(1 / math.sqrt(8)) / 2
    assert proxy_a_distance(train, test) == pytest.approx(2 * (1 - 2 * error), abs=0.15)


# Features


def test_pixels_keep_their_spectra():
    maps = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    rows = pixels(maps)
    assert rows.shape == (2 * 4 * 5, 3)
    np.testing.assert_array_equal(rows[1 * 20 + 2 * 5 + 3], maps[1, :, 2, 3])


def test_pixels_are_drawn_without_replacement():
    maps = np.arange(2 * 1 * 10 * 10, dtype=np.float32).reshape(2, 1, 10, 10)
    drawn = pixels(maps, 150, seed=0)[:, 0]
    assert len(set(drawn)) == 150
    np.testing.assert_array_equal(drawn, pixels(maps, 150, seed=0)[:, 0])
    assert set(drawn) != set(pixels(maps, 150, seed=1)[:, 0])
    assert len(pixels(maps, 1000)) == 200  # all there are


def test_abundances_are_the_encoders_in_the_order_of_the_ids(tiny_tiles):
    network = build("snlsr").eval()
    ids = tile_ids(open_tiles(tiny_tiles, "swir2"))[:2]
    found = abundances(network, tiny_tiles, "swir2", ids)
    assert found.shape == (2, 16, 16, 16)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    backward = abundances(network, tiny_tiles, "swir2", ids[::-1])
    np.testing.assert_array_equal(backward[::-1], found)


# All distances of two networks' abundances


def test_domains_that_share_nothing_are_as_far_apart_as_can_be():
    maps = np.random.default_rng(0).random((6, 4, 8, 8), dtype=np.float32)
    found = domain_distances(maps, maps + 10)
    assert found["pad_pixels"] == found["pad_tiles"] == 2
    # Half of the pairs of pixels are 20 apart, so that the median distance and kernel know it.
    assert found["mmd_pixels"] > 0.5


def test_equal_abundances_are_no_distance_apart():
    """The same pixels are drawn in both domains, so that each is taken for either as often."""
    maps = np.random.default_rng(1).random((8, 4, 16, 16), dtype=np.float32)
    found = domain_distances(maps, maps.copy())
    assert found["pad_pixels"] == pytest.approx(0, abs=1e-9)
    assert found["pad_tiles"] == pytest.approx(0, abs=1e-9)
    assert abs(found["mmd_pixels"]) < 0.01


def test_a_difference_of_spread_alone_is_seen():
    maps = np.random.default_rng(2).random((40, 3, 8, 8), dtype=np.float32)
    spread = 0.5 + 3 * (maps - 0.5)  # the same means within noise, three times the spread
    found = domain_distances(maps, spread)
    assert found["mmd_pixels"] > 0.05
    same = domain_distances(maps, maps.copy())
    assert found["mmd_pixels"] > 5 * abs(same["mmd_pixels"])
