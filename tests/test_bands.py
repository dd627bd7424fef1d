"""Binning against hand-written sums, and what it refuses."""

import numpy as np
import pytest

from asnlsr.scenes.bands import DOMAINS, SWIR1, SWIR2, Domain, bin_response
from asnlsr.scenes.envi import open_scene

EVEN_300 = np.linspace(1000, 2500, 300)


def outside_cut(domain, centre):
    return not domain.cut_nm[0] <= centre <= domain.cut_nm[1]


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
@pytest.mark.parametrize("even", [True, False])
def test_bins_are_those_of_the_release_at_the_true_centres(domain, even):
    random = np.random.default_rng(1)
    wavelength = EVEN_300 if even else np.sort(EVEN_300 + random.uniform(-2, 2, 300))
    usable = np.ones(300, bool) if even else random.random(300) > 0.1
    weights, centres = bin_response(domain, wavelength, usable)
    chosen = usable & (wavelength >= domain.low_nm) & (wavelength <= domain.high_nm)
    first, last = wavelength[chosen][[0, -1]]

    def kept(bins):
        return [c for c in np.linspace(first, last, bins) if outside_cut(domain, c)]

    bins = min((n for n in range(30, 90) if len(kept(n)) == 30), key=lambda n: abs(n - domain.bins))
    assert bins == domain.bins or not even
    np.testing.assert_allclose(centres, kept(bins), rtol=1e-12)
    sigma = (last - first) / bins / 2.3548200450309493
    for centre, row in zip(centres, weights, strict=True):
        response = chosen * np.exp(-((wavelength - centre) ** 2) / (2 * sigma**2))
        np.testing.assert_allclose(row, response / response.sum(), atol=1e-12)


def test_ends_of_the_cut_are_cut():
    # Eleven bins at 0, 10 ... 100; a cut from 40 to 60 with both ends takes 40, 50 and 60.
    domain = Domain("toy", "TOY", 0.0, 100.0, 11, (40.0, 60.0))
    _, centres = bin_response(domain, np.arange(101.0), bands=8)
    np.testing.assert_allclose(centres, [0, 10, 20, 30, 70, 80, 90, 100], atol=1e-9)


def test_thirty_bands_are_left_wherever_the_sensor_ends():
    # Up to 2450 nm, 37 bins leave 29 bands and 38 leave 31: the cut then loses a bin too.
    first, last = 1702.34, 2449.83
    counts = [
        sum(outside_cut(SWIR2, c) for c in np.linspace(first, last, n)) for n in range(30, 60)
    ]
    assert 30 not in counts
    wavelength = np.linspace(first, last, 150)
    _, centres = bin_response(SWIR2, wavelength)
    assert len(centres) == 30
    assert set(centres) < set(np.linspace(first, last, 30 + counts.index(31)))
    for end in np.arange(2420, 2501, 0.37):
        assert bin_response(SWIR2, np.linspace(first, end, 150))[0].shape == (30, 150)


def test_real_sensors_share_their_bands(shared):
    scenes = [open_scene(hdr) for hdr in sorted((shared / "data/aviris").glob("*.hdr"))]
    assert len({scene.channels for scene in scenes}) > 1
    for domain in (SWIR1, SWIR2):
        centres = [bin_response(domain, s.wavelength_nm, s.usable)[1] for s in scenes]
        assert np.ptp(centres, axis=0).max() < 0.5


@pytest.mark.parametrize("end", [2417, 2300, 2110])
def test_domain_covered_in_part(end):
    with pytest.warns(UserWarning, match=f"SWIR2: only 1700-{end} of 1700-2500 nm"):
        weights, centres = bin_response(SWIR2, np.linspace(1700, end, 150))
    assert weights.shape == (30, 150)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(centres[[0, -1]], [1700, end])
    assert all(outside_cut(SWIR2, centre) for centre in centres)


@pytest.mark.parametrize(
    ("wavelength", "usable", "reason"),
    [
        (np.linspace(400, 1000.5, 200), None, "SWIR1.*not covered.*1 usable"),
        (np.linspace(400, 900, 200), None, "SWIR1.*not covered.*0 usable"),
        (np.linspace(1000, 1340, 200), None, "SWIR1.*not covered.*most of 1000-1700 nm"),
        (np.linspace(1000, 1700, 40), None, "27 usable channels outside the cut; 30 are"),
        (EVEN_300, ~((EVEN_300 > 1100) & (EVEN_300 < 1150)), "no usable channel near 11"),
    ],
)
def test_unsuitable_sensor_is_refused(wavelength, usable, reason):
    with pytest.raises(ValueError, match=reason):
        bin_response(SWIR1, wavelength, usable)
