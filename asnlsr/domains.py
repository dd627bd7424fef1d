"""The two spectral domains and the Gaussian binning that takes a sensor to them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BANDS = 30
_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
# A sensor covers a domain when its outermost channels miss at most this share of the range.
_UNCOVERED_SHARE = 0.1


@dataclass(frozen=True)
class Domain:
    """A spectral range, its binning and the absorption band that is cut out of it.

    Attributes
    ----------
    name, title : str
        Key in files and on the command line; name in text and figures.
    low_nm, high_nm : float
        Range of channels, both ends inclusive.
    bins : int
        Gaussian bins before the cut, for an evenly spaced 300-band sensor.
    cut_nm : tuple of float
        Bins whose centre lies in this range (inclusive) are dropped: water vapour.
    """

    name: str
    title: str
    low_nm: float
    high_nm: float
    bins: int
    cut_nm: tuple[float, float]


SWIR1 = Domain("swir1", "SWIR1", 1000.0, 1700.0, 45, (1310.0, 1550.0))
SWIR2 = Domain("swir2", "SWIR2", 1700.0, 2500.0, 38, (1800.0, 1980.0))
DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (SWIR1, SWIR2)}


def bin_response(
    domain: Domain,
    wavelength_nm: ArrayLike,
    usable: ArrayLike | None = None,
    bands: int = BANDS,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights that turn the channels of a sensor into the bands of a domain.

    With n centres c_b evenly from the first to the last selected channel and
    FWHM = (last - first) / n, the weight of the channel at wavelength l in bin b is
    proportional to exp(-(l - c_b)^2 / (2 sigma^2)), evaluated at the true wavelength, and the
    weights of a bin sum to 1. n departs as little as possible from ``domain.bins`` so that
    ``bands`` bins have their centre outside ``domain.cut_nm``. Binning comes before the cut, as
    in the release, so absorption channels leak a little into the bins beside the cut.

    Parameters
    ----------
    domain : Domain
    wavelength_nm : array_like of float, shape (channels,)
        Channel centres (nm), in any spacing.
    usable : array_like of bool, shape (channels,), optional
        False for bad channels: they are not selected and get weight 0.
    bands : int
        Bands that must be left after the cut.

    Returns
    -------
    weights : ndarray of float64, shape (bands, channels)
    centres_nm : ndarray of float64, shape (bands,)

    Raises
    ------
    ValueError
        If the sensor does not cover the domain or has too few usable channels in it.
    """
    centre = np.asarray(wavelength_nm, dtype=np.float64)
    selected = (centre >= domain.low_nm) & (centre <= domain.high_nm)
    if usable is not None:
        selected &= np.asarray(usable, dtype=bool)
    _check_coverage(domain, centre[selected], bands)
    first, last = centre[selected][[0, -1]]
    bins, centres, kept = _choose_bins(domain, first, last, bands)
    sigma = (last - first) / bins / _FWHM_PER_SIGMA
    weights = np.exp(-0.5 * ((centre - centres[kept, None]) / sigma) ** 2) * selected
    reach = np.abs(np.where(selected, centre, np.inf) - centres[kept, None]).min(axis=1)
    if reach.max() > sigma * _FWHM_PER_SIGMA:
        hole = centres[kept][reach.argmax()]
        raise ValueError(
            f"{domain.title}: no usable channel near {hole:.0f} nm; "
            "check wavelength and bbl in the header"
        )
    return weights / weights.sum(axis=1, keepdims=True), centres[kept]


def _check_coverage(domain: Domain, selected_nm: NDArray[np.float64], bands: int) -> None:
    """Refuse a sensor without enough channels in the domain."""
    slack = _UNCOVERED_SHARE * (domain.high_nm - domain.low_nm)
    wanted = f"{domain.title} ({domain.low_nm:.0f}-{domain.high_nm:.0f} nm)"
    if selected_nm.size == 0:
        raise ValueError(f"{wanted} has no usable channel; the sensor must cover it")
    if selected_nm[0] > domain.low_nm + slack or selected_nm[-1] < domain.high_nm - slack:
        raise ValueError(
            f"{wanted} is not covered: usable channels span only "
            f"{selected_nm[0]:.0f}-{selected_nm[-1]:.0f} nm"
        )
    left = int(np.count_nonzero(_outside_cut(domain, selected_nm)))
    if left < bands:
        raise ValueError(
            f"{wanted} has {left} usable channels outside the cut, too few for {bands} bins; "
            "use a sensor with more channels"
        )


def _outside_cut(domain: Domain, centre_nm: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (centre_nm < domain.cut_nm[0]) | (centre_nm > domain.cut_nm[1])


def _choose_bins(
    domain: Domain, first_nm: float, last_nm: float, bands: int
) -> tuple[int, NDArray[np.float64], NDArray[np.bool_]]:
    """Find the number of bins nearest to ``domain.bins`` that leaves ``bands`` after the cut."""
    for bins in sorted(range(bands, 4 * bands), key=lambda bins: abs(bins - domain.bins)):
        centres = np.linspace(first_nm, last_nm, bins)
        kept = _outside_cut(domain, centres)
        if np.count_nonzero(kept) == bands:
            return bins, centres, kept
    raise ValueError(
        f"{domain.title}: no number of bins over {first_nm:.0f}-{last_nm:.0f} nm "
        f"leaves {bands} bands after the cut"
    )
